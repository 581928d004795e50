"""What a sweep's parts must mean to each other; problems are yielded with the place of each."""

from collections.abc import Collection, Iterator
from importlib.util import find_spec
from math import prod

from pydantic import ValidationError

from vfsearch.config import RunConfig, flat, set_key
from vfsearch.errors import SweepError
from vfsearch.evaluation.names import validation_keys
from vfsearch.search.definition import CmaEs, Grid, SweepConfig
from vfsearch.search.parameters import AnyParameter, CategoricalParameter, nearest, run_keys
from vfsearch.search.space import SearchSpace, resolve

LARGEST_GRID = 100_000
_TIMED = ("evaluation", "step", "data", "bound", "checkpoint")
TIMES = tuple(f"time/{what}_seconds" for what in _TIMED)
"""What the loop logs of each epoch's time."""

Place = tuple[str | int, ...]
Problem = tuple[Place, str]


def problems_of(config: SweepConfig, broken: Collection[str] = ()) -> Iterator[Problem]:
    """Yield every problem between the parts; those that need a sound space come last.

    Args:
        config: The sweep.
        broken: Parameters whose ranges only stand in for wrong ones: these are not judged.
    """
    found = [
        *_unknown_settings(config),
        *_conditions(config, broken),
        *_clashes(config),
        *_metrics(config),
        *_constraints(config),
        *_start(config, broken),
    ]
    yield from found
    wrong = {place[1] for place, _ in found if place[0] in ("parameters", "fixed")}
    values = [*_values(config, wrong | set(broken))]
    yield from values
    if not found and not values and not broken:
        yield from _reachable(config)


def _unknown_settings(config: SweepConfig) -> Iterator[Problem]:
    known = run_keys()
    for name, parameter in config.parameters.items():
        bundles = parameter.bundles if isinstance(parameter, CategoricalParameter) else {}
        if name not in known and not bundles:
            yield ("parameters", name), f"{name} is no setting of a run{nearest(name, known)}"
        if name in known and bundles:
            yield ("parameters", name), f"{name} is a setting, so it cannot name bundles of them"
        for choice, settings in bundles.items():
            for key in settings:
                if key not in known:
                    place = ("parameters", name, "choices", choice, key)
                    yield place, f"{key} is no setting of a run{nearest(key, known)}"
    for key in config.fixed:
        if key not in known:
            yield ("fixed", key), f"{key} is no setting of a run{nearest(key, known)}"
    for key in ("seed", "evaluation.select"):
        if key in config.parameters:
            yield ("parameters", key), f"{key} is set by the sweep itself and cannot be searched"


def _conditions(config: SweepConfig, broken: Collection[str]) -> Iterator[Problem]:
    for name, parameter in config.parameters.items():
        for other, wanted in parameter.when.items():
            if other in broken:
                continue
            place = ("parameters", name, "when", other)
            parent = config.parameters.get(other)
            if parent is None or other == name:
                hint = nearest(other, set(config.parameters) - {name})
                yield place, f"{name} depends on {other}, which is no other parameter{hint}"
            elif not isinstance(parent, CategoricalParameter):
                yield place, f"{name} depends on {other}, which must be categorical for that"
            else:
                for value in wanted:
                    if not parent.contains(value):
                        choices = ", ".join(map(str, parent.values))
                        yield place, f"{value!r} is no choice of {other}: {choices}"
    yield from _circles(config)


def _circles(config: SweepConfig) -> Iterator[Problem]:
    settled: set[str] = set()
    while True:
        more = {
            name
            for name, p in config.parameters.items()
            if name not in settled and (set(p.when) & set(config.parameters)) <= settled
        }
        if not more:
            break
        settled |= more
    for name in config.parameters:
        if name not in settled and name not in config.parameters[name].when:
            yield ("parameters", name), f"{name} depends on itself through the conditions of others"


def _clashes(config: SweepConfig) -> Iterator[Problem]:
    for key in config.fixed:
        if key in config.parameters:
            yield ("fixed", key), f"{key} is searched in parameters, so it cannot be fixed"
    owner: dict[str, str] = {}
    for name, parameter in config.parameters.items():
        bundles = parameter.bundles if isinstance(parameter, CategoricalParameter) else {}
        for key in dict.fromkeys(key for settings in bundles.values() for key in settings):
            if key in owner:
                yield ("parameters", name), f"{key} is set by the bundles of {owner[key]} as well"
            owner[key] = name


