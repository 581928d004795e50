"""Results of a benchmark: printed beside their goals, kept with the machine's description."""

import json
import operator
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import psutil
import torch

RESULTS = Path(__file__).parent / "results"
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Row(TypedDict):
    """One figure."""

    what: str
    value: float
    unit: str
    goal: str
    """Like ``< 2``, ``<= 1.5``, ``>= 20,000``; ``-``: no goal, shown for comparison."""
    interval: NotRequired[Sequence[float]]
    """95 %, where the figure is an estimate from a sample."""
    seeds: NotRequired[Sequence[float]]
    """The figure of each seed, where it is a mean over seeds."""


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def record(name: str, rows: Sequence[Row]) -> None:
    """Print the rows and keep them as ``results/<name>.json``."""
    for row in rows:
        state = {True: "met", False: "MISSED", None: ""}[met(row)]
        span = " to ".join(f"{bound:.3g}" for bound in row.get("interval", ()))
        figure = f"{row['value']:>12.4g} {row['unit']:<8} {span:<14}"
        print(f"{row['what']:<64} {figure} {row['goal']:>10} {state}")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), "rows": list(rows)}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(name: str) -> list[Row]:
    """Rows kept under a name; none if it was never run."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def met(row: Row) -> bool | None:
    """Whether a figure reaches its goal; None where there is none."""
    compare, _, bound = row["goal"].partition(" ")
    if compare not in _COMPARE:
        return None
    return bool(_COMPARE[compare](row["value"], float(bound.split()[0].replace(",", ""))))
