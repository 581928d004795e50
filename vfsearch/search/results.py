"""The outcome of a sweep as its study has it: rows by rank, the best trial and its run."""

from collections.abc import Sequence
from dataclasses import dataclass

from vfsearch.errors import SweepError
from vfsearch.search.analysis import TrialRow, trials_table
from vfsearch.search.definition import SweepConfig
from vfsearch.search.study import read_sweep


@dataclass(frozen=True, kw_only=True)
class BestRun:
    """The candidate of a sweep."""

    config: SweepConfig
    row: TrialRow
    run_id: str


def ranked(rows: Sequence[TrialRow], config: SweepConfig) -> list[TrialRow]:
    """Trials by the value that they reached of the first objective, best first.

    Completed trials stand before pruned ones, and those without a value last.
    """
    sign = -1.0 if config.objectives[0].direction == "maximize" else 1.0

    def place(row: TrialRow) -> tuple[int, float, int]:
        order = {"COMPLETE": 0, "PRUNED": 1}.get(row.state, 2)
        value = row.reached[0] if row.reached else None
        return (order, sign * value, row.number) if value is not None else (3, 0.0, row.number)

    return sorted(rows, key=place)


def best_run(name: str) -> BestRun:
    """The best completed trial of a sweep, by its first objective.

    Raises:
        SweepError: no such sweep, no completed trial, or its run was not tracked.
    """
    config, study = read_sweep(name)
    complete = [row for row in ranked(trials_table(study), config) if row.state == "COMPLETE"]
    if not complete:
        raise SweepError(f"sweep {name} has no completed trial; see: vfsearch trials {name}")
    best = complete[0]
    if best.mlflow_run_id is None:
        raise SweepError(
            f"trial {best.number} of sweep {name} has no run in MLflow (tracking.enabled was off), "
            "so there is nothing to promote"
        )
    return BestRun(config=config, row=best, run_id=best.mlflow_run_id)
