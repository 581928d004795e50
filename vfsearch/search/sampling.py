"""Samplers: Optuna's own, made to propose whole points that satisfy the constraints.

A fresh sampler is made for every proposal, seeded by the sweep's seed and the trial's number. So a
resumed sweep proposes what an uninterrupted one would have, and never repeats its random points.
"""

import random
import warnings
from collections.abc import Sequence
from typing import Any

from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vfsearch.errors import SweepError
from vfsearch.search.definition import (
    CmaEs,
    Gp,
    Grid,
    Nsga2,
    Qmc,
    Sampling,
    SweepConfig,
    Tpe,
    derived_seed,
)
from vfsearch.search.records import GRID
from vfsearch.search.space import Point, SearchSpace

INNER_DRAWS = 20
RANDOM_DRAWS = 10_000


class FeasibleSampler(BaseSampler):
    """Draw whole points from another sampler until one satisfies the constraints on settings.

    Optuna has no constraints on parameters; telling infeasible points as failed trials would waste
    trial numbers and teach samplers that ignore failures nothing. After a few draws of the inner
    sampler (a model may insist on its optimum) the draws are uniform.
    """

    def __init__(self, space: SearchSpace, inner: BaseSampler, seed: int) -> None:
        self._space = space
        self._inner = inner
        self._random = samplers.RandomSampler(seed)

    def reseed_rng(self) -> None:
        """Reseed both samplers."""
        self._inner.reseed_rng()
        self._random.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space: points are drawn jointly."""
        del study, trial
        return self._space.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw one feasible point; values queued for the trial are kept.

        Raises:
            SweepError: none was found.
        """
        fixed = trial.system_attrs.get("fixed_params", {})
        last: Point | None = None
        for _ in range(INNER_DRAWS):
            point = self._draw(self._inner, study, trial, search_space, fixed)
            if self._space.feasible(point):
                return point
            if point == last:
                break
            last = point
        for _ in range(RANDOM_DRAWS):
            point = self._draw(self._random, study, trial, search_space, fixed)
            if self._space.feasible(point):
                return point
        rules = "; ".join(self._space.config.constraints) or "the settings' own rules"
        raise SweepError(
            f"{self._space.config.name}: none of {RANDOM_DRAWS} random points satisfies the "
            f"constraints ({rules}); last tried: {point}"
        )

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one parameter that the joint draw does not hold."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Let the inner sampler prepare."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the inner sampler learn."""
        self._inner.after_trial(study, trial, state, values)

    def _draw(
        self,
        sampler: BaseSampler,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        fixed: Point,
    ) -> Point:
        joint_space = sampler.infer_relative_search_space(study, trial)
        joint = sampler.sample_relative(study, trial, joint_space)
        point: Point = {}
        for name, parameter in self._space.parameters.items():
            if not parameter.active(point):
                continue
            if name in fixed:
                point[name] = fixed[name]
            elif name in joint and parameter.contains(joint[name]):
                point[name] = joint[name]
            else:
                point[name] = sampler.sample_independent(study, trial, name, space[name])
        return point


def build_sampler(config: SweepConfig, space: SearchSpace, number: int) -> FeasibleSampler:
    """Make the sampler that proposes trial ``number``."""
    seed = derived_seed(config.sampler.seed, number, "sampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that Optuna calls experimental
        inner = _optuna_sampler(config.sampler, space, seed)
    return FeasibleSampler(space, inner, derived_seed(config.sampler.seed, number, "space"))


def _optuna_sampler(options: Sampling, space: SearchSpace, seed: int) -> BaseSampler:
    match options:
        case Tpe():
            conditional = any(p.when for p in space.parameters.values())
            joint = (
                len(space.config.objectives) == 1
                if options.multivariate is None
                else options.multivariate
            )
            return samplers.TPESampler(
                n_startup_trials=options.startup_trials,
                n_ei_candidates=options.candidates,
                multivariate=joint,
                group=joint and conditional,
                constant_liar=True,
                seed=seed,
            )
        case Gp():
            return samplers.GPSampler(
                n_startup_trials=options.startup_trials,
                deterministic_objective=options.deterministic,
                warn_independent_sampling=False,
                seed=seed,
            )
        case CmaEs():
            return samplers.CmaEsSampler(
                n_startup_trials=options.startup_trials,
                sigma0=options.sigma,
                popsize=options.population,
                warn_independent_sampling=False,
                seed=seed,
            )
        case Nsga2():
            return samplers.NSGAIISampler(
                population_size=options.population, crossover_prob=options.crossover, seed=seed
            )
        case Qmc():
            # The sequence keeps the sweep's seed; the study counts the position in it.
            return samplers.QMCSampler(
                qmc_type=options.sequence,
                scramble=True,
                seed=derived_seed(options.seed, 0, "space"),
                independent_sampler=samplers.RandomSampler(seed),
                warn_independent_sampling=False,
            )
        case _:
            return samplers.RandomSampler(seed)


def queue_grid_point(study: Study, space: SearchSpace, options: Grid) -> bool:
    """Queue a point of the grid that no trial has had; False when there is none left.

    Optuna's own grid sampler takes the full product: it knows no conditions.
    """
    points = space.grid(options.points)
    trials = study.get_trials(deepcopy=False)
    taken = {trial.user_attrs.get(GRID) for trial in trials}
    tried = [space.active(trial.params) for trial in trials]
    for index in random.Random(options.seed).sample(range(len(points)), len(points)):
        if index not in taken and points[index] not in tried:
            study.enqueue_trial(points[index], user_attrs={GRID: index})
            return True
    return False
