"""Two processes that promote at the same time, again and again."""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from vfsearch.config import CorpusConfig
from vfsearch.errors import PromotionRefused
from vfsearch.registry.policy import PromotionPolicy
from vfsearch.registry.promotion import promote
from vfsearch.tracking.connection import Connection


@dataclass(frozen=True)
class Race:
    """One pair of simultaneous promotions."""

    name: str
    at_the_last: bool
    """Both wait for each other right before the record is written, so that one must lose."""


Result = tuple[str, str]
"""What came of it, and the version or the message."""


def run_races(
    connection: Connection,
    runs: tuple[str, str],
    corpus: CorpusConfig,
    policy: PromotionPolicy,
    races: list[Race],
) -> list[tuple[Result, Result]]:
    """Results of both rivals, per race."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    queues = [context.SimpleQueue(), context.SimpleQueue()]
    rivals = [
        context.Process(
            target=_rival,
            args=(connection, run, corpus, policy, races, barrier, queue),
            name=f"rival-{number}",
        )
        for number, (run, queue) in enumerate(zip(runs, queues, strict=True))
    ]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(200 + 60 * len(races))
    stuck = [rival for rival in rivals if rival.is_alive()]
    for rival in stuck:
        rival.kill()
    assert not stuck, "a rival hung"
    assert [rival.exitcode for rival in rivals] == [0, 0]
    first, second = (queue.get() for queue in queues)
    return list(zip(first, second, strict=True))


def _rival(
    connection: Connection,
    run: str,
    corpus: CorpusConfig,
    policy: PromotionPolicy,
    races: list[Race],
    barrier: Barrier,
    queue: "multiprocessing.SimpleQueue[list[Result]]",
) -> None:
    results: list[Result] = []
    try:
        for race in races:
            barrier.wait(200)

            def progress(text: str, race: Race = race) -> None:
                if race.at_the_last and text == "moving the alias":
                    barrier.wait(200)

            try:
                made = promote(
                    connection, run, corpus, policy, model_name=race.name, progress=progress
                )
                results.append((made.outcome, str(made.version)))
            except PromotionRefused as refusal:
                results.append(("lost", str(refusal)))
    except BaseException:
        barrier.abort()
        raise
    queue.put(results)
