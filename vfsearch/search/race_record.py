"""What a study keeps of a race, and what promotion and report read of it.

Attributes of the study, for those of finished trials cannot be written: one per seed run that has
ended (``vfsearch:race:<trial>:<index>``) and one with the result of the last race.
"""

from typing import Literal, Self

import optuna

from vfsearch.config import Section
from vfsearch.search.analysis import ranked, sweep_of, trials_table
from vfsearch.search.definition import SweepConfig
from vfsearch.search.report import ReportExtras
from vfsearch.search.verdict import Decision, Duel, Standing

_RESULT = "vfsearch:race"


class SeedRun(Section):
    """A fresh run of a trial that has ended."""

    number: int
    """Of the trial."""
    index: int
    """From 0."""
    seed: int
    epoch: int = 0
    best_epoch: int = 0
    retries: int = 0
    run_id: str | None = None
    """MLflow run; None without tracking, or while its server is away."""
    failure: str | None = None
    """Why the training diverged; the trial is then out of the race."""

    @property
    def name(self) -> str:
        """Short name."""
        return f"t{self.number:03d}-s{self.index}"


class Seeds(Section):
    """A finalist's seeds, measured."""

    number: int
    values: tuple[float, ...]

    def best(self, direction: Literal["maximize", "minimize"]) -> int:
        """Index of the best seed, the first of equals."""
        choose = max if direction == "maximize" else min
        return self.values.index(choose(self.values))


class RaceResult(Section):
    """The result of a race."""

    metric: str
    direction: Literal["maximize", "minimize"]
    top: int
    seeds: int
    bootstrap: int
    entered: tuple[int, ...]
    """Trials that were raced, best of the sweep first."""
    finalists: tuple[Seeds, ...]
    """Those whose seeds all ended well."""
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    decision: Decision
    out: tuple[str, ...] = ()
    """Who is out and why."""

    @classmethod
    def read(cls, study: optuna.Study) -> Self | None:
        """The last race of a study, if there was one."""
        stored = study.user_attrs.get(_RESULT)
        return None if stored is None else cls.model_validate(stored)

    def write(self, study: optuna.Study) -> None:
        """Keep it; replaces the race before."""
        study.set_user_attr(_RESULT, self.model_dump(mode="json"))

    def is_current(self, study: optuna.Study, config: SweepConfig) -> bool:
        """Whether the best trials of the sweep are still those that were raced."""
        return tuple(finalists_of(study, config, self.top)) == self.entered

    @property
    def candidate(self) -> tuple[int, int]:
        """(trial, index) of the leader's best seed."""
        leader = next(f for f in self.finalists if f.number == self.decision.leader)
        return leader.number, leader.best(self.direction)


def finalists_of(study: optuna.Study, config: SweepConfig, top: int) -> list[int]:
    """Numbers of the best completed trials by the first objective."""
    rows = ranked(trials_table(study), config.objectives[0])
    return [row.number for row in rows[:top]]


def read_seed(study: optuna.Study, number: int, index: int) -> SeedRun | None:
    """A seed run that has ended."""
    stored = study.user_attrs.get(_key(number, index))
    return None if stored is None else SeedRun.model_validate(stored)


def write_seed(study: optuna.Study, run: SeedRun) -> None:
    """Keep a seed run that has ended."""
    study.set_user_attr(_key(run.number, run.index), run.model_dump(mode="json"))


def report_extras(study: optuna.Study, *, dollars: float | None = None) -> ReportExtras:
    """What the report shows of the last race, if there was one."""
    config, race = sweep_of(study), RaceResult.read(study)
    if config is None or race is None:
        return ReportExtras(dollars_per_gpu_hour=dollars)
    text = (
        f"Race of {len(race.entered)} finalists, {race.seeds} fresh seeds each: "
        f"{race.decision.text}. Intervals are of the means over these seeds."
    )
    for why in race.out:
        text += f" Out: {why}."
    if not race.is_current(study, config):
        text += " Since then the sweep's best trials have changed: race again."
    return ReportExtras(
        intervals={standing.number: standing.interval for standing in race.standings},
        verdict=text,
        dollars_per_gpu_hour=dollars,
    )


def _key(number: int, index: int) -> str:
    return f"{_RESULT}:{number}:{index}"
