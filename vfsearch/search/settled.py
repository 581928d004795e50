"""What the trials of a study that have ended have shown: each is looked at once.

An ended trial never changes, so what is counted or drawn from it is kept; only the few that are
still open are looked at again. Without this every ask and every decision would read all trials.
"""

from collections.abc import Iterable

import optuna
from optuna.trial import FrozenTrial

from vfsearch.search import records
from vfsearch.search.definition import SweepConfig
from vfsearch.search.pruning import project
from vfsearch.search.records import Curves


class Settled:
    """Counts, best value and pruners' views of the ended trials that this sweep has asked."""

    def __init__(self, config: SweepConfig, study: optuna.Study) -> None:
        self._study = study
        self._metric = config.objectives[0].metric
        self._target = config.budget.target
        self._seen = 0
        self._open: list[int] = []
        self._asked = 0
        self._found: list[float] = []
        self._views: dict[int, FrozenTrial] = {}
        self.total = 0
        """Trials in the study at the last look."""

    def look(self) -> list[FrozenTrial]:
        """Take note of the trials that have ended since; returns those that have not, in order."""
        trials = self._study.get_trials(deepcopy=False)  # in order of their numbers, from 0
        still = [trials[number] for number in self._open] + trials[self._seen :]
        self._seen = self.total = len(trials)
        unfinished = [trial for trial in still if not trial.state.is_finished()]
        for trial in still:
            if trial.state.is_finished():
                self.end(trial)
        self._open = [trial.number for trial in unfinished]
        return unfinished

    def end(self, trial: FrozenTrial) -> None:
        """Take note of a trial that has ended, once."""
        if is_asked(trial) and trial.number not in self._views:
            self._asked += 1
            self._found = self._best([*self._found, *self._values(trial)])
            self._views[trial.number] = self._view(trial, None)

    def spent(self) -> tuple[int, float | None]:
        """Trials asked, and the best value of the budget's target."""
        running = [trial for trial in self.look() if is_asked(trial)]
        values = [value for trial in running for value in self._values(trial)]
        best = self._best([*self._found, *values])
        return self._asked + len(running), best[0] if best else None

    def views(
        self, running: Iterable[FrozenTrial], number: int, epoch: int
    ) -> dict[int, FrozenTrial]:
        """Every asked trial as pruners see it, trial ``number`` up to and with ``epoch``."""
        views = {
            trial.number: self._view(trial, epoch if trial.number == number else None)
            for trial in running
        } | self._views
        return {each: views[each] for each in sorted(views)}

    def _view(self, trial: FrozenTrial, until: int | None) -> FrozenTrial:
        rungs = trial.user_attrs.get(records.PRUNING, {"rungs": {}})["rungs"]
        return project(trial, Curves.of(trial).curve(self._metric, until), rungs)

    def _values(self, trial: FrozenTrial) -> list[float]:
        if self._target is None:
            return []
        return list(Curves.of(trial).curve(self._target.metric).values())

    def _best(self, values: list[float]) -> list[float]:
        best = None if self._target is None else self._target.best(values)
        return [] if best is None else [best]


def is_asked(trial: FrozenTrial) -> bool:
    """Whether every parameter of the trial is stored: it may run."""
    return bool(trial.user_attrs.get(records.ASKED))
