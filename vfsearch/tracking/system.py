"""CPU, memory and GPUs of a trial, sampled by a thread beside the training.

Of the machine that rank 0 is on: the machine as a whole under the names that MLflow uses, and what
the trial's own workers use of it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from vfsearch.tracking.trial_log import TrialLog

logger = logging.getLogger(__name__)

PREFIX = "system/"


class SystemSampler(threading.Thread):
    """Logs a sample every ``interval`` seconds, with the seconds of the run as the step."""

    def __init__(self, log: TrialLog, workers: Sequence[int], interval: float) -> None:
        """Sample for ``log``; ``workers`` are the trial's processes on this machine."""
        super().__init__(name="system-metrics", daemon=True)
        self._log = log
        self._interval = interval
        self._processes = [process for pid in workers if (process := _process(pid)) is not None]
        self._gpus = _gpus()
        self._over = threading.Event()
        # A run that goes on after a restart counts on from where it was.
        last = log.last_step(PREFIX)
        self._first = 0 if last is None else last + 1
        self._start = time.monotonic()

    def run(self) -> None:
        """Sample until closed."""
        self._cpu()  # the first look of psutil only starts its clock
        while not self._over.wait(self._interval):
            self._sample()

    def close(self) -> None:
        """Take the last sample and end."""
        self._over.set()
        self.join()
        self._sample()

    def _sample(self) -> None:
        try:
            values = {**self._cpu(), **self._memory(), **self._gpu()}
            step = self._first + round(time.monotonic() - self._start)
            self._log.metrics({f"{PREFIX}{name}": value for name, value in values.items()}, step)
        except Exception:
            logger.exception("system metrics")  # training must not suffer

    def _cpu(self) -> dict[str, float]:
        percent = psutil.cpu_percent()
        used = [_of(process, lambda p: p.cpu_percent()) for process in self._processes]
        return {"cpu_utilization_percentage": percent, "trial_cpu_cores": sum(used) / 100}

    def _memory(self) -> dict[str, float]:
        machine = psutil.virtual_memory()
        used = [_of(process, lambda p: p.memory_info().rss) for process in self._processes]
        return {
            "system_memory_usage_megabytes": machine.used / 1e6,
            "system_memory_usage_percentage": machine.percent,
            "trial_memory_megabytes": sum(used) / 1e6,
        }

    def _gpu(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for index, gpu in enumerate(self._gpus):
            values |= {f"gpu_{index}_{name}": value for name, value in gpu.read().items()}
        return values


class Gpu:
    """One GPU, read through NVML."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self) -> dict[str, float]:
        """Utilisation, memory and power; what a device does not tell is left out."""
        import pynvml

        readings: dict[str, Callable[[Any], float]] = {
            "utilization_percentage": lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).gpu,
            "memory_usage_megabytes": lambda h: pynvml.nvmlDeviceGetMemoryInfo(h).used / 1e6,
            "memory_usage_percentage": _memory_share,
            "power_usage_watts": lambda h: pynvml.nvmlDeviceGetPowerUsage(h) / 1000,
        }
        values = {}
        for name, read in readings.items():
            try:
                values[name] = float(read(self._handle))
            except pynvml.NVMLError:
                continue
        return values


def _memory_share(handle: Any) -> float:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return float(100 * memory.used / memory.total)


def _gpus() -> list[Gpu]:
    """The GPUs that this process may use, in CUDA's order; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            return [Gpu(handle) for handle in handles]
        return [Gpu(_handle(token.strip())) for token in visible.split(",") if token.strip()]
    except pynvml.NVMLError:
        return []


def _handle(token: str) -> Any:
    import pynvml

    if token.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(token))
    return pynvml.nvmlDeviceGetHandleByUUID(token)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _of(process: psutil.Process, read: Callable[[psutil.Process], float]) -> float:
    try:
        return float(read(process))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
