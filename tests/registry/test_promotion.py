"""Promotion with real servers, a real corpus of tiny files and untrained models."""

import json
from dataclasses import replace

import pytest
from support.registry_models import LENIENT, STRICT, Models

from vfsearch.config import CorpusConfig
from vfsearch.errors import PromotionRefused, TrackingError
from vfsearch.registry.promotion import Promotion, promote
from vfsearch.registry.resolve import resolve_model
from vfsearch.registry.rollback import history, rollback
from vfsearch.registry.versions import Registry, find_registry, open_registry
from vfsearch.tracking.connection import Connection


@pytest.fixture
def first(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, name: str
) -> Promotion:
    """A champion."""
    return promote(
        connection, models.run(connection, 1), tiny_corpus, LENIENT, model_name=name, by="anna"
    )


@pytest.fixture
def registry(connection: Connection, first: Promotion, name: str) -> Registry:
    """The registered model that has it."""
    return open_registry(connection, name, create=False)


def holder(registry: Registry, alias: str) -> str | None:
    version = registry.by_alias(alias)
    return str(version.version) if version else None


def test_first_promotion_tells_every_number_and_reason(
    first: Promotion, registry: Registry, connection: Connection
) -> None:
    assert (first.outcome, first.champion_before) == ("promoted", None)
    version = registry.by_alias("champion")
    assert version is not None
    assert version.version == first.version
    assert version.run_id == first.run_id
    assert first.evidence is not None
    assert first.decision is not None
    assert first.decision_uri is not None
    for metric, figure in first.evidence.candidate.figures.items():
        assert version.tags[f"test/{metric}"].startswith(f"{figure.value:.4f} [{figure.low:.4f}")
        assert f"`{metric}`" in version.description
    told = [value for key, value in version.tags.items() if key.startswith("reason/")]
    assert len(told) == len(first.decision.reasons)
    root, _, file = first.decision_uri.rpartition("/")
    document = json.loads(connection.store(root).get(file) or b"")
    assert document["by"] == "anna"
    assert document["evidence"]["candidate"]["dataset"] == first.evidence.candidate.dataset
    assert [reason["text"] for reason in document["decision"]["reasons"]] == [
        reason.text for reason in first.decision.reasons
    ]
    run = connection.client().get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/match_v2f_1to2"] == pytest.approx(
        first.evidence.candidate.figures["match_v2f_1to2"].value
    )


def test_promoting_the_champion_again_moves_nothing(
    first: Promotion, registry: Registry, connection: Connection, tiny_corpus: CorpusConfig
) -> None:
    again = promote(connection, first.run_id, tiny_corpus, LENIENT, model_name=registry.name)
    assert (again.outcome, again.version, again.decision) == ("unchanged", first.version, None)
    assert len(registry.records()) == 1
    assert holder(registry, "champion") == first.version


