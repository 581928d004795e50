"""A batch in parts, and units computed again, leave the gradients of the whole batch."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.tiny_run import tiny_config, tiny_stores
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vfsearch.corpus.batches import Batch
from vfsearch.errors import ConfigError
from vfsearch.model.execution import check_compiler
from vfsearch.training.distributed import World
from vfsearch.training.objective import objective
from vfsearch.training.run import Run

CPU = torch.device("cpu")
WORKER = Path(__file__).parent.parent / "support" / "parts_worker.py"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make(model: dict[str, object] | None = None, **training: object) -> Run:
    config = tiny_config()
    changed = config.model_dump(mode="json")
    changed["training"] |= training
    changed["model"] |= model or {}
    run = Run(type(config).model_validate(changed), tiny_stores().train, device=CPU, world=World())
    run.begin_epoch()
    return run


def batches(run: Run, count: int) -> Iterator[Batch]:
    for _ in range(count):
        yield next(run.stream)


def state(run: Run) -> dict[str, Tensor]:
    return {**run.model.state_dict(), **run.training_tensors()}


def assert_equal(one: dict[str, Tensor], two: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=atol, rtol=atol, msg=name)


STILL = {"dropout": 0.0}


@pytest.mark.parametrize("size", [2, 4, 8])
def test_with_fixed_statistics_any_split_is_the_whole_batch(size: int) -> None:
    whole, parts = make(STILL), make(STILL, micro_batch=size)
    for run in (whole, parts):
        run.model.eval()
    for one, two in zip(batches(whole, 3), batches(parts, 3), strict=True):
        first, second = whole.advance(one), parts.advance(two)
        torch.testing.assert_close(first.terms, second.terms, atol=1e-5, rtol=1e-5)
    assert_equal(state(whole), state(parts), 1e-5)


def test_in_training_mode_it_is_one_graph_over_the_parts() -> None:
    run, oracle = make(STILL, micro_batch=4), make(STILL)
    batch = next(run.stream)
    faces, voices, labels = oracle._to_device(next(oracle.stream))
    halves = [oracle.model(faces[rows], voices[rows]) for rows in (slice(0, 4), slice(4, 8))]
    x, v = (torch.cat(column) for column in zip(*halves, strict=True))
    omega = oracle.model.classifier.weight
    naive = objective(x, v, labels, omega, oracle.reweighting.weights, oracle.config.loss)
    naive.loss.backward()
    result, _ = run._backward(run._to_device(batch))
    torch.testing.assert_close(result.terms, naive.terms, atol=1e-5, rtol=1e-5)
    expected = {name: p.grad for name, p in oracle.model.named_parameters()}
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    for name, buffer in run.model.named_buffers():
        torch.testing.assert_close(buffer, oracle.model.get_buffer(name), msg=name)


def test_both_passes_see_one_dropout_mask() -> None:
    run = make({"dropout": 0.5}, micro_batch=4)
    seen: list[Tensor] = []
    hook = run.model.face_head.register_forward_hook(lambda *args: seen.append(args[2].detach()))
    run.advance(next(run.stream))
    hook.remove()
    first, second, again_first, again_second = seen
    assert torch.equal(first, again_first)
    assert torch.equal(second, again_second)
    assert not torch.equal(first == 0, second == 0)


def test_units_computed_again_change_nothing() -> None:
    plain, recomputed = make(STILL), make(STILL, recompute=True)
    for one, two in zip(batches(plain, 2), batches(recomputed, 2), strict=True):
        plain.advance(one)
        recomputed.advance(two)
    one, two = state(plain), state(recomputed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def kept(run: Run) -> int:
    """Bytes that the graph of a forward pass keeps, weights not counted."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    faces, voices, _ = run._to_device(next(run.stream))
    own = {p.untyped_storage().data_ptr() for p in run.model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x, v = run.model(faces, voices)
    total = sum(size for place, size in held.items() if place not in own)
    del x, v
    return total


def test_parts_and_recomputation_keep_less() -> None:
    # Units that are computed again hide what they keep from the outer hooks but for their inputs.
    assert kept(make(recompute=True)) < 0.6 * kept(make())


class NoRead(TorchDispatchMode):
    """Raises where a value leaves the device: on a GPU the host would wait there."""

    READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func._schema.name.removeprefix("aten::")
        assert not name.startswith(self.READS), f"the step reads a value: {name}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [{}, {"micro_batch": 4}, {"recompute": True}])
def test_a_step_reads_nothing_from_the_device(training: dict[str, object]) -> None:
    run = make(**training)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="reads a value"), NoRead():
        torch.ones(1).item()
    for batch in batches(run, 10):  # through the warm-up, admissions and the restart
        if run.plan.restarts_before(run.step):
            run.advance(batch)  # the restart builds a model on the host
        else:
            with NoRead():
                run.advance(batch)
    assert run.step == 10
    if torch.cuda.is_available():
        on_gpu = Run(run.config, tiny_stores().train, device=torch.device("cuda"), world=World())
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in batches(on_gpu, 8):
                on_gpu.advance(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_part_must_divide_the_share() -> None:
    for size in (1, 3, 16):
        with pytest.raises(ValidationError, match=r"micro_batch must be 2 or more and divide"):
            make(micro_batch=size)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"needs the compiler no-such-compiler, .*g\+\+"):
        check_compiler(CPU)


@pytest.mark.slow
def test_parts_on_one_worker_are_parts_and_shares_on_two(tmp_path: Path) -> None:
    sizes = {1: ["4", "8"], 2: ["4", "0"]}
    workers = [
        subprocess.Popen([sys.executable, WORKER, tmp_path, str(rank), str(world), *sizes[world]])
        for world in (1, 2)
        for rank in range(world)
    ]
    assert [worker.wait(timeout=250) for worker in workers] == [0, 0, 0]

    def load(name: str) -> dict[str, Tensor]:
        return load_file(tmp_path / f"{name}.safetensors")

    assert_equal(load("1-0-4"), load("2-0-4"), 1e-5)
    assert_equal(load("1-0-8"), load("2-0-0"), 1e-5)
    for part in (0, 4):
        zero, one = load(f"2-0-{part}"), load(f"2-1-{part}")
        assert all(torch.equal(zero[name], one[name]) for name in zero)
