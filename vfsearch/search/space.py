"""The space of a sweep: which parameters exist when, and the run that a point stands for."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vfsearch.config import RunConfig, flat, set_key
from vfsearch.search.definition import SweepConfig, derived_seed
from vfsearch.search.parameters import AnyParameter, CategoricalParameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Point = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What ``vfsearch space check`` prints."""

    name: str
    rows: tuple[dict[str, str], ...]
    """Per parameter: name, kind, range, scale, when."""
    dimensions: int
    """Number of parameters."""
    size: int | None
    """Number of points; None: a continuum."""
    samples: tuple[Point, ...]
    """Points that satisfy the constraints on settings."""


class SearchSpace:
    """Parameters in an order in which each stands after those that its ``when`` names."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.parameters = _ordered(config.parameters)
        self._constraints = config.setting_constraints

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Optuna's distribution of every parameter, active or not."""
        return {name: p.distribution() for name, p in self.parameters.items()}

    def suggest(self, trial: "Trial") -> Point:
        """Ask a trial for every parameter that exists, conditions respected."""
        params: Point = {}
        for name, parameter in self.parameters.items():
            if parameter.active(params):
                params[name] = parameter.suggest(trial)
        return params

    def active(self, values: Mapping[str, Any]) -> Point:
        """Keep the parameters that exist beside each other."""
        params: Point = {}
        for name, parameter in self.parameters.items():
            if name in values and parameter.active(params):
                params[name] = values[name]
        return params

    def feasible(self, params: Point) -> bool:
        """Whether the point makes a valid run that satisfies the constraints on settings."""
        try:
            settings = flat(resolve(self.config, params, seed=0))
        except ValidationError:
            return False
        violations = (c.violation(settings) for c in self._constraints)
        return all(violation is None or violation <= 0 for violation in violations)

    def size(self) -> int | None:
        """Number of points, constraints ignored; None: a continuum."""
        total = 0
        for params in self._branches():
            counts = [
                p.count
                for name, p in self.parameters.items()
                if name not in self._parents() and p.active(params)
            ]
            if any(count is None for count in counts):
                return None
            total += math.prod(count for count in counts if count is not None)
        return total

    def grid(self, points: int) -> list[Point]:
        """Every feasible combination, with ``points`` values per real parameter without a step."""
        found: list[Point] = []
        for params in self._branches():
            rest = {
                name: p.grid(points)
                for name, p in self.parameters.items()
                if name not in params and p.active(params)
            }
            for values in itertools.product(*rest.values()):
                candidate = self.active({**params, **dict(zip(rest, values, strict=True))})
                if self.feasible(candidate):
                    found.append(candidate)
        return found

    def samples(self, count: int, seed: int) -> list[Point]:
        """Independent uniform points that satisfy the constraints on settings.

        Raises:
            SweepError: no such point was found.
        """
        import optuna

        from vfsearch.search.sampling import FeasibleSampler

        sampler = FeasibleSampler(
            self, optuna.samplers.RandomSampler(seed), derived_seed(seed, 0, "space")
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=sampler)
        return [self.suggest(study.ask()) for _ in range(count)]

    def describe(self, samples: int = 5, seed: int = 0) -> Description:
        """Return the table, the size and some points."""
        return Description(
            name=self.config.name,
            rows=tuple(_row(p) for p in self.parameters.values()),
            dimensions=len(self.parameters),
            size=self.size(),
            samples=tuple(self.samples(samples, seed)),
        )

    def _parents(self) -> set[str]:
        return {other for p in self.parameters.values() for other in p.when}

    def _branches(self) -> Iterator[Point]:
        """Every consistent assignment of the parameters that others depend on."""
        parents = [p for name, p in self.parameters.items() if name in self._parents()]

        def extend(index: int, params: Point) -> Iterator[Point]:
            if index == len(parents):
                yield params
            elif parents[index].active(params):
                for value in parents[index].grid(2):
                    yield from extend(index + 1, {**params, parents[index].name: value})
            else:
                yield from extend(index + 1, params)

        return extend(0, {})


def resolve(config: SweepConfig, params: Mapping[str, Any], seed: int) -> RunConfig:
    """Build the run of a point: base, then fixed, then bundles, then parameters, then the seed.

    Raises:
        pydantic.ValidationError: the point is outside of what a run allows.
    """
    data = config.base.model_dump()
    for key, value in config.fixed.items():
        set_key(data, key, value)
    for name, value in params.items():
        parameter = config.parameters[name]
        if isinstance(parameter, CategoricalParameter):
            for key, setting in parameter.bundles.get(str(value), {}).items():
                set_key(data, key, setting)
    for name, value in params.items():
        parameter = config.parameters[name]
        if not (isinstance(parameter, CategoricalParameter) and parameter.bundles):
            set_key(data, name, value)
    data["seed"] = seed
    return RunConfig.model_validate(data)


def _ordered(parameters: Mapping[str, AnyParameter]) -> dict[str, AnyParameter]:
    """Sort stably so that every parameter follows its conditions.

    Raises:
        ValueError: a condition names no parameter, or conditions go in a circle.
    """
    ordered: dict[str, AnyParameter] = {}
    waiting = dict(parameters)
    while waiting:
        ready = [name for name, p in waiting.items() if set(p.when) <= set(ordered)]
        if not ready:
            raise ValueError(f"conditions cannot be met: {', '.join(waiting)}")
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered


def _row(parameter: AnyParameter) -> dict[str, str]:
    if isinstance(parameter, CategoricalParameter):
        values, scale = ", ".join(str(value) for value in parameter.values), ""
    else:
        step = f" step {parameter.step}" if parameter.step not in (None, 1) else ""
        values = f"{parameter.low} .. {parameter.high}{step}"
        scale = "log" if parameter.log else "linear"
    when = " and ".join(
        f"{other} in {{{', '.join(map(str, wanted))}}}" for other, wanted in parameter.when.items()
    )
    kind = str(parameter.type)
    return {
        "name": parameter.name,
        "kind": kind,
        "values": values,
        "scale": scale,
        "when": when,
    }
