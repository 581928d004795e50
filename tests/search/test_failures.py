"""What an error means: memory, a lost peer, a mistake of the training code."""

import pytest
import ray
import torch
from ray.train import WorkerGroupError

from vfsearch.errors import TrainingDiverged
from vfsearch.search.group import out_of_memory
from vfsearch.search.serve import explain, is_broken_link, is_out_of_memory


def real_shortage() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        real_shortage(),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB."),
    ],
)
def test_memory_that_ran_out_is_told_as_such(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert explain(error).startswith("out of memory: ")
    assert not is_broken_link(error)


def test_other_errors_keep_their_name_and_first_line() -> None:
    error = ValueError("margin is wrong\nsecond line")
    assert explain(error) == "ValueError: margin is wrong"
    assert not is_out_of_memory(error)
    assert explain(TrainingDiverged("loss is nan")).startswith("TrainingDiverged: ")
    assert is_broken_link(RuntimeError("[gloo/transport] Connection closed by peer"))


def test_a_worker_that_ray_ended_for_memory_is_found_below_the_groups_error() -> None:
    short = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory")
    # Train wraps what its look at a worker meets; the class is its own.
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    wrapped = WorkerHealthCheckFailedError("poll failed", failure=short)
    dead = WorkerHealthCheckFailedError("poll failed", failure=ray.exceptions.ActorDiedError())
    assert out_of_memory(WorkerGroupError("failed", worker_failures={0: dead, 1: wrapped})) is short
    assert out_of_memory(WorkerGroupError("failed", worker_failures={1: short})) is short
    assert out_of_memory(WorkerGroupError("failed", worker_failures={0: dead})) is None
    assert out_of_memory(ValueError("x")) is None
