"""Which groups fit a cluster, and how many at once."""

import pytest

from vfsearch.config import WorkersConfig
from vfsearch.errors import SweepError
from vfsearch.search.resources import GroupShape, shape_of, slots

SMALL = [{"CPU": 2.0}]
GPUS = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 4.0}]


def test_gpus_are_used_when_there_are_some() -> None:
    assert shape_of(WorkersConfig(), SMALL) == GroupShape(workers=2, cpus=1, gpus=0)
    assert shape_of(WorkersConfig(), GPUS) == GroupShape(workers=2, cpus=1, gpus=1)
    assert shape_of(WorkersConfig(use_gpu=False), GPUS).gpus == 0


@pytest.mark.parametrize(
    ("workers", "nodes", "fitting"),
    [
        (WorkersConfig(count=2), SMALL, 1),
        (WorkersConfig(count=1), SMALL, 2),
        (WorkersConfig(count=1, cpus=0.1), SMALL, 20),
        (WorkersConfig(count=2), GPUS, 4),
        (WorkersConfig(count=2, gpus=0.5), GPUS, 8),
        (WorkersConfig(count=1, cpus=6), GPUS, 4),
        (WorkersConfig(count=1, use_gpu=False), GPUS, 36),
        (WorkersConfig(count=1, cpus=3), [{"CPU": 4.0}, {"CPU": 4.0}], 2),
    ],
)
def test_slots_are_what_whole_workers_fit_on_the_nodes(
    workers: WorkersConfig, nodes: list[dict[str, float]], fitting: int
) -> None:
    shape = shape_of(workers, nodes)
    assert slots(shape, nodes, "auto") == fitting
    assert slots(shape, nodes, 1) == 1
    assert slots(shape, nodes, 1000) == fitting


@pytest.mark.parametrize(
    ("workers", "nodes", "said"),
    [
        (WorkersConfig(count=3), SMALL, "workers.count=3 with 1 CPUs"),
        (WorkersConfig(count=1, cpus=3), SMALL, "hold 0 such workers"),
        (WorkersConfig(count=1, cpus=5), [{"CPU": 4.0}, {"CPU": 4.0}], "2 nodes with 8 CPUs"),
        (WorkersConfig(count=1, use_gpu=True), SMALL, "1 GPUs per worker never fits"),
        (WorkersConfig(count=9, gpus=1), GPUS, "hold 8 such workers"),
    ],
)
def test_what_never_fits_is_refused_at_once(
    workers: WorkersConfig, nodes: list[dict[str, float]], said: str
) -> None:
    with pytest.raises(SweepError, match="never fits") as caught:
        shape_of(workers, nodes)
    assert said in str(caught.value)
