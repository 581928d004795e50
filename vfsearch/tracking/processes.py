"""Server processes of the local stack: started detached, recognised again, stopped by pid."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

FIRST_PORT = 18000
LAST_PORT = 22000
GRPC_OFFSET = 10000
"""SeaweedFS listens for gRPC at each HTTP port plus this number."""


def start(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> int:
    """Start a server in its own session, so that it outlives this process; return its pid.

    Output is appended to ``log``. Secrets go into ``environment``, never into ``command``:
    every user of the machine can read the arguments of a process.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Nobody waits for the server here: without this Popen warns when it is garbage-collected.
    process.returncode = 0
    return process.pid


def find(marker: str, pid: int | None) -> psutil.Process | None:
    """The living process that has ``marker`` among its arguments.

    The remembered pid is tried first; after a reboot it may belong to a stranger, and after a
    crash of the process that started the server it may never have been written down. So a
    process is known by an argument that no other can have (its data folder), not by its number.
    """
    if pid is not None:
        try:
            process = psutil.Process(pid)
            if _is(process, marker):
                return process
        except psutil.Error:
            pass
    for process in psutil.process_iter():
        if _is(process, marker):
            return process
    return None


def _is(process: psutil.Process, marker: str) -> bool:
    try:
        return (
            process.uids().real == os.getuid()
            and process.status() != psutil.STATUS_ZOMBIE
            and marker in process.cmdline()
        )
    except psutil.Error:
        return False


def stop(process: psutil.Process, patience: float) -> None:
    """Ask a server to end, wait up to ``patience`` seconds, then end it by force."""
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(patience)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(patience)


def resident(process: psutil.Process) -> int | None:
    """Resident memory in bytes; ``None`` if the process has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def is_free(ports: Sequence[int]) -> bool:
    """Whether all these ports of the loopback interface can be listened on now."""
    with ExitStack() as opened:
        for port in ports:
            listener = opened.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_block(count: int, taken: Sequence[int] = ()) -> int:
    """First of ``count`` free ports in a row whose gRPC companions are free too.

    The range lies below the ephemeral ports, so that no outgoing connection can sit on a port
    that the stack wants back after a restart. The pid spreads stacks that start at once.

    Raises:
        OSError: there is none.
    """
    span = LAST_PORT - FIRST_PORT
    for step in range(0, span, 10):
        base = FIRST_PORT + (os.getpid() * 10 + step) % span
        block = range(base, base + count)
        if not set(block) & set(taken) and is_free([*block, *(p + GRPC_OFFSET for p in block)]):
            return base
    raise OSError(f"no {count} free ports in a row between {FIRST_PORT} and {LAST_PORT}")
