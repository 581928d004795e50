"""Results of a benchmark: printed beside their goals, kept with the machine's description."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def record(name: str, rows: list[dict[str, Any]]) -> None:
    """Rows of ``what``, ``value``, ``goal`` and ``unit``."""
    for row in rows:
        print(f"{row['what']:<58} {row['value']:>10.3f} {row['unit']:<6} goal {row['goal']}")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), "rows": rows}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
