"""The loop of a pack: an epoch of every member, evaluation, reports, decisions, and again.

As `training.loop` it knows nothing of the engine: a `Director` says who joins and who stops.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import torch

from vfsearch.corpus.features import Features
from vfsearch.errors import CheckpointError, ConfigError, QueryError, TrainingDiverged
from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.evaluation.training_bound import TrainingBound
from vfsearch.training.distributed import World
from vfsearch.training.loop import EpochReport, Outcome, Stores, check_select, deterministic
from vfsearch.training.meter import EpochMeter
from vfsearch.training.pack.chunk import Chunk, FeatureTensors
from vfsearch.training.pack.member import Entry, Member
from vfsearch.training.run import Run

CHUNK = 8
"""Members that step together on a CPU: few enough for the caches, many enough to hide the calls."""

Failure = TrainingDiverged | CheckpointError | ConfigError | QueryError
"""What ends one member and not the pack."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the director wants next."""

    stop: frozenset[int] = frozenset()
    """Members that end here."""
    join: Sequence[Entry] = ()
    """Runs that begin, or go on from their checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """A member that is no longer there, and why."""

    number: int
    outcome: Outcome | None
    error: Failure | None
    """Exactly one of the two is there."""


class Director(Protocol):
    """Who decides about the members of a pack."""

    def direct(self, reports: dict[int, EpochReport], left: Sequence[Left]) -> Orders:
        """Take note of an epoch of every member, and of those that left since the last call.

        The first call has neither. A member that joins with epochs behind it is reported once
        more before it trains. The pack ends when it has no members and nobody joins.
        """
        ...


def train_pack(director: Director, *, device: torch.device, stores: Stores) -> None:
    """Train packs of runs until the director sends no more; all share ``stores``.

    Every member gets the numbers of its run alone (``training.loop.train`` with one worker) but
    for rounding, and leaves the same files. One that diverges fails alone.
    """
    with deterministic(device):
        _Pack(director, device=device, stores=stores).run()


@dataclass
class _Pack:
    director: Director
    device: torch.device
    stores: Stores
    members: dict[int, Member] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    chunks: dict[tuple[int, ...], Chunk] = field(default_factory=dict)
    evaluators: dict[str, tuple[EpochEvaluator, TrainingBound]] = field(default_factory=dict)

    def run(self) -> None:
        assert isinstance(self.stores.train, Features)
        self.features = FeatureTensors.of(self.stores.train, self.device)
        reported: list[Member] = []
        with threads(self.device) as pool:
            while True:
                reports = {member.entry.number: member.report() for member in reported}
                left, self.left = self.left, []
                orders = self.director.direct(reports, left)
                for member in reported:
                    number = member.entry.number
                    if number in orders.stop or member.finished:
                        self._leave(member, stopped=number in orders.stop)
                joined = [self._join(entry) for entry in orders.join]
                reported = [member for member in joined if member and member.resumed]
                if reported:
                    continue
                if not self.members:
                    if not self.left:
                        return
                    continue
                list(pool.map(self._epoch, self._grouped()))
                reported = list(self.members.values())
                for member in reported:
                    member.save_if_due()

    def _join(self, entry: Entry) -> Member | None:
        try:
            run = Run(entry.config, self.stores.train, device=self.device, world=World())
            evaluator = self._evaluation(entry)[0]
            check_select(entry.config, evaluator)
            # Its lists are everybody's, what it embedded last is the member's.
            member = Member(entry, run, copy(evaluator))
        except (CheckpointError, ConfigError, QueryError) as error:
            self.left.append(Left(number=entry.number, outcome=None, error=error))
            return None
        self.members[entry.number] = member
        return member

    def _leave(self, member: Member, *, stopped: bool) -> None:
        number = member.entry.number
        del self.members[number]
        outcome = member.outcome(stopped=stopped)
        self.left.append(Left(number=number, outcome=outcome, error=None))

    def _grouped(self) -> list[tuple[Member, ...]]:
        """Chunks of members whose next epochs are equally long, unchanged where possible."""

        def steps(member: Member) -> int:
            run = member.run
            return run.plan.epoch_end(run.step) - run.step

        groups: list[tuple[Member, ...]] = []
        size = CHUNK if self.device.type == "cpu" else len(self.members)
        for _, equal in groupby(sorted(self.members.values(), key=steps), key=steps):
            alike = list(equal)
            groups += [tuple(alike[at : at + size]) for at in range(0, len(alike), size)]
        wanted = {_numbers(group) for group in groups}
        self.chunks = {key: chunk for key, chunk in self.chunks.items() if key in wanted}
        for group in groups:
            if _numbers(group) not in self.chunks:
                runs = [member.run for member in group]
                self.chunks[_numbers(group)] = Chunk(runs, self.features)
        return groups

    def _epoch(self, group: tuple[Member, ...]) -> None:
        meters = self.chunks[_numbers(group)].epoch()
        for member, meter in zip(group, meters, strict=True):
            try:
                member.record(meter, self._evaluate(member, meter))
            except (TrainingDiverged, QueryError) as error:
                number = member.entry.number
                del self.members[number]
                self.left.append(Left(number=number, outcome=None, error=error))

    def _evaluate(self, member: Member, meter: EpochMeter) -> dict[str, float]:
        run, bound = member.run, self._evaluation(member.entry)[1]
        # A diverged member is told by its losses, as in a run alone, not by its embeddings.
        meter.table()
        run.check_finite()
        run.model.eval()
        with meter.timed("evaluation"):
            metrics = member.evaluator(run.model, device=self.device)
        with meter.timed("bound"):
            metrics |= bound(
                run.model,
                run.model.classifier.weight,
                run.reweighting.weights,
                device=self.device,
            )
        return metrics

    def _evaluation(self, entry: Entry) -> tuple[EpochEvaluator, TrainingBound]:
        config = entry.config.evaluation
        key = config.model_dump_json()
        if key not in self.evaluators:
            self.evaluators[key] = (
                EpochEvaluator(self.stores.val, config),
                TrainingBound(self.stores.train, config),
            )
        return self.evaluators[key]


def _numbers(group: Iterable[Member]) -> tuple[int, ...]:
    return tuple(member.entry.number for member in group)


@contextmanager
def threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """On CPUs a thread per core, each with a chunk of its own; on a GPU one."""
    count = torch.get_num_threads() if device.type == "cpu" else 1

    def alone() -> None:
        torch.set_num_threads(1)

    with ThreadPoolExecutor(count, "pack", initializer=alone if count > 1 else None) as pool:
        yield pool
