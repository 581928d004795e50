"""Pruning decisions from what a study has stored, and from nothing else.

Optuna's pruners write the rungs a trial has passed into the study while they decide, and refuse
studies with several objectives. Here they see a read-only view (the first objective, the curves as
intermediate values), and what they would write is returned with the decision. The caller stores
both in one write, so a decision is made once and survives any crash. The same function replays
'what would another pruner have done'.
"""

import copy
import math
import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether a trial stops, and the rungs that the pruner noted for it."""

    prune: bool
    rungs: dict[str, float]


def judge(
    pruner: BasePruner,
    *,
    study: str,
    direction: Literal["maximize", "minimize"],
    trials: Mapping[int, FrozenTrial],
    number: int,
) -> Judgement:
    """Ask a pruner about one trial.

    Args:
        pruner: One of Optuna's.
        study: Name of the study (Hyperband assigns brackets by it).
        direction: Of the first objective.
        trials: Projections of all trials by number and in their order, see `project`.
        number: The trial that reported last.
    """
    view = _View(study, direction, trials)
    with warnings.catch_warnings():
        # Wilcoxon warns whenever two curves differ in length, which early stopping makes usual.
        warnings.simplefilter("ignore")
        seen = optuna.Study(study, view)
        prune = bool(pruner.prune(seen, view.get_trial(number)))  # some answer numpy.bool
    return Judgement(prune=prune, rungs=view.written.get(number, {}))


def project(
    trial: FrozenTrial, curve: Mapping[int, float], rungs: Mapping[str, float]
) -> FrozenTrial:
    """Return the trial as a pruner sees it: one objective, its curve, its rungs."""
    complete = trial.state == TrialState.COMPLETE
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=trial.state,
        value=trial.values[0] if complete else None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs={**_constraints(trial), **rungs},
        intermediate_values=dict(curve),
    )


def _constraints(trial: FrozenTrial) -> dict[str, Any]:
    return {k: v for k, v in trial.system_attrs.items() if k.startswith("constraints")}


class _View(InMemoryStorage):
    """A study of one objective over given trials, whose ids are their numbers."""

    def __init__(self, name: str, direction: str, trials: Mapping[int, FrozenTrial]) -> None:
        super().__init__()
        self.written: dict[int, dict[str, float]] = {}
        self._maximize = direction == "maximize"
        self._seen = dict(trials)
        both = (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
        self.create_new_study([both[self._maximize]], name)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """All trials of the view; never copied, for pruners only read."""
        del study_id, deepcopy
        return [t for t in self._seen.values() if states is None or t.state in states]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial of the view."""
        return self._seen[trial_id]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Best completed trial, the earliest of equals."""
        complete = [
            (-t.value if self._maximize else t.value, t.number)
            for t in self.get_all_trials(study_id, states=(TrialState.COMPLETE,))
            if t.value is not None and math.isfinite(t.value)
        ]
        if not complete:
            raise ValueError("No trials are completed yet.")
        return self._seen[min(complete)[1]]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep what the pruner notes; lists that it has read stay as they were."""
        self.written.setdefault(trial_id, {})[key] = value
        trial = copy.copy(self._seen[trial_id])
        trial.system_attrs = {**trial.system_attrs, key: value}
        self._seen[trial_id] = trial
