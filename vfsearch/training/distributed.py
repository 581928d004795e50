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


class _Gather(torch.autograd.Function):
    """All-gather rows; the gradient of the rows that this rank contributed, times the world size.

    Every rank computes the same loss L on the gathered rows, hence the same dL/d(rows). DDP
    averages parameter gradients over ranks, (1/W) sum_r, while the gradient of L through the
    encoders is the plain sum over ranks; the factor W makes up for it. Parameters used after the
    gather (the classifier) have the full gradient on each rank already, and averaging keeps it.
    No communication in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, world: World) -> Tensor:
        ctx.world, ctx.rows = world, len(local)
        return gather_values(local, world)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        start = ctx.world.rank * ctx.rows
        return grads[0][start : start + ctx.rows] * ctx.world.size, None


def gather_rows(local: Float[Tensor, "rows dim"], world: World) -> Float[Tensor, "all dim"]:
    """Rows of all ranks in rank order, with gradients; each rank must bring equally many."""
    if world.size == 1:
        return local
    gathered: Tensor = _Gather.apply(local, world)
    return gathered


def gather_values(local: Shaped[Tensor, "rows *rest"], world: World) -> Shaped[Tensor, "all *rest"]:
    """Like ``gather_rows``, without gradients (labels)."""
    if world.size == 1:
        return local
    local = local.detach().contiguous()
    gathered = local.new_empty((len(local) * world.size, *local.shape[1:]))
    dist.all_gather_into_tensor(gathered, local)
    return gathered


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
