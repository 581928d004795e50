"""Residual units one after the other, each of which can be computed again or compiled by itself."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Units(nn.Sequential):
    """``nn.Sequential`` of residual units; ``recompute`` says whether they keep their insides."""

    recompute: bool = False
    """Keep only the input of each unit for the backward pass, and compute the rest again there."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the units in order."""
        for unit in self:
            # A frozen encoder has no backward pass: x needs no gradient and none is recorded.
            x = _recomputed(unit, x) if self.recompute and self.training else unit(x)
        return x


def _recomputed(unit: nn.Module, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), fixed_statistics(unit)

    # Units hold no dropout, so there is no state of random numbers to keep.
    out: Tensor = checkpoint(
        unit, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return out


@contextmanager
def fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Forward passes in here normalise as ever, but do not move the running statistics.

    For batches that pass twice in one step. A momentum of 0 rather than no statistics at all: the
    backward pass must find what the first forward pass would have kept.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [count.clone() if count is not None else None for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, old in zip(norms, momenta, counts, before, strict=True):
            norm.momentum = momentum
            if count is not None and old is not None:
                count.copy_(old)
