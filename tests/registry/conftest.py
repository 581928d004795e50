"""A tiny corpus and runs with checkpoints, shared by the tests of the registry."""

import os
from uuid import uuid4

import pytest
from support.registry_models import Models, write_corpus

from vfsearch.config import CorpusConfig


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """36 identities of tones and ellipses; decoded once for the session."""
    root = tmp_path_factory.mktemp("corpus")
    config = write_corpus(root)
    return config.model_copy(update={"store": root / "store"})


@pytest.fixture(scope="session")
def models(tiny_corpus: CorpusConfig, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Untrained checkpoints of that corpus."""
    return Models(tiny_corpus, tmp_path_factory.mktemp("models"))


@pytest.fixture
def name() -> str:
    """A registered model of this test's own."""
    return f"vfsearch-{uuid4().hex[:8]}"


@pytest.fixture
def rounds() -> int:
    """Races of two promotions; VFSEARCH_TEST_RACES asks for more."""
    return int(os.environ.get("VFSEARCH_TEST_RACES", "3"))
