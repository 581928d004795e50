"""Checkpoints: whole at every instant, validated on load, no pickle."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.tiny_run import tiny_config

from vfsearch.errors import CheckpointError
from vfsearch.model.alignment import build_model
from vfsearch.training.checkpoint import (
    FILES,
    Best,
    CheckpointState,
    load_model,
    parse_state,
    parse_tensors,
    read_file,
    repair_links,
    save_checkpoint,
)


def state(epoch: int, best: int) -> CheckpointState:
    return CheckpointState(
        config=tiny_config(),
        step=epoch * 3,
        epoch=epoch,
        sampler={"step": epoch * 3},
        best=Best(epoch=best, value=0.5),
        history=[{"train/loss": 1.0}] * epoch,
        split_hash="abc",
        identities=["v0", "v1", "v2"],
    )


def save(root: Path, epoch: int, best: int) -> Path:
    value = {"w": torch.full((4,), float(epoch))}
    return save_checkpoint(root, state(epoch, best), value, value)


def check(folder: Path) -> int:
    """Epoch of a checkpoint whose files all belong together."""
    got = parse_state(read_file(folder, "state.json"), folder)
    for name in ("model.safetensors", "training.safetensors"):
        tensors = parse_tensors(read_file(folder, name), folder)
        assert tensors["w"].tolist() == [float(got.epoch)] * 4
    return got.epoch


def test_last_best_and_what_is_kept(tmp_path: Path) -> None:
    for epoch, best in enumerate([1, 2, 2, 2, 2], start=1):
        folder = save(tmp_path, epoch, best)
        assert check(tmp_path / "last") == epoch
        assert check(tmp_path / "best") == best
        assert folder.name == f"epoch-{epoch:05d}"
    assert sorted(p.name for p in tmp_path.glob("epoch-*")) == [
        "epoch-00002", "epoch-00004", "epoch-00005",
    ]  # fmt: skip


class Killed(BaseException):
    """Stands for a kill at one file-system call."""


@pytest.mark.parametrize("survived", range(12))
def test_a_death_at_any_file_system_call_leaves_last_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    save(tmp_path, 1, 1)
    calls = 0

    def counted(function: object) -> object:
        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survived:
                raise Killed
            return function(*args, **kwargs)  # type: ignore[operator]

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("mkdir", "rename", "replace", "symlink_to", "open"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(os, "fsync", counted(os.fsync))
        with suppress(Killed):
            save(tmp_path, 2, 2)
    assert check(tmp_path / "last") in (1, 2)
    assert check(tmp_path / "best") in (1, 2)
    repair_links(tmp_path, parse_state(read_file(tmp_path / "last", "state.json"), "x"))
    assert check(tmp_path / "best") == check(tmp_path / "last")
    save(tmp_path, 2, 2)
    assert check(tmp_path / "last") == check(tmp_path / "best") == 2


@pytest.mark.slow
@pytest.mark.fault
def test_sigkill_while_writing_leaves_last_whole(tmp_path: Path) -> None:
    program = (
        "import sys, itertools; from pathlib import Path\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from training_checkpoint import save\n"
        "for epoch in itertools.count(1):\n"
        "    save(Path(sys.argv[1]), epoch, epoch); print(epoch, flush=True)\n"
    )
    (tmp_path / "training_checkpoint.py").symlink_to(__file__)
    tests = str(Path(__file__).parent.parent)
    for kill_after in (1, 5, 9):
        root = tmp_path / f"k{kill_after}"
        worker = subprocess.Popen(
            [sys.executable, "-c", program, str(root), str(tmp_path), tests],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        for line in worker.stdout:
            if int(line) == kill_after:
                worker.send_signal(signal.SIGKILL)
                break
        worker.wait()
        worker.stdout.close()
        assert check(root / "last") >= kill_after


def whole(tmp_path: Path) -> Path:
    model = build_model(tiny_config().model, 3).state_dict()
    return save_checkpoint(tmp_path, state(1, 1), model, {})


def test_load_model_gives_the_same_model(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    model, config = load_model(folder, torch.device("cpu"))
    assert config == tiny_config()
    assert not model.training
    assert model.identities == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no_state", "state.json: cannot be read"),
        ("truncated", "not a whole safetensors file"),
        ("version", "format 1 checkpoint: format"),
        ("unknown", "extra"),
        ("no_json", "format 1 checkpoint"),
        ("misfit", "does not fit the model"),
        ("pickle", "not a whole safetensors file"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, damage: str, message: str) -> None:
    folder = whole(tmp_path)
    path, tensors = folder / "state.json", folder / "model.safetensors"
    data = json.loads(path.read_text())
    if damage == "no_state":
        path.unlink()
    elif damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "version":
        path.write_text(json.dumps(data | {"format": 2}))
    elif damage == "unknown":
        path.write_text(json.dumps(data | {"extra": 1}))
    elif damage == "no_json":
        path.write_text("{")
    elif damage == "misfit":
        save_file({"w": torch.zeros(1)}, tensors)
    else:
        torch.save({"w": torch.zeros(1)}, tensors)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, torch.device("cpu"))


def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "file" / "checkpoints", 1, 1)


def test_nothing_but_safetensors_and_json(tmp_path: Path) -> None:
    assert sorted(p.name for p in whole(tmp_path).iterdir()) == sorted(FILES)
