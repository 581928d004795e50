"""How long a command takes before it does anything: ``vfsearch --help`` in fresh processes."""

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.record import Row, record

TIMES = 15
HEAVY = ("torch", "ray", "mlflow", "optuna", "numpy")


def main() -> None:
    command = Path(sys.executable).parent / "vfsearch"
    rows: list[Row] = []
    for arguments in (["--help"], ["sweep", "--help"], ["evaluate", "--help"]):
        # The first start of all writes the compiled files.
        taken = [_seconds([str(command), *arguments]) for _ in range(TIMES + 1)][1:]
        what = f"vfsearch {' '.join(arguments)}"
        rows += [
            {"what": f"{what}, median of {TIMES}", "value": median(taken), "unit": "s",
             "goal": "< 0.5"},
            {"what": f"{what}, slowest", "value": max(taken), "unit": "s", "goal": "-"},
        ]  # fmt: skip
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for _ in range(TIMES):
        _seconds([str(command), "--help"])
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
    what = "processor time of vfsearch --help"
    rows.append({"what": what, "value": spent / TIMES, "unit": "s", "goal": "-"})
    bare = [_seconds([sys.executable, "-c", "pass"]) for _ in range(TIMES)]
    rows.append({"what": "python -c pass", "value": median(bare), "unit": "s", "goal": "-"})
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, vfsearch.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    early = sum(name in loaded for name in HEAVY)
    what = f"of {', '.join(HEAVY)}: imported by the command line at its start"
    rows.append({"what": what, "value": early, "unit": "modules", "goal": "< 1"})
    record("start", rows)


def _seconds(command: list[str]) -> float:
    started = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - started


if __name__ == "__main__":
    main()
