"""The gallery's numbers, against a naive computation, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from support.gallery_corpus import Corpus, tiny_corpus

from vfsearch.errors import CorpusError, QueryError, UsageError
from vfsearch.evaluation.gallery import Side, build_gallery, write_gallery
from vfsearch.evaluation.neighbours import choose_probes


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return tiny_corpus(tmp_path)


def test_hits_and_marks_agree_with_a_naive_ranking(corpus: Corpus) -> None:
    gallery = build_gallery(corpus.voices, corpus.faces, corpus.names, probes=4, top=5, seed=3)
    for found, one, other in (
        (gallery.v2f, corpus.voices, corpus.faces),
        (gallery.f2v, corpus.faces, corpus.voices),
    ):
        assert len(found) == 4
        for retrieval in found:
            probe = one.matrix[list(one.paths).index(retrieval.path)].astype(float)
            scored = []
            for path, row in zip(other.paths, other.matrix.astype(float), strict=True):
                cosine = probe @ row / np.sqrt(probe @ probe) / np.sqrt(row @ row)
                scored.append((-cosine, path))
            scored.sort()
            owner = corpus.names[retrieval.path.split("/")[0]]
            marks = [corpus.names[path.split("/")[0]] == owner for _, path in scored]
            assert [hit.path for hit in retrieval.hits] == [path for _, path in scored[:5]]
            assert [hit.match for hit in retrieval.hits] == marks[:5]
            assert [hit.rank for hit in retrieval.hits] == [1, 2, 3, 4, 5]
            np.testing.assert_allclose(
                [hit.similarity for hit in retrieval.hits], [-s for s, _ in scored[:5]], atol=1e-9
            )
            assert retrieval.first_match == marks.index(True) + 1
            assert retrieval.chance == pytest.approx(5 * sum(marks) / len(marks))


def test_ties_are_ordered_by_path_so_that_a_collapsed_model_shows_no_favour(
    corpus: Corpus,
) -> None:
    ones = Side(
        paths=corpus.faces.paths,
        matrix=np.ones_like(corpus.faces.matrix),
        root=corpus.faces.root,
    )
    gallery = build_gallery(corpus.voices, ones, corpus.names, probes=3, top=4, seed=0)
    for retrieval in gallery.v2f:
        assert [hit.path for hit in retrieval.hits] == sorted(ones.paths)[:4]


def test_probes_depend_on_seed_and_set_of_paths_alone() -> None:
    paths = [f"p{i:02d}/{j}.wav" for i in range(10) for j in range(3)]
    owners = [path[:3] for path in paths]
    chosen = [paths[i] for i in choose_probes(paths, owners, 6, seed=5)]
    mirrored = choose_probes(paths[::-1], owners[::-1], 6, seed=5)
    assert [paths[::-1][i] for i in mirrored] == chosen
    assert len({path[:3] for path in chosen}) == 6
    assert any(
        [paths[i] for i in choose_probes(paths, owners, 6, seed=s)] != chosen for s in (6, 7)
    )
    everyone = choose_probes(paths, owners, 30, seed=5)
    assert sorted(everyone) == list(range(30))


def test_same_seed_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        gallery = build_gallery(corpus.voices, corpus.faces, corpus.names, probes=2, top=3, seed=1)
        pages.append(write_gallery(gallery, tmp_path / name, title="t").read_bytes())
    assert pages[0] == pages[1]


def test_page_asks_for_nothing_and_escapes_names(tmp_path: Path) -> None:
    corpus = tiny_corpus(tmp_path, owner="<img src=x onerror=alert(1)>&")
    gallery = build_gallery(corpus.voices, corpus.faces, corpus.names, probes=2, top=3)
    page = write_gallery(gallery, tmp_path / "out", title="<script>alert(1)</script>")
    text = page.read_text()
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert list((tmp_path / "out").iterdir()) == [page]


@pytest.mark.parametrize(
    ("probes", "top", "words"),
    [(0, 3, "probes must be"), (99, 3, "probes must be"), (2, 0, "top must"), (2, 99, "top must")],
)
def test_numbers_out_of_range(corpus: Corpus, probes: int, top: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_gallery(corpus.voices, corpus.faces, corpus.names, probes=probes, top=top)


def test_unknown_identity_and_bad_embeddings_are_named(corpus: Corpus) -> None:
    names = dict(corpus.names)
    lost = corpus.faces.paths[0].split("/")[0]
    del names[lost]
    with pytest.raises(QueryError, match=lost):
        build_gallery(corpus.voices, corpus.faces, names, probes=2, top=3)
    matrix = corpus.faces.matrix.copy()
    matrix[2] = np.nan
    broken = Side(paths=corpus.faces.paths, matrix=matrix, root=corpus.faces.root)
    with pytest.raises(QueryError, match=corpus.faces.paths[2]):
        build_gallery(corpus.voices, broken, corpus.names, probes=2, top=3)
    none = Side(paths=[], matrix=matrix[:0], root=corpus.faces.root)
    with pytest.raises(UsageError, match="faces"):
        build_gallery(corpus.voices, none, corpus.names)


def test_damaged_files_are_named_and_leave_nothing(corpus: Corpus, tmp_path: Path) -> None:
    gallery = build_gallery(corpus.voices, corpus.faces, corpus.names, probes=2, top=3)
    bad = gallery.v2f[0].hits[0].path
    (corpus.faces.root / bad).write_bytes(b"not a picture")
    with pytest.raises(CorpusError, match=bad):
        write_gallery(gallery, tmp_path / "out", title="t")
    assert not (tmp_path / "out" / "gallery.html").exists()
    (corpus.voices.root / gallery.v2f[0].path).unlink()
    with pytest.raises(CorpusError, match=gallery.v2f[0].path):
        write_gallery(gallery, tmp_path / "out", title="t")


def test_out_that_is_a_file(corpus: Corpus, tmp_path: Path) -> None:
    gallery = build_gallery(corpus.voices, corpus.faces, corpus.names, probes=2, top=3)
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_gallery(gallery, tmp_path / "taken", title="t")
