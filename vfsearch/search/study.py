"""Opening the durable study of a sweep: one driver, one definition, one database."""

import warnings

import optuna
from optuna.storages import RDBStorage

from vfsearch.errors import SweepError
from vfsearch.search import records
from vfsearch.search.definition import SweepConfig
from vfsearch.search.driver import DriverLock
from vfsearch.search.identity import changes, definition
from vfsearch.search.records import Asked, Ended, Verdict
from vfsearch.search.storage import open_storage, remember_url, study_url
from vfsearch.search.sweep_study import SweepStudy
from vfsearch.search.warm_start import FromMlflow, adopt, past_trials

__all__ = ["Asked", "Ended", "SweepStudy", "Verdict", "open_study", "read_sweep"]


def open_study(
    config: SweepConfig, *, create: bool, resume: bool, mlflow: FromMlflow | None = None
) -> SweepStudy:
    """Create or open the study of a sweep, take its driver's lock, queue points and warm start.

    Args:
        config: The sweep.
        create: Make the study if there is none.
        resume: Continue one that exists.
        mlflow: Reads the trials of a sweep in MLflow, for ``warm_start: {mlflow: ...}``.

    Raises:
        SweepError: it exists and ``resume`` is off, it does not exist and ``create`` is off, the
            space has changed, another driver runs it, or the database cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # one line per trial is the table's job
    storage = open_storage(study_url(config.name, config.storage), create=create)
    lock = None
    try:
        exists = config.name in optuna.get_all_study_names(storage)
        if not exists and not create:
            raise SweepError(f"there is no sweep {config.name} to resume")
        lock = DriverLock(storage.engine, config.name)
        study = _study(config, storage, resume=resume)
        if config.storage is not None:
            remember_url(config.name, study_url(config.name, config.storage))
        sweep = SweepStudy(config, study, storage, lock)
        for source in config.warm_start:
            adopt(study, sweep.space, past_trials(source, mlflow))
        queued = [trial.user_attrs.get(records.START) for trial in study.get_trials(deepcopy=False)]
        for point in config.start:
            if point not in queued:
                study.enqueue_trial(point, user_attrs={records.START: point})
        # The rows of all trials, which every later commit would go through.
        storage.remove_session()
        return sweep
    except BaseException:
        if lock is not None:
            lock.release()
        storage.engine.dispose()
        raise


def read_sweep(name: str, storage: str | None = None) -> tuple[SweepConfig, optuna.Study]:
    """Open a sweep for reading only: its definition and its study, without the driver's lock.

    Raises:
        SweepError: there is none.
    """
    opened = open_storage(study_url(name, storage), create=False, pooled=False)
    try:
        study = optuna.load_study(study_name=name, storage=opened)
        return SweepConfig.model_validate(study.user_attrs[records.SWEEP]), study
    except KeyError:
        raise SweepError(f"there is no sweep {name} in its database") from None


def _study(config: SweepConfig, storage: RDBStorage, *, resume: bool) -> optuna.Study:
    """Create the study, or open it if it may be continued; the lock is held."""
    study = optuna.create_study(
        study_name=config.name,
        storage=storage,
        directions=[objective.direction for objective in config.objectives],
        pruner=optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    stored = study.user_attrs.get(records.SWEEP)
    if stored is None and study.get_trials(deepcopy=False):
        raise SweepError(f"{config.name} is a study of another program; choose another --name")
    if stored is not None:
        if not resume:
            raise SweepError(
                f"sweep {config.name} exists already; continue it with --resume or choose "
                "another --name"
            )
        changed = changes(SweepConfig.model_validate(stored), config)
        if changed:
            raise SweepError(
                f"sweep {config.name} cannot be continued, for its definition has changed "
                f"({'; '.join(changed)}); undo that or choose another --name"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 'experimental' since 2022
        study.set_metric_names([objective.metric for objective in config.objectives])
    study.set_user_attr(records.SWEEP, definition(config))
    return study
