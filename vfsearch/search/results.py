"""The outcome of a sweep as its study has it: rows by rank, the best trial and its run."""

from collections.abc import Sequence
from dataclasses import dataclass

from vfsearch.errors import SweepError
from vfsearch.search.analysis import TrialRow, ranked, trials_table
from vfsearch.search.comparable import check
from vfsearch.search.definition import SweepConfig
from vfsearch.search.race_record import RaceResult, read_seed
from vfsearch.search.study import read_sweep


@dataclass(frozen=True, kw_only=True)
class BestRun:
    """The candidate of a sweep."""

    config: SweepConfig
    row: TrialRow
    run_id: str


def standings(rows: Sequence[TrialRow], config: SweepConfig) -> list[TrialRow]:
    """Completed trials by value, then stopped ones by what they reached, then the rest."""
    objective = config.objectives[0]
    sign = -1.0 if objective.direction == "maximize" else 1.0

    def place(row: TrialRow) -> tuple[bool, float, int]:
        value = row.reached[0] if row.reached else None
        return (value is None, sign * (value or 0.0), row.number)

    complete = ranked(rows, objective)
    return complete + sorted((row for row in rows if row.values is None), key=place)


def best_run(name: str) -> BestRun:
    """The best completed trial of a sweep by its first objective, or what its race says.

    With a race of the present best trials: its leader, with the run of its best fresh seed.

    Raises:
        SweepError: no such sweep, no completed trial, or its run was not tracked; trials that
            were not measured alike.
    """
    config, study = read_sweep(name)
    check(study)
    complete = ranked(trials_table(study), config.objectives[0])
    if not complete:
        raise SweepError(f"sweep {name} has no completed trial; see: vfsearch trials {name}")
    best, run_id = complete[0], complete[0].mlflow_run_id
    race = RaceResult.read(study)
    if race is not None and race.is_current(study, config):
        number, index = race.candidate
        best = next(row for row in complete if row.number == number)
        seed = read_seed(study, number, index)
        run_id = None if seed is None else seed.run_id
    if run_id is None:
        raise SweepError(
            f"trial {best.number} of sweep {name} has no run in MLflow (tracking.enabled was off), "
            "so there is nothing to promote"
        )
    return BestRun(config=config, row=best, run_id=run_id)
