"""Two people promote at once: one wins, the other is told, and the alias is the winner's."""

import pytest
from support.registry_models import LENIENT, Models
from support.registry_rivals import Race, run_races

from vfsearch.config import CorpusConfig
from vfsearch.registry.versions import open_registry
from vfsearch.tracking.connection import Connection


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_one_wins_and_the_other_is_told(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, name: str, rounds: int
) -> None:
    runs = models.run(connection, 1), models.run(connection, 2)
    races = [Race(name=f"{name}-{number}", at_the_last=number % 2 == 0) for number in range(rounds)]
    results = run_races(connection, runs, tiny_corpus, LENIENT, races)
    for race, pair in zip(races, results, strict=True):
        registry = open_registry(connection, race.name, create=False)
        records = registry.records()
        champion = registry.by_alias("champion")
        assert champion is not None
        assert champion.version == records[-1].version
        won = [version for outcome, version in pair if outcome == "promoted"]
        lost = [message for outcome, message in pair if outcome == "lost"]
        assert sorted(won) == sorted(record.version for record in records)
        assert len(won) + len(lost) == 2
        if race.at_the_last:
            assert len(lost) == 1
        for message in lost:
            assert f"version {records[0].version} (run {records[0].run_id})" in message
            assert "promote again to compare with it" in message
