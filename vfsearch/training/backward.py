"""Forward and backward pass of one rank: its share of the batch at once, or in parts.

The loss is one function of the *global* batch, so gradients of parts of it do not add up to it. In
parts there are two passes: all embeddings without graphs; the loss on the gathered batch and its
gradient with respect to them; then each part again, with that gradient (Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", 2021).
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vfsearch.model.units import fixed_statistics
from vfsearch.training.distributed import World, gather_rows, gather_values
from vfsearch.training.objective import Objective

Encode = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(network, faces, voices) -> (x, v) of this rank's pairs, in the precision of the run."""
Loss = Callable[[Tensor, Tensor, Tensor], Objective]
"""(x, v, labels) of the gathered batch -> objective."""


def backward(
    network: nn.Module,
    encode: Encode,
    loss: Loss,
    inputs: tuple[Tensor, Tensor, Tensor],
    world: World,
    total: int,
) -> tuple[Objective, Tensor]:
    """Leave the gradients of the global batch's loss in the parameters.

    Args:
        network: the model, wrapped for several workers if there are.
        encode: its forward pass.
        loss: of the gathered batch.
        inputs: faces, voices and labels of this rank.
        world: the ranks.
        total: pairs of the global batch.

    Returns:
        The objective, and the labels of the global batch.
    """
    faces, voices, labels = inputs
    both = torch.cat(encode(network, faces, voices), dim=1)
    result, labels = _gathered(both, labels, loss, world, total)
    result.loss.backward()  # type: ignore[no-untyped-call]
    return result, labels


def backward_in_parts(
    network: nn.Module,
    encode: Encode,
    loss: Loss,
    inputs: tuple[Tensor, Tensor, Tensor],
    world: World,
    total: int,
    *,
    model: nn.Module,
    omega: Tensor,
    size: int,
    seed: Callable[[int], int],
) -> tuple[Objective, Tensor]:
    """Like `backward`, with ``size`` pairs in memory at a time; BatchNorm normalises over these.

    A share that ``size`` does not divide is split into parts as equal as can be.

    Args:
        network: see `backward`.
        encode: see `backward`.
        loss: see `backward`.
        inputs: see `backward`.
        world: see `backward`.
        total: see `backward`.
        model: what ``network`` wraps; the first pass needs no communication.
        omega: the classifier's weight, which only the loss uses.
        size: pairs of a part at most.
        seed: of the dropout of a part, the same in both passes.
    """
    faces, voices, labels = inputs
    number = -(-world.most(total) // size)  # the same on every rank, whatever its share
    split = [torch.tensor_split(tensor, number) for tensor in (faces, voices)]
    parts = list(zip(*split, strict=True))

    def embed(with_network: nn.Module, part: int) -> Tensor:
        torch.manual_seed(seed(part))
        return torch.cat(encode(with_network, *parts[part]), dim=1)

    with torch.no_grad(), fixed_statistics(model):
        both = torch.cat([embed(model, part) for part in range(len(parts))])
    both.requires_grad_()
    result, labels = _gathered(both, labels, loss, world, total)
    wanted = [both, omega] if omega.requires_grad else [both]
    upstream, *of_omega = torch.autograd.grad(result.loss, wanted)
    for part, gradient in enumerate(torch.tensor_split(upstream, number)):
        last = part == len(parts) - 1
        ddp = isinstance(network, DistributedDataParallel) and not last
        with network.no_sync() if ddp else nullcontext():  # type: ignore[operator]
            outputs, gradients = [embed(network, part)], [gradient]
            if last:  # in the pass in which DDP waits for every parameter
                outputs, gradients = [*outputs, *wanted[1:]], [*gradients, *of_omega]
            torch.autograd.backward(outputs, gradients)
    return result, labels


def _gathered(
    both: Tensor, labels: Tensor, loss: Loss, world: World, total: int
) -> tuple[Objective, Tensor]:
    # Both modalities and nothing else: one collective forward, none backward.
    x, v = gather_rows(both, world, total).chunk(2, dim=1)
    labels = gather_values(labels, world, total)
    return loss(x, v, labels), labels
