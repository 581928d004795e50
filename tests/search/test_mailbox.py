"""The mailbox pairs orders, reports and answers; nobody waits for ever, nothing is told twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vfsearch.search.mailbox import Finished, Gone, Mailbox, Order, Present, Report, Taken, Task

DONE = Finished(kind="completed", reason=None, summary={})


def order(number: int = 0) -> Order:
    return Order(number=number, config={}, out="/nowhere", extra={})


def run(scenario: Callable[[Mailbox], Awaitable[None]]) -> None:
    async def limited() -> None:
        box = Mailbox()
        await box.admit(1, 0)
        await asyncio.wait_for(scenario(box), 10)

    asyncio.run(limited())


async def now(box: Mailbox) -> Any:
    event = await box.event(5)
    assert event is not None
    return event


def test_every_worker_gets_the_order_once_and_waits_for_the_next() -> None:
    async def scenario(box: Mailbox) -> None:
        early = asyncio.create_task(box.take(1, 0))
        await asyncio.sleep(0)
        assert not early.done()
        await box.assign(order(7))
        first, second = await early, await box.take(1, 0)
        assert first == second == Task(order=order(7), sequence=1, attempt=0)
        waiting = asyncio.create_task(box.take(1, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await box.finished(1, 1, DONE)
        await box.assign(order(8))
        task = await waiting
        assert task is not None
        assert (task.order.number, task.sequence) == (8, 2)

    run(scenario)


@pytest.mark.parametrize("go_on", [True, False])
def test_a_report_waits_for_its_answer(go_on: bool) -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        reported = asyncio.create_task(box.report(1, 1, 3, {"a": 0.5}))
        report = await now(box)
        assert (report.epoch, report.metrics) == (3, {"a": 0.5})
        assert not reported.done()
        await box.answer(report.ticket, go_on)
        assert await reported is go_on

    run(scenario)


def test_an_answer_to_a_withdrawn_report_does_not_reach_the_next_one() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        lost = asyncio.create_task(box.report(1, 1, 1, {}))
        old = await now(box)
        await box.admit(2, 1)
        assert await lost is False
        again = asyncio.create_task(box.report(2, 1, 1, {}))
        new = await now(box)
        await box.answer(old.ticket, go_on=False)
        await asyncio.sleep(0)
        assert not again.done()
        await box.answer(new.ticket, go_on=True)
        assert await again is True

    run(scenario)


def test_workers_of_an_older_generation_are_sent_away_and_not_heard() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        waiting = asyncio.create_task(box.take(1, 1))
        await asyncio.sleep(0)
        await box.admit(2, 1)
        assert await waiting is None
        assert await box.report(1, 1, 1, {}) is False
        await box.finished(1, 1, DONE)
        await box.gone(Gone(generation=1, error="late news"))
        assert await box.event(0.01) is None
        task = await box.take(2, 0)
        assert task is not None
        assert task.attempt == 1

    run(scenario)


def test_only_the_first_end_counts_and_later_reports_are_told_to_stop() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        failed = Finished(kind="failed", reason="why", summary={}, spoilt=True)
        await box.finished(1, 1, failed)
        await box.finished(1, 1, DONE)
        assert await box.report(1, 1, 2, {}) is False
        assert await now(box) == failed
        assert await box.event(0.01) is None

    run(scenario)


def test_events_keep_their_order() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        reported = asyncio.create_task(box.report(1, 1, 1, {}))
        await asyncio.sleep(0)
        await box.gone(Gone(generation=1, error="killed"))
        assert isinstance(await now(box), Report)
        assert await now(box) == Gone(generation=1, error="killed")
        reported.cancel()

    run(scenario)


def test_closing_releases_everybody() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        reported = asyncio.create_task(box.report(1, 1, 1, {}))
        waiting = asyncio.create_task(box.take(1, 1))
        await asyncio.sleep(0)
        await box.close()
        assert await reported is False
        assert await waiting is None
        assert await box.take(1, 0) is None

    run(scenario)


def test_a_withdrawn_order_leaves_nothing_for_the_next() -> None:
    async def scenario(box: Mailbox) -> None:
        await box.assign(order(1))
        reported = asyncio.create_task(box.report(1, 1, 1, {}))
        await asyncio.sleep(0)
        await box.withdraw()
        assert await reported is False
        assert await box.event(0.01) is None
        await box.assign(order(2))
        task = await box.take(1, 0)
        assert task is not None
        assert task.order.number == 2

    run(scenario)


def test_workers_that_are_started_anew_take_the_order_up_again() -> None:
    """Ray Train changes their number, or puts them elsewhere, within one generation."""

    def worker(rank: int, world: int, node: str) -> Present:
        return Present(rank=rank, world=world, actor=None, node=node)

    async def scenario(box: Mailbox) -> None:
        await box.assign(order())
        await box.enter(1, worker(0, 2, "a"))
        await box.enter(1, worker(1, 2, "b"))
        first = await box.take(1, 0)
        assert first is not None
        assert first.attempt == 0
        assert await now(box) == Taken(generation=1)
        lost = asyncio.create_task(box.report(1, 1, 3, {}))
        report = await now(box)
        await box.enter(1, worker(0, 1, "c"))
        assert await lost is False, "nobody waits for the workers that are gone"
        again = await box.take(1, 0)
        assert again is not None
        assert (again.sequence, again.attempt) == (1, 1)
        assert await now(box) == Taken(generation=1)
        assert [one.node for one in await box.present()] == ["c"]
        anew = asyncio.create_task(box.report(1, 1, 3, {}))
        await box.answer(report.ticket, False)  # meant for those that are gone
        await box.answer((await now(box)).ticket, True)
        assert await anew is True

    run(scenario)
