"""The tables of a report: numbers formatted for people, ready for the template."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vfsearch.search.analysis import TrialRow, pareto_front, ranked
from vfsearch.search.costs import Hours, Saving, pace
from vfsearch.search.definition import Objective
from vfsearch.search.replay import Replayed

SHOWN = 12
"""Rows of the leaderboard; the table of all trials has the rest."""
STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")


@dataclass(frozen=True, kw_only=True)
class Price:
    """What an hour of a trial is worth."""

    gpus: float
    """GPUs that one trial holds; 0: it ran on CPUs."""
    dollars: float | None
    """Per GPU-hour."""

    @property
    def unit(self) -> str:
        """What the hours of the tables are."""
        return "GPU-hours" if self.gpus else "trial-hours"

    def hours(self, trial_hours: float) -> str:
        """Trial-hours in that unit, or in minutes if they are few."""
        hours = trial_hours * (self.gpus or 1)
        one = "GPU" if self.gpus else "trial"
        return f"{hours:,.2f} {one}-h" if hours >= 0.1 else f"{hours * 60:,.1f} {one}-min"

    def cost(self, trial_hours: float) -> str | None:
        """Dollars, where GPUs and their price are known."""
        if not self.gpus or self.dollars is None:
            return None
        return f"${trial_hours * self.gpus * self.dollars:,.2f}"


def headline(
    rows: Sequence[TrialRow],
    objective: Objective,
    intervals: Mapping[int, tuple[float, float]],
    hours: Hours,
    saving: Saving,
    price: Price,
    wall_seconds: float | None,
) -> list[dict[str, str]]:
    """The four figures at the top."""
    best = next(iter(ranked(rows, objective)), None)
    tiles = []
    if best is not None and best.values is not None:
        note = f"trial {best.number}"
        if best.number in intervals:
            low, high = intervals[best.number]
            note += f", 95 % interval {result(low)} to {result(high)}"
        tiles.append({"name": objective.metric, "value": result(best.values[0]), "note": note})
    counts = Counter(row.state for row in rows)
    split = ", ".join(f"{counts[s]} {s.lower()}" for s in STATES if counts[s])
    tiles.append({"name": "trials", "value": str(len(rows)), "note": split})
    wall = wall_seconds if wall_seconds is not None else _span(rows)
    spent = price.hours(hours.total)
    cost = price.cost(hours.total)
    note = f"{spent} held" + (f", {cost}" if cost else "")
    tiles.append({"name": "wall time", "value": duration(wall), "note": note})
    if saving.trials:
        share = 1 - saving.epochs_run / max(saving.epochs_full, 1)
        note = f"{price.hours(saving.hours)} by stopping {saving.trials} trials early"
        tiles.append({"name": "epochs saved", "value": f"{share:.0%}", "note": note})
    return tiles


def board(
    rows: Sequence[TrialRow],
    objectives: Sequence[Objective],
    names: Sequence[str],
    intervals: Mapping[int, tuple[float, float]],
) -> dict[str, Any]:
    """The leaderboard; with several objectives, the Pareto front."""
    best = ranked(rows, objectives[0])
    if len(objectives) > 1:
        front = set(pareto_front(rows, objectives))
        best = [row for row in best if row.number in front]
    best = best[:SHOWN]
    known = [intervals[row.number] for row in best if row.number in intervals]
    low = min((a for a, _ in known), default=0.0)
    span = (max((b for _, b in known), default=1.0) - low) or 1.0
    lines = []
    for rank, row in enumerate(best, start=1):
        line = _line(row, objectives, names) | {"rank": rank, "interval": None}
        if row.number in intervals:
            a, b = intervals[row.number]
            value = (row.values or (a,))[0]
            line["interval"] = {
                "text": f"{result(a)} to {result(b)}",
                "left": f"{100 * (a - low) / span:.1f}",
                "width": f"{100 * (b - a) / span:.1f}",
                "at": f"{100 * (value - low) / span:.1f}",
            }
        lines.append(line)
    return {"rows": lines, "parameters": list(names), "intervals": bool(known)}


def trial_table(
    rows: Sequence[TrialRow], objectives: Sequence[Objective], names: Sequence[str]
) -> dict[str, Any]:
    """Every trial, by number."""
    return {
        "rows": [_line(row, objectives, names) for row in rows],
        "parameters": list(names),
    }


def cost_table(hours: Hours, price: Price) -> list[dict[str, Any]]:
    """Where the hours went, as shares of all."""
    total = hours.total or 1.0
    training = "training" if hours.split else "training, data, evaluation"
    parts = [
        ("training", training, hours.training, "optimiser steps"),
        ("data", "waiting for data", hours.data, "steps whose batch was not ready"),
        ("evaluation", "evaluation", hours.evaluation, "validation and checkpoints"),
        ("startup", "start-up", hours.start_up, "processes, corpus, model, reports"),
        ("waiting", "waiting for a trial", hours.waiting, "empty places while other trials ran"),
        ("lost", "lost to faults", hours.lost, "failed trials, and work that restarts repeated"),
    ]
    return [
        {
            "key": key,
            "name": name,
            "hours": price.hours(value),
            "share": f"{100 * value / total:.1f}",
            "cost": price.cost(value),
            "what": what,
        }
        for key, name, value, what in parts
        if hours.split or key not in ("data", "evaluation")
    ]


def replay_table(
    rows: Sequence[TrialRow],
    objective: Objective,
    replays: Sequence[Replayed],
    saving: Saving,
    price: Price,
) -> list[dict[str, Any]]:
    """What happened, and what other policies would have cost and chosen."""
    if not replays:
        return []
    spent = sum(row.epochs * pace(row) for row in rows if row.state != "RUNNING") / 3600
    most = max([saving.epochs_run, *(one.epochs for one in replays)]) or 1
    best = next(iter(ranked(rows, objective)), None)
    happened = {
        "name": "as run",
        "epochs": saving.epochs_run,
        "share": f"{100 * saving.epochs_run / most:.1f}",
        "hours": price.hours(spent),
        "cost": price.cost(spent),
        "stopped": saving.trials,
        "beyond": 0,
        "chosen": None if best is None else best.number,
        "value": result(None if best is None else best.reached[0]),
        "actual": True,
    }
    lines = [happened]
    for one in replays:
        lines.append(
            {
                "name": one.policy,
                "epochs": one.epochs,
                "share": f"{100 * one.epochs / most:.1f}",
                "hours": price.hours(one.hours),
                "cost": price.cost(one.hours),
                "stopped": len(one.stopped),
                "beyond": len(one.beyond),
                "chosen": one.chosen,
                "value": result(one.value),
                "actual": False,
            }
        )
    return lines


def _line(row: TrialRow, objectives: Sequence[Objective], names: Sequence[str]) -> dict[str, Any]:
    values = row.values or row.reached
    return {
        "number": row.number,
        "state": row.state,
        "values": [result(value) for value in values[: len(objectives)]],
        "params": [_setting(row.params[name]) if name in row.params else "–" for name in names],
        "epochs": row.epochs,
        "seconds": duration(row.seconds),
        "retries": row.retries,
        "reason": row.reason or "",
        "run": row.mlflow_run_id or "",
    }


def _setting(value: object) -> str:
    return "null" if value is None else number(value)


def number(value: object) -> str:
    """Four significant digits, a real minus sign, no needless zeros."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    small = value != 0 and abs(value) < 1e-3
    text = f"{value:.2e}" if small or abs(value) >= 1e5 else f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def result(value: float | None) -> str:
    """A metric: four digits always, so that a column can be compared by eye."""
    if value is None or not math.isfinite(value) or not 1e-3 <= abs(value) < 1e4:
        return number(value)
    return f"{value:#.4g}".rstrip(".").replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


def _span(rows: Sequence[TrialRow]) -> float | None:
    starts = [row.started.timestamp() for row in rows if row.started is not None]
    ends = [row.ended.timestamp() for row in rows if row.ended is not None]
    return max(ends) - min(starts) if starts and ends else None
