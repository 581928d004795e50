"""The durable study: what was asked, reported and told, and nothing else, is the truth.

`SweepStudy` is the only door to Optuna for the engine. Every method may be repeated after a crash
with the same arguments and leaves the same study behind. Epochs count from 1.
"""

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from vfsearch.config import flat
from vfsearch.errors import SweepError
from vfsearch.search import comparable, records
from vfsearch.search.budget import Spent, decide, improvement_bound
from vfsearch.search.definition import Grid, SweepConfig, derived_seed, seeds_of_trial
from vfsearch.search.driver import DriverLock
from vfsearch.search.pruners import NoPruner, build_pruner
from vfsearch.search.pruning import judge
from vfsearch.search.records import Asked, Curves, Ended, Verdict
from vfsearch.search.sampling import build_sampler, queue_grid_point
from vfsearch.search.settled import Settled, is_asked
from vfsearch.search.space import SearchSpace, resolve
from vfsearch.search.storage import forget_url

Metrics = Mapping[str, float]


class SweepStudy:
    """One sweep's study, with its driver's lock held from `open_study` until `close`."""

    def __init__(
        self, config: SweepConfig, study: optuna.Study, storage: RDBStorage, lock: DriverLock
    ) -> None:
        self.config = config
        self.space = SearchSpace(config)
        self.study = study
        self._storage = storage
        self._id = storage.get_study_id_from_name(config.name)
        self._lock = lock
        self._pruner = build_pruner(config.pruner)
        self._settled = Settled(config, study)
        self._ids: dict[int, int] = {}
        self._live: dict[int, FrozenTrial] = {}
        """Trials that run, as stored: only the lock's holder writes, so each is read once."""
        for trial in self._settled.look():
            self._trial(trial.number)

    @property
    def seconds(self) -> float:
        """Wall time of the sweep so far, over all its drivers."""
        return self._lock.seconds

    def ask(self) -> Asked | None:
        """Propose the next trial (queued points first); None when the grid is exhausted.

        Raises:
            SweepError: no point satisfies the constraints, or the lock was lost.
        """
        self._lock.check()
        unfinished = self._settled.look()
        begun = [t for t in unfinished if t.state == TrialState.RUNNING and not is_asked(t)]
        waiting = [t for t in unfinished if t.state == TrialState.WAITING]
        grid = self.config.sampler if isinstance(self.config.sampler, Grid) else None
        idle = not begun and not waiting
        if grid and idle and not queue_grid_point(self.study, self.space, grid):
            return None
        number = next((t.number for t in (*begun, *waiting)), self._settled.total)
        self.study.sampler = build_sampler(self.config, self.space, number)
        # If the last driver died while it was asking, the parameters of that trial are finished.
        trial = optuna.Trial(self.study, self._trial_id(number)) if begun else self.study.ask()
        self.space.suggest(trial)
        trial.set_user_attr(records.ASKED, True)
        return self._asked(self._trial(trial.number))

    def running(self) -> list[Asked]:
        """Trials asked but not ended, in order: after a resume, run these first.

        Call ``should_prune(number, epoch)`` for those with ``epoch > 0`` before running them: the
        driver may have died between the report and the decision.
        """
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._asked(trial) for trial in running if is_asked(trial)]

    def report(self, number: int, epoch: int, metrics: Metrics) -> str | None:
        """Store the metrics of an epoch.

        Returns:
            None, or the reason why the trial cannot go on (an objective is missing or not finite;
            the trial should then be ended with `fail`).
        """
        self._lock.check()
        trial = self._trial(number)
        if trial.state.is_finished():
            return None
        first = self.config.objectives[0].metric
        reason = records.missing(self.config, metrics)
        if reason is None and len(self.config.objectives) == 1:
            # With several objectives Optuna refuses reports, and its TPE cannot read them.
            trial_id = self._trial_id(number)
            self._storage.set_trial_intermediate_value(trial_id, epoch, float(metrics[first]))
        curves = Curves.of(trial).with_epoch(epoch, records.kept(self.config, metrics))
        self.note(number, **{records.CURVES: curves.stored()})
        return None if reason is None else f"{reason} at epoch {epoch}"

    def measured_by(self, number: int, evaluation: str) -> None:
        """Note by which evaluation a trial is measured, once per trial.

        Raises:
            IncomparableError: not by the one of the sweep's earlier trials.
        """
        self._lock.check()
        if self._trial(number).user_attrs.get(records.EVALUATION) == evaluation:
            return
        comparable.bind(self.study, evaluation, f"trial {number}", number=number)
        self.note(number, **{records.EVALUATION: evaluation})

    def should_prune(self, number: int, epoch: int) -> Verdict:
        """Decide once, from the study alone, whether the trial stops after this epoch."""
        self._lock.check()
        trial = self._trial(number)
        options = self.config.pruner
        stored = trial.user_attrs.get(records.PRUNING, {"epoch": 0, "rungs": {}})
        if epoch <= stored["epoch"]:
            stop = bool(stored["prune"]) and epoch == stored["epoch"]
            return Verdict(prune=stop, reason=stored["reason"] if stop else "")
        if trial.state.is_finished() or isinstance(options, NoPruner) or epoch < options.grace:
            return Verdict(prune=False, reason="")
        objective = self.config.objectives[0]
        value = Curves.of(trial).curve(objective.metric, epoch)[epoch]
        judgement = judge(
            self._pruner,
            study=self.config.name,
            direction=objective.direction,
            trials=self._settled.views(self._live.values(), number, epoch),
            number=number,
        )
        text = f"{options.name}: {objective.metric} = {value:.6g} after epoch {epoch}"
        reason = text if judgement.prune else ""
        rungs = {**stored["rungs"], **judgement.rungs}
        decision = {"epoch": epoch, "prune": judgement.prune, "reason": reason, "rungs": rungs}
        self.note(number, **{records.PRUNING: decision})
        return Verdict(prune=judgement.prune, reason=reason)

    def complete(self, number: int, metrics: Metrics | None = None) -> Ended:
        """Tell COMPLETE with the objectives at the trial's best epoch (by the first objective).

        Args:
            number: Trial.
            metrics: Metrics of the selected epoch; default: taken from what was reported.

        Returns:
            state FAIL with a reason instead, if an objective is missing or not finite.
        """
        trial = self._trial(number)
        if trial.state.is_finished():
            return records.ended(trial)
        curves = Curves.of(trial)
        best = curves.best_epoch(self.config.objectives[0])
        chosen = dict(metrics) if metrics is not None else curves.epochs.get(best or 0, {})
        problem = records.missing(self.config, chosen)
        if problem is not None:
            return self.fail(number, problem)
        self.note(number, epochs=curves.last, best_epoch=best)
        self._constrain(trial, chosen)
        values = [float(chosen[objective.metric]) for objective in self.config.objectives]
        return self._tell(number, TrialState.COMPLETE, values)

    def prune(self, number: int, epoch: int, reason: str) -> Ended:
        """Tell PRUNED after ``epoch``."""
        trial = self._trial(number)
        if trial.state.is_finished():
            return records.ended(trial)
        curves = Curves.of(trial)
        best = curves.best_epoch(self.config.objectives[0])
        self.note(number, epochs=epoch, best_epoch=best, **{records.REASON: reason})
        self._constrain(trial, curves.epochs.get(best or 0, {}))
        return self._tell(number, TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> Ended:
        """Tell FAIL with the reason."""
        trial = self._trial(number)
        if trial.state.is_finished():
            return records.ended(trial)
        self.note(number, epochs=Curves.of(trial).last, **{records.REASON: reason})
        return self._tell(number, TrialState.FAIL)

    def note(self, number: int, **attributes: Any) -> None:
        """Record attributes of an unfinished trial: mlflow_run_id, seconds, retries, ..."""
        self._lock.check()
        live = self._live.get(number)
        with contextlib.suppress(UpdateFinishedTrialError):
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(self._trial_id(number), key, value)
                if live is not None:
                    live.user_attrs[key] = value

    def stop_reason(self, seconds: float, gpu_seconds: float) -> str | None:
        """Why no further trial should be asked (budget, target, terminator), or None.

        Args:
            seconds: Wall time of the sweep so far, over all its drivers (see `seconds`).
            gpu_seconds: GPU time so far.
        """
        budget = self.config.budget
        trials, best = self._settled.spent()
        improvement = None
        if budget.stop_when_improvement_below is not None:
            seed = derived_seed(self.config.sampler.seed, trials, "space")
            improvement = improvement_bound(self.study, after=budget.improvement_after, seed=seed)
        spent = Spent(
            trials=trials,
            seconds=seconds,
            gpu_seconds=gpu_seconds,
            target=best,
            improvement=improvement,
        )
        decision = decide(budget, spent)
        return decision.reason if decision.stop else None

    def discard_unused(self) -> None:
        """Remove the study if no trial was ever asked, so that it does not 'exist already'."""
        if not any(is_asked(trial) for trial in self.study.get_trials(deepcopy=False)):
            optuna.delete_study(study_name=self.config.name, storage=self._storage)
            forget_url(self.config.name)

    def close(self) -> None:
        """Release the driver's lock and the connections."""
        self._lock.release()
        self._storage.remove_session()
        self._storage.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _constrain(self, trial: FrozenTrial, metrics: Metrics) -> None:
        values = {**flat(self._asked(trial).config), **metrics}
        live = optuna.Trial(self.study, self._trial_id(trial.number))
        for rule in self.config.metric_constraints:
            violation = rule.violation(values)
            if violation is not None and rule.text not in live.constraints:
                live.set_constraint(rule.text, violation)

    def _tell(self, number: int, state: TrialState, values: list[float] | None = None) -> Ended:
        self._lock.check()
        self._live.pop(number, None)
        told = self.study.tell(number, values, state=state, skip_if_finished=True)
        self._settled.end(told)
        return records.ended(told)

    def _asked(self, trial: FrozenTrial) -> Asked:
        params = self.space.active(trial.params)
        seeds = seeds_of_trial(self.config, trial.number)
        return Asked(
            number=trial.number,
            params=params,
            seeds=seeds,
            epoch=Curves.of(trial).last,
            config=resolve(self.config, params, seeds[0]),
        )

    def _trial_id(self, number: int) -> int:
        if number not in self._ids:
            try:
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            except KeyError:
                raise SweepError(f"sweep {self.config.name} has no trial {number}") from None
            self._ids[number] = trial_id
        return self._ids[number]

    def _trial(self, number: int) -> FrozenTrial:
        if number in self._live:
            return self._live[number]
        trial = self._storage.get_trial(self._trial_id(number))
        if is_asked(trial) and trial.state == TrialState.RUNNING:
            self._live[number] = trial
        return trial
