"""The driver of a sweep as a process of its own: it outlives the terminal that started it.

In the sweep's folder lie ``driver.json`` (which process, or how it ended) and ``driver.log``. A
keeper starts the driver, hands signals on and notes the exit code.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from vfsearch.errors import ClusterError
from vfsearch.tracking import processes

_LOOK = 0.2
"""Seconds between two looks at a growing log."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A driver that was started in a sweep's folder."""

    folder: Path
    pid: int
    """Of its keeper."""
    created: float
    exit_code: int | None
    """None while it runs, and after a crash of the machine."""

    @property
    def log(self) -> Path:
        """Everything that it printed, of all its starts."""
        return self.folder / "driver.log"

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        if self.exit_code is not None:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def start(folder: Path, arguments: Sequence[str]) -> Driver:
    """Start ``vfsearch ARGUMENTS`` detached.

    Raises:
        ClusterError: one runs already.
    """
    before = find(folder)
    if before is not None and before.alive:
        raise ClusterError(
            f"sweep {folder.name} is being run by process {before.pid}; follow it with 'vfsearch "
            f"logs {folder.name}' or end it with 'vfsearch stop {folder.name}'"
        )
    folder.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("vfsearch")
    command = [sys.executable, "-m", __name__, str(folder), str(program), *arguments]
    pid = processes.start(command, os.environ, Path.cwd(), folder / "driver.log")
    return _note(folder, pid, None)


def find(folder: Path) -> Driver | None:
    """The last driver that was started in a folder."""
    try:
        told = json.loads((folder / "driver.json").read_text(encoding="utf-8"))
        return Driver(folder=folder, **told)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        raise ClusterError(f"{folder}/driver.json: is damaged; remove it") from None


def follow(driver: Driver, *, from_start: bool) -> Iterator[str]:
    """Yield what the driver prints, until it has ended."""
    with driver.log.open(encoding="utf-8", errors="replace") as log:
        if not from_start:
            log.seek(0, os.SEEK_END)
        while True:
            # Asked before reading: what is printed last is read in the last turn.
            alive = (find(driver.folder) or driver).alive
            while text := log.read(65536):
                yield text
            if not alive:
                return
            time.sleep(_LOOK)


def stop(driver: Driver, patience: float = 120.0) -> None:
    """End it in order: trials that run keep their checkpoints, ``--resume`` continues them.

    Raises:
        ClusterError: it has not ended after ``patience`` seconds.
    """
    if not driver.alive:
        return
    process = psutil.Process(driver.pid)
    process.terminate()
    try:
        process.wait(patience)
    except psutil.TimeoutExpired:
        raise ClusterError(
            f"process {driver.pid} has not ended after {patience:g} s; see {driver.log}"
        ) from None


def _note(folder: Path, pid: int, exit_code: int | None) -> Driver:
    created = psutil.Process(pid).create_time()
    told = {"pid": pid, "created": created, "exit_code": exit_code}
    partial = folder / f"driver.json.{os.getpid()}"
    partial.write_text(json.dumps(told), encoding="utf-8")
    partial.replace(folder / "driver.json")
    return Driver(folder=folder, pid=pid, created=created, exit_code=exit_code)


def _keep(folder: Path, command: Sequence[str]) -> int:
    child = subprocess.Popen(command)

    def hand_on(number: int, _frame: object) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    code = child.wait()
    _note(folder, os.getpid(), code)
    return code


if __name__ == "__main__":
    sys.exit(_keep(Path(sys.argv[1]), sys.argv[2:]))
