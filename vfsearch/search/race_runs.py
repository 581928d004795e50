"""The seed runs of a race: what they are, on which workers they run, what is kept of them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from vfsearch.config import RunConfig, home
from vfsearch.errors import SweepError, TrainingDiverged
from vfsearch.search.cluster import connected
from vfsearch.search.comparable import bind
from vfsearch.search.definition import SweepConfig, race_seed, seeds_of_trial
from vfsearch.search.mailbox import Finished
from vfsearch.search.race_record import SeedRun, read_seed, write_seed
from vfsearch.search.records import EVALUATION
from vfsearch.search.resources import shape_of
from vfsearch.search.single import follow, order_for
from vfsearch.search.space import SearchSpace, resolve
from vfsearch.search.sweep import Mode, connecting, trial_folder
from vfsearch.search.tracks import Tracked
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import find_run, with_log10
from vfsearch.tracking.sync import sync
from vfsearch.tracking.trial_log import spool_root

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One seed of one finalist."""

    number: int
    index: int
    config: RunConfig
    params: dict[str, Any]
    """What the sweep searches, of this trial."""
    out: Path

    @property
    def name(self) -> str:
        """Name of its MLflow run."""
        return f"t{self.number:03d}-s{self.index}"

    @property
    def checkpoint(self) -> Path:
        """Its best model."""
        return self.out / "checkpoints" / "best"


def plan(
    study: optuna.Study, config: SweepConfig, entered: list[int], seeds: int
) -> tuple[Leg, ...]:
    """What must be run: every finalist as its trial was, but with fresh seeds."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    root = config.sampler.seed
    used = {seed for number in trials for seed in seeds_of_trial(config, number)}
    space, legs = SearchSpace(config), []
    for number in entered:
        params = space.active(trials[number].params)
        taken = set(used)
        for index in range(seeds):
            taken.add(seed := race_seed(root, number, index, taken))
            legs.append(
                Leg(
                    number=number,
                    index=index,
                    config=resolve(config, params, seed),
                    params=params,
                    out=trial_folder(config.name, number) / "seeds" / f"s{index}",
                )
            )
    return tuple(legs)


def run_seeds(
    study: optuna.Study,
    config: SweepConfig,
    legs: tuple[Leg, ...],
    *,
    progress: Progress,
    mode: Mode,
) -> None:
    """Run the legs that have not ended, and note each in the study.

    Raises:
        SweepError: a run failed otherwise than by divergence.
        TrackingError: the tracking server cannot be reached.
    """
    waiting = [leg for leg in legs if read_seed(study, leg.number, leg.index) is None]
    if not waiting and not config.base.tracking.enabled:
        return
    with connecting(config.base.tracking) as server:
        if waiting:
            _run(study, config, waiting, server, progress, mode)
        connection = server.result()
    if connection is not None:
        _find_runs(study, config, legs, connection)


def _run(
    study: optuna.Study,
    config: SweepConfig,
    legs: list[Leg],
    server: "Future[Connection | None]",
    progress: Progress,
    mode: Mode,
) -> None:
    with ExitStack() as stack:
        nodes = stack.enter_context(connected(mode.address))
        storage = Path(stack.enter_context(TemporaryDirectory(prefix="vfsearch-race-")))
        from vfsearch.search.group import WorkerGroup  # imports ray, which `connected` has set up

        connection = server.result()
        group: WorkerGroup | None = None
        try:
            for leg in legs:
                shape = shape_of(leg.config.workers, nodes)
                if group is not None and group.shape != shape:
                    group.close()
                    group = None
                group = group or WorkerGroup(shape, storage=storage)
                progress(f"{leg.name}: starting")
                order = order_for(
                    leg.config,
                    leg.out,
                    number=leg.number,
                    performer=mode.performer,
                    tracked=None if connection is None else _tracked(connection, config, leg),
                )
                group.assign(order, max_retries=leg.config.workers.max_retries)
                finished = follow(
                    group,
                    leg.config.workers.report_timeout,
                    _telling(leg, progress),
                )
                _note(study, leg, finished)
        finally:
            if group is not None:
                group.close()


def _telling(leg: Leg, progress: Progress) -> Callable[[int, Mapping[str, float]], None]:
    return lambda epoch, _: progress(f"{leg.name}: epoch {epoch}")


def _note(study: optuna.Study, leg: Leg, finished: Finished) -> None:
    run = SeedRun(
        number=leg.number, index=leg.index, seed=leg.config.seed, retries=finished.retries
    )
    if finished.kind == "completed":
        if (evaluation := finished.summary.get(EVALUATION)) is not None:
            bind(study, evaluation, leg.name)
        found = {key: int(finished.summary[key]) for key in ("epoch", "best_epoch")}
        run = run.model_copy(update=found)
    elif (finished.reason or "").startswith(TrainingDiverged.__name__):
        run = run.model_copy(update={"failure": finished.reason})  # it would diverge again
    else:
        raise SweepError(f"{leg.out}: the training failed: {finished.reason}")
    write_seed(study, run)


def _tracked(connection: Connection, config: SweepConfig, leg: Leg) -> Tracked:
    scaled = {name for name, spec in config.parameters.items() if getattr(spec, "log", False)}
    return Tracked(
        connection=connection,
        key=RunKey(sweep=config.name, trial=leg.number, seed=leg.index),
        spool=spool_root(home(), connection.experiment),
        params=with_log10(leg.params, scaled),
    )


def _find_runs(
    study: optuna.Study, config: SweepConfig, legs: tuple[Leg, ...], connection: Connection
) -> None:
    """Send what the workers left, and note the runs' ids where they are not known."""
    sync(spool_root(home(), connection.experiment), connection, sweep=config.name)
    for leg in legs:
        run = read_seed(study, leg.number, leg.index)
        if run is not None and run.run_id is None:
            key = RunKey(sweep=config.name, trial=leg.number, seed=leg.index)
            write_seed(study, run.model_copy(update={"run_id": find_run(connection, key)}))
