"""From embeddings and a split to the page and the film."""

from pathlib import Path

import numpy as np
import pytest
from support.small_corpus import small_corpus

from vfsearch.corpus.layout import scan_split
from vfsearch.errors import QueryError
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.qualitative import show


def test_page_and_film_of_a_split(tmp_path: Path) -> None:
    config = small_corpus(tmp_path / "corpus")
    split = scan_split(config, "test")
    # The last voice was excluded by the store: it has no embedding and is left out.
    kept = [one.path for one in (*split.voices[:-1], *split.faces)]
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(len(kept), 8)).astype(np.float32)
    shown = show(
        Embeddings(paths=kept, matrix=matrix),
        split,
        config,
        tmp_path / "out",
        title="Test",
        probes=2,
        top=4,
    )
    text = shown.page.read_text()
    assert f"{len(split.voices) - 1} voices and {len(split.faces)} faces" in text
    assert split.voices[-1].path not in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "gallery.html",
        "retrieval_result.mp4",
    }


def test_embeddings_of_another_split_are_refused(tmp_path: Path) -> None:
    config = small_corpus(tmp_path / "corpus")
    other = scan_split(config, "val")
    paths = [one.path for one in (*other.voices, *other.faces)]
    embeddings = Embeddings(paths=paths, matrix=np.ones((len(paths), 4), np.float32))
    with pytest.raises(QueryError, match="no embedding of the voices of the test split"):
        show(embeddings, scan_split(config, "test"), config, tmp_path / "out", title="Test")
    assert not (tmp_path / "out").exists()
