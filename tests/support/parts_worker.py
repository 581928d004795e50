"""One rank of a step whose batch goes through in parts: ``FOLDER RANK WORLD SIZE...`` (0: whole).

Writes the gradients (as momenta), parameters and re-weighting after one step of each size.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_run import tiny_config, tiny_stores

from vfsearch.training.distributed import World
from vfsearch.training.run import Run


def main(folder: Path, rank: int, size: int, parts: list[int]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
        )
    for part in parts:
        config = tiny_config().model_dump(mode="json")
        config["model"]["dropout"] = 0.0
        config["training"] |= {"batch": 16, "micro_batch": part or None}
        config["workers"]["count"] = size
        run = Run(
            type(tiny_config()).model_validate(config),
            tiny_stores().train,
            device=torch.device("cpu"),
            world=World.current(),
        )
        run.begin_epoch()
        run.advance(next(run.stream))
        tensors = {**dict(run.model.named_parameters()), **run.training_tensors()}
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            folder / f"{size}-{rank}-{part}.safetensors",
        )
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [int(a) for a in sys.argv[4:]])
