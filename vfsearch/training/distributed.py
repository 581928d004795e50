"""Collectives of the data-parallel step: every one an identity in a single process."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among the workers of one run."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        """From the initialised process group, else a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def share(self, total: int) -> slice:
        """Rows of a global batch that this rank has: as `BatchStream` deals them out."""
        return slice(self.rank * total // self.size, (self.rank + 1) * total // self.size)

    def most(self, total: int) -> int:
        """Rows of the largest share."""
        return -(-total // self.size)


class _Gather(torch.autograd.Function):
    """All-gather rows; the gradient of the rows that this rank contributed, times the world size.

    Every rank computes the same loss L on the gathered rows, hence the same dL/d(rows). DDP
    averages parameter gradients over ranks, (1/W) sum_r, while the gradient of L through the
    encoders is the plain sum over ranks; the factor W makes up for it. Parameters used after the
    gather (the classifier) have the full gradient on each rank already, and averaging keeps it.
    No communication in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, world: World, total: int) -> Tensor:
        ctx.world, ctx.mine = world, world.share(total)
        return gather_values(local, world, total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.mine] * ctx.world.size, None, None


def gather_rows(
    local: Float[Tensor, "rows dim"], world: World, total: int
) -> Float[Tensor, "total dim"]:
    """Rows of all ranks in rank order, with gradients; each brings its share of ``total``."""
    if world.size == 1:
        return local
    gathered: Tensor = _Gather.apply(local, world, total)
    return gathered


def gather_values(
    local: Shaped[Tensor, "rows *rest"], world: World, total: int
) -> Shaped[Tensor, "total *rest"]:
    """Like ``gather_rows``, without gradients (labels)."""
    if world.size == 1:
        return local
    most = world.most(total)
    sent = local.detach().contiguous()
    if len(sent) < most:  # collectives want equal parts; the filling is dropped again
        sent = torch.cat([sent, sent.new_zeros((most - len(sent), *sent.shape[1:]))])
    gathered = sent.new_empty((most * world.size, *sent.shape[1:]))
    dist.all_gather_into_tensor(gathered, sent)
    if total == len(gathered):
        return gathered
    shares = [World(rank, world.size).share(total) for rank in range(world.size)]
    parts = [gathered[r * most :][: s.stop - s.start] for r, s in enumerate(shares)]
    return torch.cat(parts)


@torch.no_grad()
def average_buffers(model: nn.Module, world: World) -> None:
    """Give every rank the mean of the ranks' BatchNorm statistics (one collective).

    Between evaluations each rank follows its own samples; at evaluation all must hold one model.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if world.size == 1 or not buffers:
        return
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    dist.all_reduce(flat)
    flat /= world.size
    parts = torch.split(flat, [buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def agree(value: bool, world: World, device: torch.device) -> bool:
    """Rank 0's decision, on every rank."""
    if world.size == 1:
        return value
    flag = torch.tensor([int(value)], device=device)
    dist.broadcast(flag, 0)
    return bool(flag.item())


def broadcast_bytes(data: bytes | None, world: World, device: torch.device) -> bytes | None:
    """Rank 0's bytes on every rank (``None`` stays ``None``); no object serialisation."""
    if world.size == 1:
        return data
    length = torch.tensor([-1 if data is None else len(data)], device=device)
    dist.broadcast(length, 0)
    count = int(length.item())
    if count < 0:
        return None
    if world.rank == 0:
        content = torch.frombuffer(bytearray(data or b""), dtype=torch.uint8).to(device)
    else:
        content = torch.empty(count, dtype=torch.uint8, device=device)
    dist.broadcast(content, 0)
    return content.cpu().numpy().tobytes()
