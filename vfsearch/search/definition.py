"""What a sweep is: its base run, parameters, objectives, sampler, pruner and budget."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, model_validator

from vfsearch.config import Count, Positive, RunConfig, Section, Whole
from vfsearch.search.budget import Budget
from vfsearch.search.constraints import Constraint, parse_constraint
from vfsearch.search.parameters import AnyParameter, run_keys
from vfsearch.search.pruners import AnyPruner, NoPruner


class Objective(Section):
    """A metric to optimise."""

    metric: str
    """Metric as logged per epoch, like ``val/match_v2f_1to2``."""
    direction: Literal["maximize", "minimize"]
    """Which way is better."""


class Sampling(Section):
    """What every sampler has."""

    seed: Whole = 0
    """Seed of the sweep: of the sampler and, by trial number, of every trial."""


class Tpe(Sampling):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"]
    startup_trials: Count = 10
    """Random trials first."""
    candidates: Count = 24
    """Candidates per proposal."""
    multivariate: bool | None = None
    """Model parameters jointly; null: with one objective."""


class Gp(Sampling):
    """Gaussian process with log expected improvement."""

    name: Literal["gp"]
    startup_trials: Count = 10
    """Random trials first."""
    deterministic: bool = False
    """The objective has no noise."""


class CmaEs(Sampling):
    """Covariance matrix adaptation; one objective, numbers only."""

    name: Literal["cmaes"]
    startup_trials: Count = 1
    """Random trials first."""
    sigma: Positive | None = None
    """First step size; null: a sixth of the narrowest range."""
    population: Annotated[int, Field(ge=4)] | None = None
    """Population, at least 4 (fewer leave nothing to recombine); null: 4 + floor(3 ln d)."""


class Nsga2(Sampling):
    """Elitist genetic algorithm for several objectives (Deb et al., 2002)."""

    name: Literal["nsga2"]
    population: Annotated[int, Field(ge=2)] = 50
    """Trials per generation."""
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Probability of a crossover."""


class Random(Sampling):
    """Independent uniform draws."""

    name: Literal["random"]


class Grid(Sampling):
    """Every combination once, in a seeded random order; conditions respected."""

    name: Literal["grid"]
    points: Annotated[int, Field(ge=2)] = 5
    """Values per real parameter without a step, ends included."""


class Qmc(Sampling):
    """A scrambled low-discrepancy sequence."""

    name: Literal["qmc"]
    sequence: Literal["sobol", "halton"] = "sobol"
    """Which."""


AnySampler = Annotated[Tpe | Gp | CmaEs | Nsga2 | Random | Grid | Qmc, Discriminator("name")]


