"""A driver that outlives its terminal: started once, followed, stopped, its exit code kept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.cluster import driver
from vfsearch.errors import ClusterError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands beside this interpreter as ``vfsearch``: counts until told to end."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "vfsearch"
    script.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys\n"
        "def end(*_):\n"
        "    print('ended in order', flush=True)\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', *sys.argv[1:], flush=True)\n"
        "if sys.argv[1] == 'wait':\n"
        "    signal.pause()\n"
        "print('done', flush=True)\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    script.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    # The keeper runs under this interpreter, but finds the program beside the linked one.
    monkeypatch.setattr(driver.sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return script


def until(text: str, log: Path) -> None:
    Retrying(
        retry=retry_if_result(lambda there: not there),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(60),
    )(lambda: text in log.read_text())


def test_output_and_exit_code_are_kept(program: Path, tmp_path: Path) -> None:
    started = driver.start(tmp_path / "sweep", ["run", "6"])
    assert "".join(driver.follow(started, from_start=True)) == "begun run 6\ndone\n"
    ended = driver.find(tmp_path / "sweep")
    assert ended is not None
    assert (ended.exit_code, ended.alive) == (6, False)


def test_a_second_start_is_refused_while_it_runs(program: Path, tmp_path: Path) -> None:
    started = driver.start(tmp_path / "sweep", ["wait"])
    until("begun", started.log)
    with pytest.raises(ClusterError, match=f"being run by process {started.pid}"):
        driver.start(tmp_path / "sweep", ["wait"])
    driver.stop(started)
    assert started.log.read_text().endswith("ended in order\n")
    assert json.loads((tmp_path / "sweep" / "driver.json").read_text())["exit_code"] == 130
    driver.stop(driver.find(tmp_path / "sweep") or started)  # nothing to do
    again = driver.start(tmp_path / "sweep", ["run", "0"])
    assert "".join(driver.follow(again, from_start=True)).count("begun") == 2


def test_it_outlives_who_started_it(program: Path, tmp_path: Path) -> None:
    """The terminal's whole process group is killed, as by closing it."""
    code = (
        "import signal, sys; from pathlib import Path; from vfsearch.cluster import driver\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it\n"
        f"driver.sys.executable = {sys.executable!r}.replace({sys.executable!r}, "
        f"{str(program.parent / 'python')!r})\n"
        f"started = driver.start(Path({str(tmp_path / 'sweep')!r}), ['wait'])\n"
        "print('started', flush=True)\n"
        "for _ in driver.follow(started, from_start=True): pass\n"
    )
    terminal = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert terminal.stdout is not None
    assert terminal.stdout.readline() == b"started\n"
    until("begun", tmp_path / "sweep" / "driver.log")
    os.killpg(terminal.pid, signal.SIGHUP)
    terminal.wait()
    terminal.stdout.close()
    left = driver.find(tmp_path / "sweep")
    assert left is not None
    assert left.alive
    driver.stop(left)
    assert "ended in order" in left.log.read_text()


def test_a_killed_driver_is_not_taken_for_a_running_one(program: Path, tmp_path: Path) -> None:
    started = driver.start(tmp_path / "sweep", ["wait"])
    until("begun", started.log)
    family = [psutil.Process(started.pid), *psutil.Process(started.pid).children()]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=60)
    found = driver.find(tmp_path / "sweep")
    assert found is not None
    assert (found.alive, found.exit_code) == (False, None)


def test_nothing_and_damage_are_told_apart(tmp_path: Path) -> None:
    assert driver.find(tmp_path) is None
    (tmp_path / "driver.json").write_text("{")
    with pytest.raises(ClusterError, match="damaged"):
        driver.find(tmp_path)
