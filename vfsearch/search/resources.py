"""What a trial needs and how many trials fit: pure functions of settings and cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

from vfsearch.config import WorkersConfig
from vfsearch.errors import SweepError

Node = Mapping[str, float]
"""Total resources of one node, as in ``ray.nodes()[i]["Resources"]``."""


@dataclass(frozen=True, kw_only=True)
class GroupShape:
    """What tells one worker group from another: trials of one shape can share it."""

    workers: int
    cpus: float
    """Per worker."""
    gpus: float
    """Per worker; 0: the workers compute on CPUs with gloo."""
    fewest: int | None = None
    """Workers with which the group goes on when it must; None: not elastic."""
    resize_seconds: float = 60.0
    """Between two looks for room to grow."""


def shape_of(workers: WorkersConfig, nodes: Sequence[Node]) -> GroupShape:
    """Resolve ``use_gpu: auto`` and check that the cluster can ever hold the group.

    Raises:
        SweepError: the cluster holds fewer workers than one group needs.
    """
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    use_gpu = gpus > 0 if workers.use_gpu == "auto" else workers.use_gpu
    shape = GroupShape(
        workers=workers.count,
        cpus=workers.cpus,
        gpus=workers.gpus if use_gpu else 0.0,
        fewest=workers.min,
        resize_seconds=workers.resize_seconds,
    )
    fit = _workers_that_fit(shape, nodes)
    if fit < workers.fewest:
        setting = "count" if workers.min is None else "min"
        each = f"{shape.cpus:g} CPUs" + (f" and {shape.gpus:g} GPUs" if shape.gpus else "")
        cpus = sum(node.get("CPU", 0.0) for node in nodes)
        raise SweepError(
            f"workers.{setting}={workers.fewest} with {each} per worker never fits: "
            f"{len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs in all hold {fit} such "
            f"workers; lower workers.{setting}, workers.cpus or workers.gpus, or set "
            "workers.use_gpu to auto"
        )
    return shape


def slots(shape: GroupShape, nodes: Sequence[Node], concurrency: int | Literal["auto"]) -> int:
    """Count the trials that run at once; at least 1 for a shape that fits."""
    fit = max(_workers_that_fit(shape, nodes) // shape.workers, 1)  # elastic: one, with fewer
    return fit if concurrency == "auto" else min(fit, concurrency)


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How the trials of a sweep lie on a cluster."""

    trials: int = 1
    """At once."""
    workers: int = 1
    """Per trial; elastic: at most."""
    fewest: int | None = None
    """Per trial, where they are elastic."""
    gpus_per_worker: float = 0.0
    gpus: float = 0.0
    """Of the cluster."""
    cpus: float = 0.0
    """Of the cluster."""

    @property
    def gpus_per_trial(self) -> float:
        """GPUs that one trial holds."""
        return self.workers * self.gpus_per_worker

    def __str__(self) -> str:
        each = self.gpus_per_worker
        sharing = f" ({each:g} GPU each)" if each not in (0.0, 1.0) else ""
        pool = f"{self.gpus:g} GPUs" if each else f"{self.cpus:g} CPUs"
        workers = _count(self.workers, "worker")
        if self.fewest is not None:
            workers = f"{self.fewest} to {workers}"
        return f"{pool}: {_count(self.trials, 'trial')} × {workers}{sharing}"


def packing(
    shape: GroupShape, nodes: Sequence[Node], concurrency: int | Literal["auto"]
) -> Packing:
    """Lay trials of one shape on the nodes."""
    return Packing(
        trials=slots(shape, nodes, concurrency),
        workers=shape.workers,
        fewest=shape.fewest,
        gpus_per_worker=shape.gpus,
        gpus=sum(node.get("GPU", 0.0) for node in nodes),
        cpus=sum(node.get("CPU", 0.0) for node in nodes),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _workers_that_fit(shape: GroupShape, nodes: Sequence[Node]) -> int:
    return sum(_on_node(shape, node) for node in nodes)


def _on_node(shape: GroupShape, node: Node) -> int:
    fit = floor(node.get("CPU", 0.0) / shape.cpus + 1e-9)
    if shape.gpus:
        fit = min(fit, floor(node.get("GPU", 0.0) / shape.gpus + 1e-9))
    return fit
