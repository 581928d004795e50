"""A sweep: Ray Tune executes, the study decides, and nothing is left behind."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfsearch.config import RunConfig, TrackingConfig, home
from vfsearch.search.cluster import connected
from vfsearch.search.comparable import IncomparableError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.ledger import Ledger, Watcher
from vfsearch.search.mailbox import TRAINING, Order
from vfsearch.search.race_record import report_extras
from vfsearch.search.records import Asked
from vfsearch.search.report import write_report
from vfsearch.search.resources import GroupShape, shape_of, slots
from vfsearch.search.study import open_study
from vfsearch.search.sweep_study import SweepStudy
from vfsearch.search.tracks import SweepTracks
from vfsearch.search.tuning import run_tune, tune_config
from vfsearch.search.warm_start import FromMlflow, from_mlflow
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.runs import RunKey, Status


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How a driver's part of a sweep ended."""

    name: str
    folder: Path
    stop_reason: str
    """Why no further trial was asked."""
    run_id: str | None
    """MLflow run of the sweep; None without tracking, or while its server is away."""
    unsent: tuple[str, ...]
    """Runs of which not everything could be sent yet (``vfsearch sync`` does it later)."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How the sweep is executed; the same results whatever it is."""

    address: str | None = None
    """Ray cluster; None: ``RAY_ADDRESS``, else this machine."""
    warm: bool = True
    """Keep the workers between trials."""
    performer: str = TRAINING
    """Who performs trials in the workers, as ``module:class``."""


def sweep_folder(name: str) -> Path:
    """Folder of a sweep: its study and its trials' checkpoints."""
    return home() / "sweeps" / name


def trial_folder(name: str, number: int) -> Path:
    """Folder of a trial: checkpoints, resolved configuration, figure."""
    return sweep_folder(name) / "trials" / RunKey(sweep=name, trial=number).name


def run_sweep(
    config: SweepConfig, *, resume: bool, watcher: Watcher, mode: Mode | None = None
) -> SweepOutcome:
    """Run a sweep to the end of its budget.

    Args:
        config: The sweep.
        resume: Continue the sweep of this name: trials that ended stay, those that were running
            go on from their last checkpoint.
        watcher: Is told about the progress, from this thread.
        mode: How; default: warm trials on ``RAY_ADDRESS`` or this machine.

    Raises:
        SweepError: it can never fit the cluster, exists already, or is being run elsewhere.
        TrackingError: the tracking server cannot be reached at the start.
        KeyboardInterrupt: after an orderly stop; ``resume`` continues it.
    """
    mode = mode or Mode()
    folder = sweep_folder(config.name)
    with open_study(config, create=True, resume=resume, mlflow=_past(config)) as study:
        tracks: SweepTracks | None = None
        status: Status = "FAILED"
        unsent: tuple[str, ...] = ()
        try:
            with connecting(config.base.tracking) as server, connected(mode.address) as nodes:
                shape = shape_of(config.base.workers, nodes)
                connection = server.result()
                if connection is not None:
                    running = [asked.number for asked in study.running()]
                    tracks = SweepTracks(connection, config, running)
                    tracks.log_definition(folder)
                ledger = _ledger(study, shape, nodes, tracks, watcher, mode)
                retries = config.base.workers.max_retries
                run_tune(ledger, folder, warm=mode.warm, max_retries=retries)
            ledger.settle()
            status = "KILLED" if ledger.interrupted else "FINISHED"
            if status == "FINISHED":
                page = write_report(study.study, folder / "report.html", report_extras(study.study))
                if tracks is not None:
                    tracks.log_report(page)
        except BaseException as error:
            if tracks is not None and isinstance(error, IncomparableError):
                tracks.incomparable(error.number, str(error))
            study.discard_unused()
            raise
        finally:
            # Ray is gone, and with it every worker: what they left behind can be sent.
            if tracks is not None:
                unsent = tracks.close(status)
    if ledger.interrupted:
        raise KeyboardInterrupt
    return SweepOutcome(
        name=config.name,
        folder=folder,
        stop_reason=ledger.stop_reason or "no trial was left",
        run_id=None if tracks is None else tracks.sweep_run_id,
        unsent=unsent,
    )


def _ledger(
    study: SweepStudy,
    shape: GroupShape,
    nodes: list[dict[str, float]],
    tracks: SweepTracks | None,
    watcher: Watcher,
    mode: Mode,
) -> Ledger:
    config = study.config
    return Ledger(
        study=study,
        slots=slots(shape, nodes, config.concurrency),
        gpus=shape.workers * shape.gpus,
        dispatch=lambda asked: _dispatch(config.name, asked, nodes, mode, tracks),
        facts=lambda number: {} if tracks is None else tracks.facts(number),
        watcher=watcher,
    )


def _dispatch(
    sweep: str, asked: Asked, nodes: list[dict[str, float]], mode: Mode, tracks: SweepTracks | None
) -> dict[str, Any]:
    tracked = {} if tracks is None else {"tracked": tracks.trial(asked).to_json()}
    order = Order(
        number=asked.number,
        config=absolute(asked.config).model_dump(mode="json"),
        out=str(trial_folder(sweep, asked.number)),
        performer=mode.performer,
        extra={"seeds": list(asked.seeds), **tracked},
    )
    return tune_config(order, shape_of(asked.config.workers, nodes), sweep_folder(sweep))


def _past(config: SweepConfig) -> FromMlflow | None:
    """How a warm start reads sweeps in MLflow; None without tracking."""
    tracking = config.base.tracking
    return (lambda name: from_mlflow(connect(tracking), name)) if tracking.enabled else None


def absolute(config: RunConfig) -> RunConfig:
    """Make the corpus folder absolute: workers may start in another directory."""
    corpus = config.corpus.model_copy(update={"root": config.corpus.root.absolute()})
    if corpus.store is not None:
        corpus = corpus.model_copy(update={"store": corpus.store.absolute()})
    return config.model_copy(update={"corpus": corpus})


@contextmanager
def connecting(config: TrackingConfig) -> Iterator["Future[Connection | None]"]:
    """Reach the tracking server while something else starts; importing MLflow takes seconds."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="connect") as pool:
        yield pool.submit(connect, config) if config.enabled else pool.submit(lambda: None)