def test_next_champion_and_the_way_back(
    first: Promotion,
    registry: Registry,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    run = models.run(connection, 2)
    second = promote(connection, run, tiny_corpus, LENIENT, model_name=registry.name, by="ben")
    assert (second.outcome, second.champion_before) == ("promoted", first.version)
    assert holder(registry, "champion") == second.version
    assert second.evidence is not None
    assert second.evidence.champion is not None
    # The champion is measured anew, not remembered, and comes to the same numbers.
    assert first.evidence is not None
    assert second.evidence.champion.figures == first.evidence.candidate.figures

    back = rollback(connection, model_name=registry.name, by="cleo", why="louder voices fail")
    assert back.version == first.version
    assert holder(registry, "champion") == first.version
    with pytest.raises(PromotionRefused, match="is the first one"):
        rollback(connection, model_name=registry.name)
    told = history(connection, model_name=registry.name)
    assert [(r.event, r.version, r.by) for r in told] == [
        ("promoted", first.version, "anna"),
        ("promoted", second.version, "ben"),
        ("rolled back", first.version, "cleo"),
    ]
    assert told[-1].why == "louder voices fail"
    version = registry.version(str(second.version))
    assert version is not None
    held = json.loads(version.tags["vfsearch.champion_held"])
    assert held == [{"from": told[1].at, "to": told[2].at, "by": "ben"}]

    # Promoted again, the same weights keep their version number.
    again = promote(connection, run, tiny_corpus, LENIENT, model_name=registry.name)
    assert (again.outcome, again.version) == ("promoted", second.version)


def test_sound_but_no_better_becomes_challenger_and_may_be_promoted_later(
    first: Promotion,
    registry: Registry,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    run = models.run(connection, 2)
    second = promote(connection, run, tiny_corpus, STRICT, model_name=registry.name)
    assert second.outcome == "challenger"
    assert second.decision is not None
    assert {reason.rule for reason in second.decision.failed} == {"improvement"}
    assert holder(registry, "champion") == first.version
    assert holder(registry, "challenger") == second.version
    third = promote(connection, run, tiny_corpus, LENIENT, model_name=registry.name)
    assert (third.outcome, third.version) == ("promoted", second.version)
    assert holder(registry, "challenger") is None, "a champion is nobody's challenger"


def test_model_trained_on_the_test_split_is_refused_and_not_registered(
    first: Promotion,
    registry: Registry,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    leaked = tiny_corpus.model_copy(update={"test_csv": tiny_corpus.train_csv})
    run = models.run(connection, 2)
    policy = LENIENT.model_copy(update={"same_dataset": False})
    seen = promote(connection, run, leaked, policy, model_name=registry.name)
    assert seen.outcome == "refused"
    assert seen.version is None
    assert seen.decision is not None
    assert [reason.rule for reason in seen.decision.failed] == ["unseen identities"]
    assert "trained on 16 identities of the test split" in seen.decision.failed[0].text
    assert holder(registry, "champion") == first.version
    assert registry.by_weights(resolve_model(run, lambda: connection).weights_sha256) is None


def test_another_test_split_is_refused(
    first: Promotion,
    registry: Registry,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    other = tiny_corpus.model_copy(update={"test_csv": tiny_corpus.val_csv})
    run = models.run(connection, 2)
    told = promote(connection, run, other, LENIENT, model_name=registry.name, dry_run=True)
    assert told.decision is not None
    assert [reason.rule for reason in told.decision.failed] == ["same dataset"]


def test_dry_run_writes_nothing(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, name: str
) -> None:
    run = models.run(connection, 1)
    before = [entry.key for entry in connection.store().entries()]
    told = promote(connection, run, tiny_corpus, LENIENT, model_name=name, dry_run=True)
    assert (told.outcome, told.dry_run, told.version) == ("promoted", True, None)
    assert find_registry(connection, name) is None
    assert [entry.key for entry in connection.store().entries()] == before
    assert "test/match_v2f_1to2" not in connection.client().get_run(run).data.metrics


def test_killed_between_record_and_alias_is_mended_by_the_next_command(
    first: Promotion,
    registry: Registry,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    run = models.run(connection, 2)
    second = promote(connection, run, tiny_corpus, LENIENT, model_name=registry.name)
    # What a process leaves that dies right after winning: the record, and the old alias.
    registry.client.set_registered_model_alias(registry.name, "champion", str(first.version))
    again = promote(connection, run, tiny_corpus, LENIENT, model_name=registry.name)
    assert again.outcome == "unchanged"
    assert holder(registry, "champion") == second.version


def test_history_of_another_server_is_refused(
    first: Promotion, registry: Registry, connection: Connection
) -> None:
    newest = registry.records()[-1]
    registry.chain.append(replace(newest, serial=2, run_id="0" * 32))
    with pytest.raises(TrackingError, match="restore bucket and database from the same backup"):
        history(connection, model_name=registry.name)


def test_no_model_yet(connection: Connection, name: str) -> None:
    for action in (rollback, history):
        with pytest.raises(TrackingError, match="there is no registered model"):
            action(connection, model_name=name)
