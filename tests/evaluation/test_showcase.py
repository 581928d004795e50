"""From a store and embeddings to the page and the film."""

from pathlib import Path

import numpy as np
import pytest
from support.small_corpus import small_corpus

from vfsearch.config import CorpusConfig
from vfsearch.corpus.store import Store, open_store
from vfsearch.errors import UsageError
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.showcase import write_showcase


@pytest.fixture
def opened(tmp_path: Path) -> tuple[CorpusConfig, Store]:
    config = small_corpus(tmp_path / "corpus", store=tmp_path / "store")
    return config, open_store(config, "test")


def test_page_and_film_of_a_split(opened: tuple[CorpusConfig, Store], tmp_path: Path) -> None:
    config, store = opened
    # One voice has no embedding: it is left out.
    kept = [*list(store.voice_paths)[:-1], *store.face_paths]
    matrix = np.random.default_rng(0).normal(size=(len(kept), 8)).astype(np.float32)
    out = tmp_path / "out"
    embeddings = Embeddings(paths=kept, matrix=matrix)
    page, film = write_showcase(store, embeddings, config, out, title="Test", probes=2, top=4)
    text = page.read_text()
    assert f"{len(store.voice_paths) - 1} voices and {len(store.face_paths)} faces" in text
    assert store.voice_paths[-1] not in text
    assert set(out.iterdir()) == {page, film}


def test_embeddings_of_another_split_are_refused(
    opened: tuple[CorpusConfig, Store], tmp_path: Path
) -> None:
    config, store = opened
    embeddings = Embeddings(paths=["elsewhere/a.wav"], matrix=np.ones((1, 4), np.float32))
    with pytest.raises(UsageError, match="needs voices, but there are none"):
        write_showcase(store, embeddings, config, tmp_path / "out", title="Test")
    assert not (tmp_path / "out").exists()
