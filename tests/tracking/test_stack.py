import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from vfsearch.errors import StackError, TrackingError
from vfsearch.tracking import processes, stack
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.services import Credentials
from vfsearch.tracking.stack import StackInfo


def _keys(info: StackInfo) -> Credentials:
    return Credentials.ensure(info.credentials_file)


def test_up_is_idempotent_and_status_tells_what_runs(
    stack_home: Path, running_stack: StackInfo
) -> None:
    before = stack.status(stack_home)
    assert stack.up(stack_home) == running_stack
    after = stack.status(stack_home)
    assert [s.pid for s in after.services] == [s.pid for s in before.services]
    assert after.up
    for service in after.services:
        assert service.running
        assert service.answering
        assert service.memory is not None
        assert service.memory > 10e6


def test_servers_listen_on_loopback_only(stack_home: Path, running_stack: StackInfo) -> None:
    for service in stack.status(stack_home).services:
        listening = [
            c.laddr.ip
            for c in psutil.Process(service.pid).net_connections(kind="inet")
            if c.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) == {"127.0.0.1"}


def test_secrets_are_in_one_private_file_only(stack_home: Path, running_stack: StackInfo) -> None:
    keys = _keys(running_stack)
    assert stat.S_IMODE(running_stack.credentials_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((stack_home / "stack").stat().st_mode) == 0o700
    shown = [
        *(" ".join(psutil.Process(s.pid).cmdline()) for s in stack.status(stack_home).services),
        json.dumps(running_stack.environment()),
        (stack_home / "stack" / "stack.json").read_text(),
        (stack_home / "stack" / "s3.log").read_text(),
        (stack_home / "stack" / "mlflow.log").read_text(),
    ]
    assert not any(keys.secret_key in text for text in shown)


def test_a_shell_gets_the_addresses_and_no_secret(
    stack_home: Path, running_stack: StackInfo
) -> None:
    program = Path(sys.executable).parent / "vfsearch"
    done = subprocess.run(
        ["bash", "-c", f'eval "$({program} stack env)" && env'],
        env={**os.environ, "VFSEARCH_HOME": str(stack_home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert running_stack.environment().items() <= seen.items()
    assert _keys(running_stack).secret_key not in done.stdout


def test_s3_refuses_anonymous_requests(running_stack: StackInfo) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        urllib.request.urlopen(f"{running_stack.s3_endpoint}/{running_stack.bucket}", timeout=5)
    caught.value.close()


@pytest.mark.fault
def test_a_dead_half_is_started_again_and_the_other_is_left_alone(
    stack_home: Path, running_stack: StackInfo
) -> None:
    s3, mlflow = stack.status(stack_home).services
    assert s3.pid is not None
    os.kill(s3.pid, signal.SIGKILL)
    psutil.Process(s3.pid).wait(10)
    broken = stack.status(stack_home)
    assert not broken.up
    assert [s.running for s in broken.services] == [False, True]
    assert stack.up(stack_home) == running_stack
    assert stack.status(stack_home).services[1].pid == mlflow.pid


@pytest.mark.slow
@pytest.mark.fault
def test_both_killed_while_written_to_nothing_that_was_acknowledged_is_lost(
    stack_home: Path, connection: Connection
) -> None:
    from mlflow.exceptions import MlflowException

    before = stack.status(stack_home)
    client = connection.client()
    run = client.create_run(connection.experiment_id).info.run_id
    logged: list[int] = []
    stored: list[int] = []
    enough = threading.Barrier(3)

    def write(acknowledged: list[int], send: Callable[[int], object]) -> None:
        for number in range(10**6):
            try:
                send(number)
            except (TrackingError, MlflowException):
                return  # its server is dead
            acknowledged.append(number)
            if number == 15:
                enough.wait(120)

    store = connection.store()
    writers = [
        threading.Thread(target=write, args=arguments)
        for arguments in (
            (logged, lambda n: client.log_metric(run, "number", n, timestamp=n, step=n)),
            (stored, lambda n: store.put(str(n).encode(), f"numbers/{n}")),
        )
    ]
    for writer in writers:
        writer.start()
    enough.wait(120)
    # As in a power cut: both at once, and the pids that were written down are stale afterwards.
    for service in before.services:
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()
    assert not any(service.running for service in stack.status(stack_home).services)

    assert stack.up(stack_home) == before.info
    kept = {metric.step for metric in client.get_metric_history(run, "number")}
    assert kept >= set(logged)
    assert len(logged) > 15
    for number in stored:
        assert store.get(f"numbers/{number}") == str(number).encode()

    # Stopped in order, everything is in the folder still.
    objects = sum(path.stat().st_size for path in (stack_home / "stack/s3").rglob("*.dat"))
    seen = stack.down(stack_home)
    assert [service.running for service in seen.services] == [True, True]
    with closing(sqlite3.connect(stack.database_path(stack_home))) as database:
        rows = database.execute("SELECT step FROM metrics WHERE run_uuid = ?", (run,)).fetchall()
    assert {step for (step,) in rows} == kept
    after = sum(path.stat().st_size for path in (stack_home / "stack/s3").rglob("*.dat"))
    assert after >= objects > 0


@pytest.mark.slow
@pytest.mark.fault
def test_two_processes_start_one_stack(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from vfsearch.tracking import stack;"
        "print(stack.up(pathlib.Path(sys.argv[1])).tracking_uri)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        answers = {process.communicate(timeout=150)[0] for process in both}
        assert len(answers) == 1
        home = str(tmp_path.absolute())
        mine = [
            p.pid
            for p in psutil.process_iter()
            if any(home in argument for argument in _arguments(p)) and p.pid != os.getpid()
        ]
        assert len(mine) == 2
        # The record is lost: the running servers are found by what they are, not by number.
        (tmp_path / "stack" / "stack.json").unlink()
    finally:
        stack.down(tmp_path)
    assert not any(psutil.pid_exists(pid) for pid in mine)


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_reused_pid_is_not_taken_for_a_server(tmp_path: Path) -> None:
    marker = f"-dir={tmp_path}"
    assert processes.find(marker, os.getpid()) is None
    child = subprocess.Popen([sys.executable, "-c", "input()", marker], stdin=subprocess.PIPE)
    try:
        found = processes.find(marker, os.getpid())
        assert found is not None
        assert found.pid == child.pid
    finally:
        child.communicate(b"\n")
    assert processes.find(marker, child.pid) is None


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StackError, match=re.compile("mlflow ended while starting.*database", re.S)):
        stack.up(tmp_path)
    stack.down(tmp_path)


def test_damaged_record_and_unwritable_home_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "stack.json").write_text("{")
    with pytest.raises(StackError, match=r"stack\.json: is damaged"):
        stack.status(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be written"):
        stack.up(tmp_path / "file")


def test_nothing_started_means_no_services(tmp_path: Path) -> None:
    assert stack.status(tmp_path).services == ()
    stack.down(tmp_path)
    assert list(tmp_path.iterdir()) == []
