"""One rank of a data-parallel step from the encoders' outputs on: ``FOLDER RANK WORLD``.

Linear layers stand for the encoders; heads as in the model, BatchNorm with fixed statistics.
Writes losses, averaged gradients, re-weighting state and parameters after three steps.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vfsearch.config import LossConfig, ReweightingConfig
from vfsearch.loss.reweighting import Reweighting
from vfsearch.model.alignment import build_head
from vfsearch.training.distributed import World, average_buffers, gather_rows, gather_values
from vfsearch.training.objective import objective

N, M, DIM = 8, 20, 16


class Pair(nn.Module):
    """Stand-in encoders and real heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({m: nn.Linear(10, 24) for m in ("face", "voice")})
        self.head = nn.ModuleDict({m: build_head(24, DIM, 0.0) for m in ("face", "voice")})
        self.classifier = nn.Linear(DIM, M, bias=False)

    def forward(self, faces: Tensor, voices: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.head["face"](self.encoder["face"](faces)),
            self.head["voice"](self.encoder["voice"](voices)),
        )


def main(folder: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
        )
    world = World.current()
    torch.manual_seed(0)
    model = Pair().eval()
    network = DistributedDataParallel(model) if size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    config = ReweightingConfig(temperature=0.1)
    weights = Reweighting(config, M, torch.device("cpu"))
    out: dict[str, Tensor] = {}
    rows = slice(rank * N // size, (rank + 1) * N // size)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        faces, voices = torch.randn(2, N, 10, generator=generator)
        labels = torch.randperm(M, generator=generator)[:N]
        x, v = network(faces[rows], voices[rows])
        x, v = gather_rows(torch.cat([x, v], dim=1), world, N).chunk(2, dim=1)
        labels = gather_values(labels[rows], world, N)
        result = objective(x, v, labels, model.classifier.weight, weights.weights, LossConfig())
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        weights.observe(labels, result.identity_losses)
        weights.admit()
        out[f"terms.{step}"] = result.terms
    for name, parameter in model.named_parameters():
        out[f"gradient.{name}"] = parameter.grad
        out[f"parameter.{name}"] = parameter.detach()
    out |= {f"reweighting.{name}": tensor for name, tensor in weights.state().items()}
    model.head["face"][0].running_mean.fill_(float(rank))
    average_buffers(model, world)
    out["buffer"] = model.head["face"][0].running_mean - (size - 1) / 2
    save_file({name: tensor.contiguous() for name, tensor in out.items()},
              folder / f"{rank}.safetensors")  # fmt: skip
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
