"""What the charts of a report draw, as plain values for the page's script."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vfsearch.search.analysis import TrialRow, pareto_front, ranked
from vfsearch.search.costs import full_length, lanes
from vfsearch.search.definition import Objective
from vfsearch.search.importance import importances
from vfsearch.search.surface import contours, levels, unit

METHOD = ("loss.margin", "reweighting.temperature", "classifier.norm_bound")
"""m, tau and C: their contours come first if they are searched."""
FEWEST = 8
"""Trials below which no contour is drawn."""


def chart_data(
    rows: Sequence[TrialRow],
    objectives: Sequence[Objective],
    distributions: Mapping[str, BaseDistribution],
) -> dict[str, Any]:
    """Everything that the page's charts draw, as plain values."""
    started = [row.started.timestamp() for row in rows if row.started is not None]
    zero, places = min(started, default=0.0), lanes(rows)
    chances = importances(rows, distributions, objectives[0])
    total = sum(one.value for one in chances) or 1.0
    return {
        "objectives": [{"name": o.metric, "direction": o.direction} for o in objectives],
        "parameters": [_parameter(name, kind) for name, kind in distributions.items()],
        "levels": levels(_values(rows)) if len(_values(rows)) else [],
        "full": full_length(rows),
        "trials": [
            {
                "number": row.number,
                "state": row.state,
                "params": row.params,
                "values": row.values and list(row.values),
                "reached": list(row.reached),
                "epochs": row.epochs,
                "curve": list(row.curve.items()),
                "lane": places.get(row.number),
                "start": None if row.started is None else row.started.timestamp() - zero,
                "end": None if row.ended is None else row.ended.timestamp() - zero,
                "seconds": row.seconds,
                "retries": row.restarts,
                "reason": row.reason,
            }
            for row in rows
        ],
        "front": pareto_front(rows, objectives) if len(objectives) > 1 else [],
        "best": next((row.number for row in ranked(rows, objectives[0])), None),
        "importance": [
            {**asdict(one), "value": one.value / total, "chance": one.chance / total}
            for one in chances
        ],
        "surfaces": _surfaces(rows, distributions, [one.name for one in chances]),
    }


def _values(rows: Sequence[TrialRow]) -> Float[np.ndarray, " trials"]:
    return np.array([row.reached[0] for row in rows if row.reached[0] is not None], np.float64)


def _surfaces(
    rows: Sequence[TrialRow], distributions: Mapping[str, BaseDistribution], order: Sequence[str]
) -> list[dict[str, Any]]:
    names = [name for name in (*METHOD, *order) if name in distributions]
    names = [name for name in dict.fromkeys(names) if not distributions[name].single()]
    names = [n for n in names if not isinstance(distributions[n], CategoricalDistribution)][:3]
    edges = levels(_values(rows)) if len(_values(rows)) else []
    found = []
    for x, y in combinations(names, 2):
        both = [
            row
            for row in rows
            if row.reached[0] is not None and x in row.params and y in row.params
        ]
        if len(both) < FEWEST or not edges:
            continue
        points = np.array(
            [[unit(distributions[name], row.params[name]) for name in (x, y)] for row in both],
            np.float64,
        )
        paths = contours(points, _values(both), edges)
        found.append({"x": x, "y": y, "paths": paths, "trials": len(both)})
    return found


def _parameter(name: str, kind: BaseDistribution) -> dict[str, Any]:
    match kind:
        case CategoricalDistribution():
            return {"name": name, "choices": list(kind.choices)}
        case FloatDistribution() | IntDistribution():
            return {"name": name, "low": kind.low, "high": kind.high, "log": kind.log}
        case _:
            raise TypeError(f"{name}: {type(kind).__name__} is no distribution of Optuna 5")
