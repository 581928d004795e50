"""The code and the machine that a run notes."""

import json
import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from vfsearch.tracking import system
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.provenance import PACKAGE, STAMP, code, commit_of, digest_of, environment
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.trial_log import TrialLog

ROOT = Path(__file__).parents[2]


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    done = subprocess.run(
        ["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a small package that is built like vfsearch."""
    root = tmp_path / "checkout"
    (root / "vfsearch").mkdir(parents=True)
    (root / "vfsearch" / "__init__.py").write_text('__version__ = "0"\n')
    shutil.copy(ROOT / "setup.py", root)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "vfsearch"\nversion = "0"\n'
        '[tool.setuptools.packages.find]\ninclude = ["vfsearch*"]\n'
    )
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "commit", "-qm", "first")
    return root


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(checkout: Path) -> None:
    package, head = checkout / "vfsearch", _git(checkout, "rev-parse", "HEAD")
    assert commit_of(package) == (head, False)
    (checkout / "notes.txt").write_text("not code")
    assert commit_of(package) == (head, False)
    before = digest_of(package)
    (package / "new.py").write_text("x = 1\n")
    assert commit_of(package) == (head, True)
    assert digest_of(package) != before


@pytest.mark.slow
def test_a_wheel_carries_the_commit_also_when_built_from_a_source_distribution(
    checkout: Path, tmp_path: Path
) -> None:
    head = _git(checkout, "rev-parse", "HEAD")
    build = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])('.'))"

    def run(kind: str, folder: Path) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", build, kind], cwd=folder, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
        return folder / done.stdout.split()[-1]

    source = run("build_sdist", checkout)
    shutil.unpack_archive(source, tmp_path / "unpacked", filter="data")
    wheel = run("build_wheel", tmp_path / "unpacked" / "vfsearch-0")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    assert commit_of(tmp_path / "installed" / "vfsearch") == (head, False)
    (checkout / "vfsearch" / "__init__.py").write_text('__version__ = "1"\n')
    with zipfile.ZipFile(run("build_wheel", checkout)) as archive:
        assert json.loads(archive.read(f"vfsearch/{STAMP}")) == {"commit": head, "dirty": True}


def test_code_without_checkout_or_stamp_is_known_by_its_hash(tmp_path: Path) -> None:
    package = tmp_path / "vfsearch"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit_of(package) == (None, None)
    (package / STAMP).write_text("{")
    assert commit_of(package) == (None, None)
    assert code().digest == digest_of(PACKAGE)


def test_versions_of_what_matters_are_among_the_packages() -> None:
    document = environment()
    assert {"torch", "ray", "optuna", "mlflow"} <= set(document["packages"])
    json.dumps(document)


class _NvmlError(Exception):
    pass


def _fake_nvml(**changes: object) -> types.SimpleNamespace:
    """Three GPUs of 80 GB; GPU n is n x 10 % busy. There is no GPU where this was written."""

    def power(handle: int) -> float:
        raise _NvmlError("not supported")

    return types.SimpleNamespace(
        NVMLError=_NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-b": 1}[uuid],
        nvmlDeviceGetUtilizationRates=lambda h: types.SimpleNamespace(gpu=10 * h),
        nvmlDeviceGetMemoryInfo=lambda h: types.SimpleNamespace(used=8e9 * h, total=80e9),
        nvmlDeviceGetPowerUsage=power,
        **changes,
    )


@pytest.mark.parametrize(
    ("visible", "busy"), [("2,1", [20, 10]), ("GPU-b", [10]), ("", []), (None, [0, 10, 20])]
)
def test_the_gpus_of_a_trial_are_those_it_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, busy: list[float]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _fake_nvml())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    readings = [gpu.read() for gpu in system._gpus()]
    assert [one["utilization_percentage"] for one in readings] == busy
    assert all("power_usage_watts" not in one for one in readings)
    assert [one["memory_usage_percentage"] for one in readings] == busy


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise _NvmlError("no library")

    nvml = _fake_nvml()
    nvml.nvmlInit = missing
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert system._gpus() == []


def test_a_restarted_run_counts_its_samples_on(connection: Connection, tmp_path: Path) -> None:
    for _ in range(2):
        log = TrialLog.open(connection, RunKey(sweep="demo", trial=1), tmp_path)
        sampler = system.SystemSampler(log, [os.getpid(), 2**22 + 1], interval=3600)
        sampler.start()
        sampler.close()
        assert log.close("FINISHED")
    assert log.run_id is not None
    client = connection.client()
    history = client.get_metric_history(log.run_id, "system/trial_memory_megabytes")
    first, second = (m.step for m in history)  # seconds of the run, on a busy machine later ones
    assert second > first
    assert all(m.value > 10 for m in history)
    (cpu,) = client.get_metric_history(log.run_id, "system/cpu_utilization_percentage")[:1]
    assert 0 <= cpu.value <= 100
