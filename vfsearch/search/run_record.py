"""What rank 0 writes down of a run: what it is, what it measured, what it leaves.

Everything goes through the run's log (`tracking.trial_log`), which waits for no server; what takes
time to make (figure, query lists, ranks) is made by the caller's background thread (`complete`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from vfsearch.config import RunConfig
from vfsearch.corpus.features import Features
from vfsearch.corpus.layout import csv_path
from vfsearch.corpus.queries import write_list
from vfsearch.corpus.store import Store
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.evaluation.query_ranks import write_ranks
from vfsearch.search.tracks import Tracked
from vfsearch.tracking.provenance import code, environment
from vfsearch.tracking.system import SystemSampler
from vfsearch.tracking.trial_log import DatasetInfo, TrialLog
from vfsearch.training.checkpoint import load_model, read_state
from vfsearch.training.figure import draw_run
from vfsearch.training.loop import EpochReport, Outcome, Stores
from vfsearch.training.steps import NAME as STEPS

PER_STEP = ("positive_mass", "negative_mass", "hardest_negative_mass")
"""What is logged of every optimiser step; ``steps.csv`` has every term."""
_CONTEXT = {"train": "training", "val": "validation", "test": "testing"}


class RunRecord:
    """The record of one run on rank 0: in its folder, and in its log if it is tracked."""

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        tracked: Tracked | None,
        *,
        seeds: Sequence[int],
        workers: Sequence[int],
        world: int,
    ) -> None:
        """Begin, or go on with, the record.

        Args:
            config: the run.
            out: its folder.
            tracked: where it is logged, if it is.
            seeds: that it trains, one after the other.
            workers: process ids of the run's workers on this machine.
            world: number of its workers.
        """
        self._config, self._out = config, out
        self._evaluator: EpochEvaluator | None = None
        self._best: dict[Path, tuple[Path, Embeddings]] = {}
        """Of each seed, by its folder of checkpoints, the best one and what it embedded."""
        self._embedded: Embeddings | None = None
        """What the best checkpoint of the run embedded."""
        self._log: TrialLog | None = None
        self._sampler: SystemSampler | None = None
        out.mkdir(parents=True, exist_ok=True)
        resolved = out / "config.yaml"
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        resolved.write_text(text, encoding="utf-8")
        if tracked is None:
            return
        tags = {**tracked.tags, **code().tags(), **_facts(config, seeds, world)}
        log = TrialLog.open(tracked.connection, tracked.key, tracked.spool, tags=tags)
        self._log = log
        log.params(tracked.params)
        log.tags(tags)
        log.artifact(resolved, "config.yaml")
        versions = out / "environment.json"
        versions.write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
        log.artifact(versions, "environment.json")
        if config.tracking.system_seconds:
            self._sampler = SystemSampler(log, workers, config.tracking.system_seconds)
            self._sampler.start()

    def stores(self, stores: Stores) -> None:
        """Note the data."""
        if self._log is not None:
            self._log.datasets([_dataset(self._config, s) for s in (stores.train, stores.val)])

    def epoch(self, report: EpochReport) -> None:
        """Note an epoch."""
        if self._log is not None and self._evaluator is None:
            self._log.tags({"vfsearch.evaluation": report.evaluator.key})
        self._evaluator = report.evaluator
        if report.best and report.evaluator.embeddings is not None:
            best = report.checkpoint
            self._best[best.parent] = (best, report.evaluator.embeddings)
        if self._log is not None:
            self._log.metrics(report.metrics, step=report.epoch)
            self._log.series(
                {row.step: {f"step/{name}": row[name] for name in PER_STEP} for row in report.steps}
            )

    def ended(self, outcome: Outcome) -> None:
        """Note how the run ended, and its checkpoints; `complete` does the rest.

        To be called before another run begins: where embeddings are missing a model is built for
        them, from the same generator of random numbers that the dropout of a training draws from.
        """
        if self._evaluator is not None:
            self._embedded = self._embeddings(outcome.best, self._evaluator)
        (self._out / "metrics.json").write_text(
            json.dumps(outcome.history, indent=1) + "\n", encoding="utf-8"
        )
        self._stop_sampling()
        log = self._log
        if log is not None:
            best = {f"best/{k}": v for k, v in outcome.history[outcome.best_epoch - 1].items()}
            log.metrics(best | {"best/epoch": outcome.best_epoch}, step=outcome.best_epoch)
            log.artifact(outcome.best.resolve(), "checkpoints/best")
            log.artifact(outcome.last.resolve(), "checkpoints/last")
            log.artifact(self._out / "metrics.json", "metrics.json")
            log.artifact(self._out / STEPS, STEPS)
            log.tags({"vfsearch.state": "PRUNED" if outcome.stopped else "COMPLETE"})
            log.end("FINISHED")

    def complete(self, outcome: Outcome, timeout: float) -> None:
        """Draw, write the query lists and the ranks, and send all of it; another run may begin."""
        draw_run(outcome.history, self._out / "run.png")
        ranks = self._out / "ranks.parquet"
        if self._evaluator is not None and self._embedded is not None:
            table = self._evaluator.rank_table(self._embedded)
            write_ranks(table, ranks, epoch=read_state(outcome.best).epoch)
        log = self._log
        if log is not None:
            log.artifact(self._out / "run.png", "figures/run.png")
            if self._evaluator is not None:
                log.artifact(ranks, "ranks.parquet")
                # The lists are a function of the split and the settings: these are the ones used.
                for queries in self._evaluator.lists:
                    path = write_list(queries, self._out / "queries")
                    log.artifact(path, f"queries/{path.name}")
            log.close(None, timeout)

    def failed(self, reason: str, error: Path) -> None:
        """Note that the run failed; ``error``: its traceback, if there is one."""
        self._stop_sampling()
        if self._log is not None:
            self._log.tags({"vfsearch.state": "FAIL", "vfsearch.reason": reason})
            if error.exists():
                self._log.artifact(error, "error.txt")
            self._log.end("FAILED")

    def leave(self, timeout: float) -> None:
        """Send what there is: another node goes on with the record."""
        self._stop_sampling()
        self.send(timeout)

    def send(self, timeout: float) -> None:
        """Send what is left."""
        if self._log is not None:
            self._log.close(None, timeout)

    def _stop_sampling(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    def _embeddings(self, best: Path, evaluator: EpochEvaluator) -> Embeddings:
        """Of the best checkpoint: kept from its epoch, or made anew if a restart came after it."""
        folder = best.resolve()
        kept = self._best.get(folder.parent)
        if kept is not None and kept[0] == folder:
            return kept[1]
        on_features = self._config.corpus.features is not None
        model, _ = load_model(best, torch.device("cpu"), on_features=on_features)
        return evaluator.embed(model, device="cpu")


def _facts(config: RunConfig, seeds: Sequence[int], world: int) -> dict[str, str]:
    """What a run is compared by beside what is searched; as tags, params would crowd the charts."""
    batch = config.training.batch
    return {
        "vfsearch.training_seed": ", ".join(map(str, seeds)),
        "vfsearch.world_size": str(world),
        "vfsearch.global_batch": str(batch),
        # Identities are unique in the global batch, and every anchor meets all the others.
        "vfsearch.negatives": str(batch - 1),
    }


def _dataset(config: RunConfig, store: Store | Features) -> DatasetInfo:
    root, file = config.corpus.root, csv_path(config.corpus, store.name)
    remote = config.corpus.remote
    return DatasetInfo(
        name=f"{root.name}/{file.stem}",
        digest=store.split_hash[:32],
        context=_CONTEXT[store.name],
        source=str(file) if remote is None else f"{remote}/{file.relative_to(root)}",
        profile={
            "split_sha256": store.split_hash,
            "identities": len(store.identities),
            "voices": len(store.voice_paths),
            "faces": len(store.face_paths),
            "excluded": len(store.excluded),
        },
    )
