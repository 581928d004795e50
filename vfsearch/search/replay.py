"""What another way of stopping would have cost and chosen, replayed from the logged curves.

What is assumed, and printed with the table:

- The same proposals in the same order. A sampler would have reacted to other stops; this is the
  effect of stopping alone.
- Reports arrive in the order in which they arrived: a trial's epochs are spread over its time, and
  a trial that is stopped in the replay does not make the others start earlier.
- A trial that was stopped in reality has no curve beyond. If a policy lets it go on, its remaining
  epochs are paid at its own pace and it cannot be chosen; how many there were is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from vfsearch.search.analysis import TrialRow, better
from vfsearch.search.costs import full_length, pace
from vfsearch.search.definition import SweepConfig
from vfsearch.search.pruners import AnyPruner, Asha, Median, NoPruner, build_pruner
from vfsearch.search.pruning import judge

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What a replay needs of one trial."""

    number: int
    curve: Mapping[int, float]
    """First objective by epoch."""
    whole: bool
    """The curve is all there is: the trial completed, or failed where it ends."""
    failed: bool
    times: Mapping[int, float]
    """When each epoch was reported, seconds."""
    pace: float
    """Seconds per epoch."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a policy would have done."""

    policy: str
    epochs: int
    hours: float
    """Trial-hours of training and evaluation."""
    stopped: tuple[int, ...]
    """Trials that it would have stopped."""
    beyond: tuple[int, ...]
    """Trials that it would have let go on past the end of what was logged."""
    chosen: int | None
    """Best trial that would have run to its end, as far as that is known."""
    value: float | None
    """Best value of that trial."""


def logged(rows: Sequence[TrialRow]) -> list[Logged]:
    """Take the curves of a sweep's finished trials; trials without a report are left out."""
    return [
        Logged(
            number=row.number,
            curve=row.curve,
            whole=row.state != "PRUNED",
            failed=row.state == "FAIL",
            times=_times(row),
            pace=pace(row),
        )
        for row in rows
        if row.curve and row.state in ("COMPLETE", "PRUNED", "FAIL")
    ]


def policies(config: SweepConfig | None) -> dict[str, AnyPruner]:
    """The policies of the table: none, ASHA and median, and the sweep's own if it is another."""
    found: dict[str, AnyPruner] = {
        "none": NoPruner(name="none"),
        "asha": Asha(name="asha"),
        "median": Median(name="median"),
    }
    if config is not None:
        found[config.pruner.name] = config.pruner
    return found


def replay(
    trials: Sequence[Logged],
    policy: AnyPruner,
    *,
    direction: Direction,
    full: int,
    study: str = "replay",
) -> Replayed:
    """Run one policy over logged curves.

    Args:
        trials: Curves of the sweep, from `logged`.
        policy: The pruner's options.
        direction: Of the first objective.
        full: Epochs of a trial that is never stopped.
        study: Name of the study (Hyperband assigns brackets by it).
    """
    pruner = build_pruner(policy)
    views: dict[int, FrozenTrial] = {}
    rungs: dict[int, dict[str, float]] = {}
    seen: dict[int, dict[int, float]] = {}
    stopped: dict[int, int] = {}
    events = sorted(
        (trial.times[epoch], trial.number, epoch) for trial in trials for epoch in trial.curve
    )
    book = {trial.number: trial for trial in trials}
    for _, number, epoch in events:
        if number in stopped:
            continue
        trial = book[number]
        curve = seen.setdefault(number, {})
        curve[epoch] = trial.curve[epoch]
        notes = rungs.setdefault(number, {})
        views[number] = _view(trial, TrialState.RUNNING, curve, notes)
        if trial.whole and epoch == max(trial.curve):
            state = TrialState.FAIL if trial.failed else TrialState.COMPLETE
            views[number] = _view(trial, state, curve, notes, direction)
        elif not isinstance(policy, NoPruner) and epoch >= policy.grace:
            judgement = judge(
                pruner,
                study=study,
                direction=direction,
                trials={begun: views[begun] for begun in seen},
                number=number,
            )
            notes |= judgement.rungs
            if judgement.prune:
                stopped[number] = epoch
            state = TrialState.PRUNED if judgement.prune else TrialState.RUNNING
            views[number] = _view(trial, state, curve, notes)
    return _result(trials, policy.name, stopped, direction, full)


def replay_all(
    rows: Sequence[TrialRow], config: SweepConfig | None, direction: Direction
) -> list[Replayed]:
    """Every policy of the table over one sweep."""
    trials, full = logged(rows), full_length(rows)
    name = config.name if config is not None else "replay"
    return [
        replay(trials, policy, direction=direction, full=full, study=name)
        for policy in policies(config).values()
    ]


def _result(
    trials: Sequence[Logged], name: str, stopped: Mapping[int, int], direction: Direction, full: int
) -> Replayed:
    epochs, seconds, beyond = 0, 0.0, []
    chosen: int | None = None
    value: float | None = None
    for trial in trials:
        last = max(trial.curve)
        ran = stopped.get(trial.number, last if trial.whole else max(full, last))
        epochs += ran
        seconds += ran * trial.pace
        if trial.number in stopped:
            continue
        if not trial.whole:
            beyond.append(trial.number)
        elif not trial.failed:
            best = _best(trial.curve, direction)
            if value is None or better(direction, best, value):
                chosen, value = trial.number, best
    return Replayed(
        policy=name,
        epochs=epochs,
        hours=seconds / 3600,
        stopped=tuple(stopped),
        beyond=tuple(beyond),
        chosen=chosen,
        value=value,
    )


def _best(curve: Mapping[int, float], direction: Direction) -> float:
    return max(curve.values()) if direction == "maximize" else min(curve.values())


def _times(row: TrialRow) -> dict[int, float]:
    if row.started is None or row.ended is None:
        return {epoch: float(row.number) for epoch in row.curve}
    start, end, last = row.started.timestamp(), row.ended.timestamp(), max(row.curve)
    return {epoch: start + (end - start) * epoch / last for epoch in row.curve}


def _view(
    trial: Logged,
    state: TrialState,
    curve: Mapping[int, float],
    notes: Mapping[str, float],
    direction: Direction = "maximize",
) -> FrozenTrial:
    none: dict[str, BaseDistribution] = {}
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=_best(curve, direction) if state == TrialState.COMPLETE else None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions=none,
        user_attrs={},
        system_attrs=dict(notes),
        intermediate_values=dict(curve),
    )