class WarmStart(Section):
    """Trials of an earlier search to learn from; exactly one of sweep, study and mlflow."""

    sweep: str | None = None
    """Sweep of this machine, by name."""
    study: str | None = None
    """Name of an Optuna study in the database ``url``."""
    url: str | None = None
    """Database of ``study``."""
    mlflow: str | None = None
    """Sweep in MLflow, by name."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(name is not None for name in (self.sweep, self.study, self.mlflow)) != 1:
            raise ValueError("exactly one of sweep, study and mlflow must be given")
        if (self.study is None) != (self.url is None):
            raise ValueError("study and url must be given together")
        return self


def _parsed(text: str) -> str:
    parse_constraint(text)
    return text


def _storage(text: str) -> str:
    if not re.match(r"(sqlite|postgresql(\+psycopg)?)://", text):
        raise ValueError("storage must be a URL like sqlite:///FILE or postgresql://HOST/DATABASE")
    return text


class SweepConfig(Section):
    """One sweep, as in ``search_spaces/*.yaml``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    """Name of the study, the parent run and the folder."""
    description: str = ""
    """One sentence for the report."""
    base: RunConfig
    """The run that every trial starts from (in a file: inline, or a ``config:`` to read)."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Dotted settings that differ from the base in every trial."""
    parameters: Annotated[dict[str, AnyParameter], Field(min_length=1)]
    """What is searched, by dotted setting (or by a free name for bundles)."""
    constraints: tuple[Annotated[str, AfterValidator(_parsed)], ...] = ()
    """Linear inequalities on settings and metrics."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    """What is optimised; the first one prunes and selects checkpoints."""
    sampler: AnySampler = Tpe(name="tpe")
    """Who proposes."""
    pruner: AnyPruner = NoPruner(name="none")
    """Who stops trials early."""
    budget: Budget
    """When to stop."""
    trial_seeds: Literal["per_trial", "same"] = "per_trial"
    """Seeds of its own for every trial, or the same for all."""
    seeds_per_trial: Count = 1
    """Runs of every trial, one after the other; its value is their mean (see ``search/seeds``)."""
    start: tuple[dict[str, Any], ...] = ()
    """Points to try first; what they leave out is sampled."""
    warm_start: tuple[WarmStart, ...] = ()
    """Earlier searches to learn from."""
    concurrency: Count | Literal["auto"] = "auto"
    """Trials at once; ``auto``: what fits the machine or cluster."""
    pack: Count = 1
    """Trials that train together in one process, on ``corpus.features``, where they differ only in
    scalars; each ends as it would alone. 1: every trial by itself."""
    storage: Annotated[str, AfterValidator(_storage)] | None = None
    """Database of the study; null: SQLite in the sweep's folder under the vfsearch home."""

    @model_validator(mode="before")
    @classmethod
    def _name_parameters(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("parameters"), dict):
            return data
        named = {
            key: {**spec, "name": key} if isinstance(spec, dict) else spec
            for key, spec in data["parameters"].items()
        }
        return {**data, "parameters": named}

    @model_validator(mode="after")
    def _fit(self) -> Self:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"objectives name a metric twice: {', '.join(metrics)}")
        if len(metrics) > 1 and isinstance(self.sampler, CmaEs):
            raise ValueError(
                f"cmaes optimises one objective, but there are {len(metrics)}; nsga2, tpe or gp do"
            )
        if isinstance(self.sampler, CmaEs) and self.metric_constraints:
            raise ValueError("cmaes cannot learn constraints on metrics; tpe, gp and nsga2 do")
        if len(metrics) > 1 and self.budget.stop_when_improvement_below is not None:
            raise ValueError("stop_when_improvement_below needs a single objective")
        return self

    @property
    def setting_constraints(self) -> tuple[Constraint, ...]:
        """Constraints on settings alone: enforced before a trial is run."""
        return tuple(c for c in self._constraints() if not _on_metrics(c))

    @property
    def metric_constraints(self) -> tuple[Constraint, ...]:
        """Constraints that need a trial's metrics: the sampler learns them."""
        return tuple(c for c in self._constraints() if _on_metrics(c))

    def _constraints(self) -> tuple[Constraint, ...]:
        return tuple(parse_constraint(text) for text in self.constraints)


def _on_metrics(constraint: Constraint) -> bool:
    return bool(set(constraint.names) - set(run_keys()))


def derived_seed(seed: int, number: int, purpose: Literal["trial", "sampler", "space"]) -> int:
    """Return a 31-bit seed for one trial and one purpose, the same on every machine."""
    stream = ("trial", "sampler", "space").index(purpose)
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0] >> 1)


def seeds_of_trial(config: SweepConfig, number: int) -> tuple[int, ...]:
    """Return the different 31-bit seeds of a trial's runs."""
    root, number = config.sampler.seed, 0 if config.trial_seeds == "same" else number
    found = [derived_seed(root, number, "trial")]
    count = config.seeds_per_trial
    words = np.random.SeedSequence([root, 4, number]).generate_state(2 * count)
    found += [int(word >> 1) for word in words if int(word >> 1) not in found]
    return tuple(dict.fromkeys(found))[:count]


def race_seed(seed: int, number: int, index: int, taken: Collection[int]) -> int:
    """Return the 31-bit seed of one fresh run of a trial; none of ``taken``."""
    words = np.random.SeedSequence([seed, 3, number, index]).generate_state(len(taken) + 1)
    return next(int(word >> 1) for word in words if int(word >> 1) not in taken)
