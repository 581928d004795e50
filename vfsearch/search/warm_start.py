"""Learning from earlier searches: their completed trials, as far as the spaces overlap."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from vfsearch.config import flat
from vfsearch.errors import SweepError
from vfsearch.search.comparable import bind
from vfsearch.search.definition import SweepConfig, WarmStart
from vfsearch.search.records import EVALUATION, SWEEP, WARM_START
from vfsearch.search.space import Point, SearchSpace, resolve
from vfsearch.search.storage import open_storage, study_url
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.logged import logged_definition, logged_trials


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A completed trial of an earlier search."""

    source: str
    """Unique name of the trial: search and number."""
    params: dict[str, Any]
    """What was searched there."""
    values: dict[str, float]
    """Metrics at its selected epoch."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted settings of its run, if known: they fill parameters that it did not search."""
    evaluation: str | None = None
    """By which evaluation it was measured (see `comparable`); None: a study of another program."""


FromMlflow = Callable[[str], Iterable[PastTrial]]


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What a warm start gave."""

    added: int
    outside: int
    """Trials with a parameter missing or out of range, or that violate a constraint."""
    unmeasured: int
    """Trials without a finite value of every objective."""


def past_trials(source: WarmStart, mlflow: FromMlflow | None) -> list[PastTrial]:
    """Read an earlier search.

    Raises:
        SweepError: it cannot be found or read.
    """
    if source.mlflow is not None:
        if mlflow is None:
            raise SweepError(f"warm_start: mlflow: {source.mlflow} needs tracking to be enabled")
        return list(mlflow(source.mlflow))
    name = source.sweep or source.study or ""
    storage = open_storage(study_url(name, source.url), create=False)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        return from_study(study)
    except KeyError:
        raise SweepError(f"warm_start: there is no study {name} in its database") from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def from_study(study: optuna.Study) -> list[PastTrial]:
    """Return the completed trials of a study, of a sweep or of anyone's."""
    stored = study.user_attrs.get(SWEEP)
    config = None if stored is None else SweepConfig.model_validate(stored)
    names = study.metric_names or [f"objective {i}" for i in range(len(study.directions))]
    return [
        PastTrial(
            source=f"{study.study_name}/{trial.number}",
            params=trial.params,
            values=dict(zip(names, trial.values, strict=True)),
            settings={} if config is None else flat(resolve(config, trial.params, seed=0)),
            evaluation=trial.user_attrs.get(EVALUATION),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if WARM_START not in trial.user_attrs
    ]


def from_mlflow(connection: Connection, sweep: str) -> list[PastTrial]:
    """Return the completed trials of a sweep that MLflow and S3 keep.

    Raises:
        SweepError: its definition is of another version of vfsearch.
        TrackingError: there is no such sweep, or a server is away.
    """
    try:
        config = SweepConfig.model_validate(logged_definition(connection, sweep))
    except ValidationError as error:
        raise SweepError(
            f"warm_start: the definition of sweep {sweep} in MLflow cannot be read: "
            f"{error.error_count()} problems, the first: {error.errors()[0]['msg']}"
        ) from None
    found = []
    for trial in logged_trials(connection, sweep):
        params = {
            name: value
            for name, parameter in config.parameters.items()
            if name in trial.params
            and (value := _read(parameter.distribution(), trial.params[name])) is not None
        }
        found.append(
            PastTrial(
                source=f"{connection.experiment}/{sweep}/{trial.number}",
                params=params,
                values=trial.best,
                settings=flat(resolve(config, params, seed=0)),
                evaluation=trial.evaluation,
            )
        )
    return found


def _read(distribution: BaseDistribution, text: str) -> Any:
    """A parameter's value from MLflow's text; None if it is none of the distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return next((choice for choice in distribution.choices if str(choice) == text), None)
    try:
        return int(text) if isinstance(distribution, IntDistribution) else float(text)
    except ValueError:
        return None


def adopt(study: optuna.Study, space: SearchSpace, past: Iterable[PastTrial]) -> Adopted:
    """Add what fits as completed, marked trials; those that are there already stay alone.

    Raises:
        IncomparableError: they were measured otherwise than the trials of this study.
    """
    known = {trial.user_attrs.get(WARM_START) for trial in study.get_trials(deepcopy=False)}
    metrics = [objective.metric for objective in space.config.objectives]
    added = outside = unmeasured = 0
    for trial in past:
        values = [trial.values.get(metric, math.nan) for metric in metrics]
        point = _fitting(space, trial)
        if not all(math.isfinite(value) for value in values):
            unmeasured += 1
        elif point is None:
            outside += 1
        elif trial.source not in known:
            if trial.evaluation is not None:
                bind(study, trial.evaluation, f"warm_start: {trial.source}")
            study.add_trial(_as_trial(space, point, values, trial.source))
            added += 1
    return Adopted(added=added, outside=outside, unmeasured=unmeasured)


def _fitting(space: SearchSpace, trial: PastTrial) -> Point | None:
    point: Point = {}
    for name, parameter in space.parameters.items():
        if not parameter.active(point):
            continue
        value = trial.params.get(name, trial.settings.get(name))
        if not parameter.contains(value):
            return None
        point[name] = value
    return point if space.feasible(point) else None


def _as_trial(space: SearchSpace, point: Point, values: list[float], source: str) -> FrozenTrial:
    distributions = space.distributions()
    return create_trial(
        params=point,
        distributions={name: distributions[name] for name in point},
        values=values,
        user_attrs={WARM_START: source},
    )
