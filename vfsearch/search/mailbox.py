"""Where the owner of a worker group and its workers meet.

One actor per worker group, without a CPU of its own. The owner puts an order in; every worker takes
it; rank 0 hands in a report per epoch and waits for the answer; the end of the trial comes back as
one event. All decisions are the owner's: the mailbox only pairs questions with answers. It dies
with its owner (Ray owns actors by their creator), so nobody waits on it for ever.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

TRAINING = "vfsearch.search.performer:TrainTrial"
"""Who performs orders, unless a test says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One trial (or a single run) for a worker group; plain data that travels between processes."""

    number: int
    """Number of the trial in its study; 0 for a single run."""
    config: dict[str, Any]
    """The resolved run, as JSON (`RunConfig.model_dump(mode="json")`), with absolute paths."""
    out: str
    """Folder of the trial, absolute; seen by every worker."""
    performer: str = TRAINING
    """Who performs the order in the workers, as ``module:class`` (see `serve.Performer`)."""
    extra: dict[str, Any]
    """What the performer needs besides the run: where it is tracked and under which name."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An order as a worker sees it."""

    order: Order
    sequence: int
    """Counts the orders of the group from 1."""
    attempt: int
    """0, plus 1 for each time that the workers were lost in this order."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One epoch, waiting for the owner's answer."""

    ticket: int
    epoch: int
    metrics: dict[str, float]
    facts: dict[str, str]
    """What holds for the whole run, like the identity of its evaluation."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of an order."""

    kind: Literal["completed", "stopped", "failed"]
    reason: str | None
    summary: dict[str, Any]
    """What the performer returned."""
    retries: int = 0
    """How often the workers were lost in this order."""
    spoilt: bool = False
    """The workers cannot serve another order: ranks may wait for each other."""


@dataclass(frozen=True, kw_only=True)
class Gone:
    """The worker group of this generation is no more."""

    generation: int
    error: str | None
    out_of_memory: bool = False
    """Ray ended a worker because the memory of its node ran out."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The workers of a generation have begun the order."""

    generation: int


@dataclass(frozen=True, kw_only=True)
class Present:
    """A worker of the group."""

    rank: int
    world: int
    """Workers of its start of the group."""
    actor: Any
    """Its handle."""
    node: str
    """Id of its node."""


Event = Report | Finished | Gone | Taken
Answer = bool | str
"""True: go on; False: end the training here; a text: what a pack does next, or `LEAVE`."""
LEAVE = "leave"
"""Bring what there is to safety and end: a node of the group will be taken away."""


class Mailbox:
    """The meeting point; every method runs on the actor's event loop, so none needs a lock."""

    def __init__(self) -> None:
        self._generation = 0
        self._sequence = 0
        self._attempt = 0
        self._order: Order | None = None
        self._open = True
        self._changed = asyncio.Condition()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ticket = 0
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._present: dict[int, Present] = {}
        self._taken = (0, 0)
        self._entered = 0

    # The owner's side.

    async def admit(self, generation: int, attempt: int) -> None:
        """Serve the workers of this generation only; those of older ones are sent away."""
        self._dismiss_reports()
        self._attempt = attempt
        self._present = {}
        await self._tell(generation=generation)

    async def assign(self, order: Order) -> None:
        """Hand an order to the group."""
        self._dismiss_reports()
        self._sequence += 1
        self._attempt = 0
        self._order = order
        await self._tell()

    async def event(self, timeout: float) -> Event | None:
        """Next event of the current order, or None after ``timeout`` seconds."""
        try:
            return await asyncio.wait_for(self._events.get(), timeout)
        except TimeoutError:
            return None

    async def answer(self, ticket: int, go_on: Answer) -> None:
        """Answer a report; one that was withdrawn meanwhile is ignored."""
        future = self._answers.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(go_on)

    async def withdraw(self) -> None:
        """Take the order back, with everything that was said about it."""
        self._order = None
        while not self._events.empty():
            self._events.get_nowait()
        self._dismiss_reports()

    async def close(self) -> None:
        """Send the workers home when they ask for the next order."""
        self._open = False
        self._order = None
        self._dismiss_reports()
        await self._tell()

    async def present(self) -> list[Present]:
        """The workers that have come in: to kill those that hang, to know where they are."""
        return list(self._present.values())

    async def gone(self, gone: Gone) -> None:
        """Note that the worker group of a generation has ended."""
        if gone.generation == self._generation:
            self._events.put_nowait(gone)

    # The workers' side.

    async def enter(self, generation: int, worker: Present) -> None:
        """Note a worker.

        A second rank 0 of one generation means that Ray Train has started the workers anew, with
        more of them, or elsewhere: they take up the order again.
        """
        if generation != self._generation:
            return
        if worker.rank == 0 and self._entered == generation:
            self._attempt += 1
            self._taken = (0, 0)
            self._dismiss_reports()
        if worker.rank == 0:
            self._entered = generation
        self._present[worker.rank] = worker
        self._present = {r: one for r, one in self._present.items() if r < worker.world}

    async def take(self, generation: int, done: int) -> Task | None:
        """Wait for an order after number ``done``; None: there is nothing more to do."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    not self._open
                    or generation != self._generation
                    or (self._order is not None and self._sequence > done)
                )
            )
        if not self._open or generation != self._generation or self._order is None:
            return None
        if self._taken != (generation, self._sequence):
            self._taken = (generation, self._sequence)
            self._events.put_nowait(Taken(generation=generation))
        return Task(order=self._order, sequence=self._sequence, attempt=self._attempt)

    async def report(
        self,
        generation: int,
        sequence: int,
        epoch: int,
        metrics: dict[str, float],
        facts: dict[str, str] | None = None,
    ) -> Answer:
        """Hand in an epoch (rank 0); True: go on, False: end the training here."""
        if not self._is_current(generation, sequence):
            return False
        self._ticket += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._ticket] = future
        self._events.put_nowait(
            Report(ticket=self._ticket, epoch=epoch, metrics=metrics, facts=facts or {})
        )
        return await future

    async def finished(self, generation: int, sequence: int, finished: Finished) -> None:
        """Hand in the end of the order; only the first counts."""
        if self._is_current(generation, sequence):
            self._order = None
            self._events.put_nowait(finished)

    def _is_current(self, generation: int, sequence: int) -> bool:
        return (
            self._order is not None
            and generation == self._generation
            and sequence == self._sequence
        )

    def _dismiss_reports(self) -> None:
        for future in self._answers.values():
            if not future.done():
                future.set_result(False)
        self._answers.clear()

    async def _tell(self, *, generation: int | None = None) -> None:
        async with self._changed:
            if generation is not None:
                self._generation = generation
            self._changed.notify_all()
