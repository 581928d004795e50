"""A tracked sweep: its driver is killed, its data are changed, its secrets are looked for."""

import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run as command
from support.engine_runs import METRIC, drive, named
from support.real_sweeps import REAL, real_sweep
from support.small_corpus import small_corpus
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.services import Credentials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.timeout(1500),
    pytest.mark.usefixtures("on_ray_node"),
]

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GITHUB_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "PGPASSWORD",
)


def runs(connection: Connection) -> dict[str, Any]:
    """Runs of the sweep by name; fails if there are two of one name."""
    found = connection.client().search_runs(
        [connection.experiment_id], "tags.`vfsearch.sweep` = 'kept'"
    )
    assert max(Counter(run.info.run_name for run in found).values()) == 1
    return {run.info.run_name: run for run in found}


def states(connection: Connection) -> dict[str, str]:
    return {name: run.info.status for name, run in runs(connection).items()}


def titles() -> Iterator[bytes]:
    """What anyone on the machine may read of its processes."""
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "comm"):
            try:
                yield (process / file).read_bytes()
            except OSError:
                continue  # it has ended


@retry(
    retry=retry_if_result(lambda out: ", 0 left to their live process" not in out),
    stop=stop_after_delay(300),
    wait=wait_fixed(0.5),
)
def sync(capsys: pytest.CaptureFixture[str]) -> str:
    """``vfsearch sync``, again while a worker of the dead driver still lives."""
    code, out, err = command(capsys, "sync", "--sweep", "kept")
    assert code == 0, err
    return out


def test_no_run_is_left_open_no_figure_is_mixed_and_no_secret_is_written(
    stack_home: Path,
    connection: Connection,
    ray_node: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VFSEARCH_HOME", str(stack_home))
    planted = {name: f"planted-{secrets.token_hex(8)}" for name in SECRETS}
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    corpus = tmp_path / "corpus"
    small_corpus(corpus, identities=8)
    config = real_sweep("kept", corpus) | {"concurrency": 1}
    config["base"]["tracking"] = {"experiment": connection.experiment, "system_seconds": 0.5}
    config["base"]["workers"]["count"] = 1

    with drive(config, stack_home, *REAL) as first:
        first.until(lambda line: named(line, "epoch", number=1, epoch=2))
        shown = b"\0".join(titles())
        first.process.kill()
    assert b"engine_drive.py" in shown
    sync(capsys)
    assert states(connection) == {"kept": "KILLED", "t000": "FINISHED", "t001": "KILLED"}
    before = runs(connection)["t001"].info.run_id

    # Another validation split: the trial goes on, and is refused before its figures count.
    face = next((corpus / "faces" / "Some_One_9").glob("*.jpg"))
    added = Path(shutil.copy(face, face.with_name("9999999.jpg")))
    with drive(config, stack_home, *REAL, "--resume") as second:
        assert second.finish() == 6
        (error,) = second.of("error")
    assert "trial 1 cannot be compared with sweep kept" in error["message"]
    assert "differ in the split (identities and files)" in error["message"]
    assert states(connection) == {"kept": "FAILED", "t000": "FINISHED", "t001": "KILLED"}
    for name in ("kept", "t001"):
        marked = runs(connection)[name].data.tags
        assert "cannot be compared" in marked["vfsearch.incomparable"]
        assert "cannot be compared" in marked["mlflow.note.content"]

    added.unlink()
    with drive(config, stack_home, *REAL, "--resume") as third:
        assert third.finish() == 0
    assert set(states(connection).values()) == {"FINISHED"}
    check_record(connection, before)
    code, shown_link, _ = command(capsys, "ui", "kept", "--no-browser")
    assert code == 0
    assert shown_link.startswith(connection.uri)
    assert "viewStateShareKey=" in shown_link

    # Nothing secret: neither what was planted nor the keys of the stack and of Ray.
    keys = Credentials.ensure(stack_home / "stack" / "credentials").secret_key
    wanted = [one.encode() for one in (*planted.values(), keys, ray_node["RAY_AUTH_TOKEN"])]
    places = {
        "process titles": shown,
        "MLflow": "".join(str(run.to_dictionary()) for run in runs(connection).values()).encode(),
        "the driver's output": (stack_home / "kept.err").read_bytes(),
    }
    stored = connection.store("s3://vfsearch")
    places |= {entry.uri: stored.get(entry.key) or b"" for entry in stored.entries()}
    folders = [stack_home / "sweeps", stack_home / "spool", Path(ray_node["RAY_TMPDIR"])]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    places |= {str(path): path.read_bytes() for path in files}
    assert any(name.endswith("/driver.log") or "/logs/worker-" in name for name in places)
    assert [name for name, data in places.items() if any(one in data for one in wanted)] == []


def check_record(connection: Connection, run_id: str) -> None:
    run = runs(connection)["t001"]
    assert run.info.run_id == run_id, "the trial went on in its own run"
    history = connection.client().get_metric_history(run_id, METRIC)
    assert sorted(one.step for one in history) == [1, 2, 3, 4], "every epoch once"
    tags = run.data.tags
    assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert (tags["vfsearch.world_size"], tags["vfsearch.global_batch"]) == ("1", "8")
    assert tags["vfsearch.negatives"] == "7"
    assert {"system/trial_cpu_cores", "system/trial_memory_megabytes"} <= set(run.data.metrics)
    contexts = [one.tags[0].value for one in run.inputs.dataset_inputs]
    # The changed validation split was logged, too: the run says what it was made of.
    assert sorted(contexts) == ["training", "validation", "validation"]
    artifacts = {entry.key for entry in connection.store(run.info.artifact_uri).entries()}
    assert {
        "config.yaml", "environment.json", "metrics.json", "ranks.parquet", "steps.csv",
        "figures/run.png", "queries/match_v2f_2_val.txt",
        "checkpoints/best/model.safetensors", "checkpoints/last/model.safetensors",
    } <= artifacts  # fmt: skip
