"""Promotion with real servers, a real corpus of tiny files and untrained models."""

import json

import pytest
from support.registry_models import LENIENT, Models

from vfsearch.config import CorpusConfig
from vfsearch.registry.promotion import Promotion, promote
from vfsearch.registry.versions import open_registry
from vfsearch.tracking.connection import Connection


@pytest.fixture
def promoted(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, name: str
) -> Promotion:
    return promote(
        connection, models.run(connection, 1), tiny_corpus, LENIENT, model_name=name, by="anna"
    )


def test_first_promotion(connection: Connection, promoted: Promotion, name: str) -> None:
    assert promoted.outcome == "promoted"
    registry = open_registry(connection, name, create=False)
    version = registry.by_alias("champion")
    assert version is not None
    assert version.version == promoted.version
    print(json.dumps(version.tags, indent=1))
    print(version.description)
