"""A sweep: Ray Tune executes, the study decides, and nothing is left behind."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna

from vfsearch.config import RunConfig, TrackingConfig, home
from vfsearch.search import records
from vfsearch.search.analysis import trials_table
from vfsearch.search.cluster import connected
from vfsearch.search.comparable import IncomparableError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.gauges import Gauges
from vfsearch.search.ledger import Ledger, Watcher
from vfsearch.search.leftovers import ends_of
from vfsearch.search.mailbox import TRAINING, Order
from vfsearch.search.pack_book import PackBook, members
from vfsearch.search.progress import PLACE, seconds_left
from vfsearch.search.race_record import report_extras
from vfsearch.search.records import Asked
from vfsearch.search.report import write_report
from vfsearch.search.resources import Packing, packing, shape_of
from vfsearch.search.snapshot import StudySnapshot, mirror_key, recovery_store, restore_study
from vfsearch.search.study import open_study
from vfsearch.search.tracks import SweepTracks
from vfsearch.search.tuning import run_tune, tune_config
from vfsearch.search.warm_start import FromMlflow, from_mlflow
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import Status


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

    announce: Callable[[Packing, float | None], None] = lambda _packing, _seconds: None
    """Told before the first trial how trials will be packed, and the seconds that they will take
    (None: no trial has ended yet, and ``budget.trial_hours`` is not declared)."""

    @property
    def on_cluster(self) -> bool:
        """Whether the nodes are others' machines too, which may be lost one by one."""
        address = self.address or os.environ.get("RAY_ADDRESS")
        return address not in (None, "local")


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
    with ExitStack() as stack:
        server = stack.enter_context(connecting(config.base.tracking))
        if resume and config.storage is None and not (folder / "study.db").exists():
            found = recovery_store(config, server.result(), on_cluster=mode.on_cluster)
            if found is not None:
                restore_study(folder / "study.db", found)
        study = stack.enter_context(
            open_study(config, create=True, resume=resume, mlflow=_past(config))
        )
        tracks: SweepTracks | None = None
        snapshot: StudySnapshot | None = None
        status: Status = "FAILED"
        unsent: tuple[str, ...] = ()
        elsewhere: tuple[str, ...] = ()
        try:
            with connected(mode.address) as nodes:
                shape = shape_of(config.base.workers, nodes)
                connection = server.result()
                recovery = recovery_store(config, connection, on_cluster=mode.on_cluster)
                if connection is not None:
                    running = [asked.number for asked in study.running()]
                    tracks = SweepTracks(connection, config, running)
                    tracks.log_definition(folder)
                if recovery is not None and config.storage is None:
                    watcher = snapshot = StudySnapshot(folder / "study.db", recovery, watcher)
                packed = packing(shape, nodes, config.concurrency)
                study.study.set_user_attr(PLACE, asdict(packed))
                mode.announce(packed, _estimate(study.study, packed))
                watcher = Gauges(config.name, config.objectives[0].metric, packed, watcher)
                dispatch = Dispatch(
                    sweep=config.name,
                    nodes=nodes,
                    mode=mode,
                    tracks=tracks,
                    recovery=recovery,
                    snapshot=snapshot,
                )
                ledger = Ledger(
                    study=study,
                    slots=packed.trials,
                    gpus=shape.workers * shape.gpus / (members(config) if recovery is None else 1),
                    dispatch=dispatch,
                    facts=lambda number: {} if tracks is None else tracks.facts(number),
                    watcher=watcher,
                )
                retries = config.base.workers.max_retries
                # Members of a pack have no mirror of their checkpoints.
                book = _packs(ledger, retries) if recovery is None else None
                run_tune(book or ledger, folder, warm=mode.warm, max_retries=retries)
                if mode.on_cluster and tracks is not None:
                    elsewhere = tracks.send_from_nodes(ends_of(study.study, config.name))
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
                unsent = tracks.close(status, elsewhere)
            if snapshot is not None:
                snapshot.close(finished=status == "FINISHED")
    if ledger.interrupted:
        raise KeyboardInterrupt
    return SweepOutcome(
        name=config.name,
        folder=folder,
        stop_reason=ledger.stop_reason or "no trial was left",
        run_id=None if tracks is None else tracks.sweep_run_id,
        unsent=unsent,
    )


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """Makes Tune's configuration of a trial: its order, and the workers that it needs."""

    sweep: str
    nodes: list[dict[str, float]]
    mode: Mode
    tracks: SweepTracks | None
    recovery: ArtifactStore | None
    """Where checkpoints are kept besides."""
    snapshot: StudySnapshot | None

    def __call__(self, asked: Asked) -> dict[str, Any]:
        """Build the order; its proposal is safe before it goes out."""
        if self.snapshot is not None:
            self.snapshot.proposed()
        extra: dict[str, Any] = {"seeds": list(asked.seeds)}
        if self.tracks is not None:
            extra["tracked"] = self.tracks.trial(asked).to_json()
        if self.recovery is not None:
            extra["recovery"] = f"{self.recovery.root}/{mirror_key(asked.number)}"
            extra["begun"] = asked.epoch > 0
        order = Order(
            number=asked.number,
            config=absolute(asked.config).model_dump(mode="json"),
            out=str(trial_folder(self.sweep, asked.number)),
            performer=self.mode.performer,
            extra=extra,
        )
        shape = shape_of(asked.config.workers, self.nodes)
        return tune_config(order, shape, sweep_folder(self.sweep))


def _estimate(study: optuna.Study, packed: Packing) -> float | None:
    """Seconds that the sweep will still take, by the trials that it has (when it is resumed)."""
    stored = SweepConfig.model_validate(study.user_attrs[records.SWEEP])
    return seconds_left(trials_table(study), stored.budget, packed.trials)


def _packs(ledger: Ledger, max_retries: int) -> PackBook | None:
    """The book of packs, if the sweep wants them and its trials can share one."""
    config = ledger.study.config
    if members(config) == 1:
        return None
    return PackBook(
        ledger=ledger,
        size=config.pack,
        slots=ledger.slots,
        max_retries=max_retries,
        answer=_answer,
    )


def _answer(mailbox: str, ticket: int, text: str) -> None:
    import ray

    ray.get(ray.get_actor(mailbox).answer.remote(ticket, text))


def _past(config: SweepConfig) -> FromMlflow | None:
    """How a warm start reads sweeps in MLflow; None without tracking."""
    tracking = config.base.tracking
    return (lambda name: from_mlflow(connect(tracking), name)) if tracking.enabled else None


def absolute(config: RunConfig) -> RunConfig:
    """Make the corpus folder absolute: workers may start in another directory."""
    corpus = config.corpus
    if corpus.remote is None:
        corpus = corpus.model_copy(update={"root": corpus.root.absolute()})
    if corpus.features is not None:
        corpus = corpus.model_copy(update={"features": corpus.features.absolute()})
    if corpus.store is not None:
        corpus = corpus.model_copy(update={"store": corpus.store.absolute()})
    return config.model_copy(update={"corpus": corpus})


@contextmanager
def connecting(config: TrackingConfig) -> Iterator["Future[Connection | None]"]:
    """Reach the tracking server while something else starts; importing MLflow takes seconds."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="connect") as pool:
        yield pool.submit(connect, config) if config.enabled else pool.submit(lambda: None)
