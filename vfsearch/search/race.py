"""Racing for the finish: the best trials run again with fresh seeds, and are compared.

The best of many trials is best partly by luck. A race trains the finalists anew on the workers of a
single run (`single`), one after the other and warm; what has ended is in the study at once, so a
race that was killed goes on where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import TrialState

from vfsearch.errors import SweepError
from vfsearch.search.comparable import bind, check
from vfsearch.search.definition import SweepConfig
from vfsearch.search.driver import DriverLock
from vfsearch.search.finalists import Yardstick, measure_finalists
from vfsearch.search.race_record import RaceResult, Seeds, finalists_of, read_seed
from vfsearch.search.race_runs import Progress, plan, run_seeds
from vfsearch.search.storage import open_storage, study_url
from vfsearch.search.study import read_sweep
from vfsearch.search.sweep import Mode
from vfsearch.search.verdict import compare, decide


def race(
    name: str,
    *,
    top: int,
    seeds: int,
    bootstrap: int,
    progress: Progress,
    mode: Mode | None = None,
    storage: str | None = None,
) -> RaceResult:
    """Race the best trials of a sweep; a race that was interrupted is continued.

    Args:
        name: The sweep; no trial of it may be unfinished.
        top: Finalists: the best completed trials by the first objective.
        seeds: Fresh seeds per finalist, 2 or more.
        bootstrap: Draws of identities.
        progress: Is told what is done.
        mode: Cluster and performer; default: ``RAY_ADDRESS`` or this machine.
        storage: Database of the study; default: the sweep's folder.

    Raises:
        SweepError: no such sweep, it is not finished or is being run, too few finalists or seeds,
            or a run failed otherwise than by divergence (the next call repeats it).
        TrackingError: the tracking server cannot be reached.
    """
    if top < 2 or seeds < 2:
        raise SweepError(f"a race needs 2 finalists and 2 seeds or more, not {top} and {seeds}")
    with opened(name, storage) as (config, study):
        entered = finalists_of(study, config, top)
        if len(entered) < 2:
            raise SweepError(f"sweep {name} has {len(entered)} completed trials; a race needs two")
        yardstick = Yardstick(config)
        bind(study, yardstick.evaluation, "the race on this machine's validation split")
        legs = plan(study, config, entered, seeds)
        run_seeds(study, config, legs, progress=progress, mode=mode or Mode())
        ended = [read_seed(study, leg.number, leg.index) for leg in legs]
        out = {
            run.number: f"{run.name} diverged ({run.failure})"
            for run in ended
            if run is not None and run.failure is not None
        }
        remaining = {
            number: [leg.checkpoint for leg in legs if leg.number == number]
            for number in entered
            if number not in out
        }
        if len(remaining) < 2:
            raise SweepError(
                f"sweep {name}: fewer than two finalists are left ({'; '.join(out.values())}); "
                "race more with --top"
            )
        seed = config.base.evaluation.seed
        found = measure_finalists(
            yardstick, remaining, bootstrap=bootstrap, seed=seed, progress=progress
        )
        direction = config.objectives[0].direction
        standings, duels = compare(found, direction, seed=seed)
        result = RaceResult(
            metric=config.objectives[0].metric,
            direction=direction,
            top=top,
            seeds=seeds,
            bootstrap=bootstrap,
            entered=tuple(entered),
            finalists=tuple(Seeds(number=f.number, values=f.values) for f in found),
            standings=standings,
            duels=duels,
            decision=decide(standings, duels),
            out=tuple(out.values()),
        )
        result.write(study)
        return result


@contextmanager
def opened(name: str, storage: str | None) -> Iterator[tuple[SweepConfig, optuna.Study]]:
    """The study of a finished sweep, with its driver's lock: nobody else sweeps or races it.

    Raises:
        SweepError: there is none, it is being driven, trials of it are unfinished, or were not
            measured alike.
    """
    config, _ = read_sweep(name, storage)
    opened_storage = open_storage(study_url(name, storage), create=False)
    try:
        lock = DriverLock(opened_storage.engine, name)
        try:
            study = optuna.load_study(study_name=name, storage=opened_storage)
            check(study)
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if running:
                raise SweepError(
                    f"sweep {name} is not finished (trial {running[0].number} is running); "
                    "continue it with vfsearch sweep --resume first"
                )
            yield config, study
        finally:
            lock.release()
    finally:
        opened_storage.remove_session()
        opened_storage.engine.dispose()