def _metrics(config: SweepConfig) -> Iterator[Problem]:
    """Objectives and the target must be metrics of the validation split."""
    if any(name.startswith("evaluation.") for name in (*config.parameters, *config.fixed)):
        return
    known = validation_keys(config.base.evaluation)
    named: list[tuple[Place, str]] = [
        (("objectives", i, "metric"), o.metric) for i, o in enumerate(config.objectives)
    ]
    if config.budget.target is not None:
        named.append((("budget", "target", "metric"), config.budget.target.metric))
    for place, metric in named:
        if metric.startswith("val/") and metric not in known:
            yield place, f"{metric} is no metric of base.evaluation{nearest(metric, known)}"
        elif "/" not in metric:
            yield place, f"{metric} is no metric{nearest(metric, known)}"


def _constraints(config: SweepConfig) -> Iterator[Problem]:
    known = run_keys()
    metrics = (*TIMES, *validation_keys(config.base.evaluation))
    settings = flat(config.base)
    for constraint in (*config.setting_constraints, *config.metric_constraints):
        place = ("constraints", config.constraints.index(constraint.text))
        if not constraint.names:
            yield place, f"{constraint.text!r} names neither a setting nor a metric"
        for name in constraint.names:
            unknown = "/" not in name or name.startswith(("time/", "val/"))
            if name not in known and name not in metrics and unknown:
                hint = nearest(name, (*known, *metrics))
                yield place, f"{name} is neither a setting nor a metric (like {TIMES[0]}){hint}"
            elif not isinstance(settings.get(name), int | float | None):
                yield place, f"{name} is {settings[name]!r}, and only numbers can be compared"


def _start(config: SweepConfig, broken: Collection[str]) -> Iterator[Problem]:
    for index, point in enumerate(config.start):
        for name, value in point.items():
            place = ("start", index, name)
            parameter = config.parameters.get(name)
            if parameter is None:
                yield place, f"{name} is no parameter{nearest(name, config.parameters)}"
            elif name in broken:
                continue
            elif not parameter.contains(value):
                yield place, f"{value!r} is outside of {name}: {_range(parameter)}"
            elif not all(
                other not in point or any(point[other] == choice for choice in wanted)
                for other, wanted in parameter.when.items()
            ):
                yield place, f"{name} does not exist beside the other values of this point"


def _values(config: SweepConfig, wrong: Collection[str | int]) -> Iterator[Problem]:
    """Build a run with each fixed setting and each end, and keep the errors of that setting.

    Settings and parameters that are ``wrong`` already are left out.
    """
    for key, value in config.fixed.items():
        if key in wrong:
            continue
        for message in _complaints(config, {key: value}):
            yield ("fixed", key), f"{key}: {value!r} is wrong: {message}"
    for name, parameter in config.parameters.items():
        if name in wrong:
            continue
        if isinstance(parameter, CategoricalParameter) and parameter.bundles:
            for choice, settings in parameter.bundles.items():
                for message in _complaints(config, settings):
                    yield ("parameters", name, "choices", choice), f"{name}={choice}: {message}"
            continue
        for value in parameter.ends:
            for message in _complaints(config, {name: value}):
                yield ("parameters", name), f"{name} reaches {value!r}: {message}"


def _complaints(config: SweepConfig, settings: dict[str, object]) -> Iterator[str]:
    data = config.base.model_dump()
    for key, value in settings.items():
        set_key(data, key, value)
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            message = entry["msg"].removeprefix("Value error, ")
            if ".".join(map(str, entry["loc"])).startswith(tuple(settings)):
                yield message[0].lower() + message[1:]
            elif len(settings) > 1:  # a bundle must be consistent as a whole
                yield message


def _reachable(config: SweepConfig) -> Iterator[Problem]:
    if isinstance(config.sampler, CmaEs) and find_spec("cmaes") is None:
        yield ("sampler",), "the sampler cmaes needs the package cmaes, which is not installed"
    space = SearchSpace(config)
    size = space.size()
    if isinstance(config.sampler, Grid):
        total = prod(len(p.grid(config.sampler.points)) for p in space.parameters.values())
        if total > LARGEST_GRID and (size is None or size > LARGEST_GRID):
            yield ("sampler",), f"a grid of {total} points is more than {LARGEST_GRID}"
    try:
        space.samples(1, config.sampler.seed)
    except SweepError as error:
        yield ("constraints",), str(error)
        return
    for index, point in enumerate(config.start):
        chosen = space.active(point)
        if len(chosen) == len(space.active({**space.samples(1, 0)[0], **point})):
            settings = flat(resolve(config, chosen, seed=0)) if space.feasible(chosen) else None
            if settings is None:
                yield ("start", index), "this point violates the constraints"


def _range(parameter: AnyParameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return ", ".join(map(str, parameter.values))
    return f"{parameter.low} .. {parameter.high}"
