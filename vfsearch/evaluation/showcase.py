"""The gallery page and the film of a split, from its store and its embeddings."""

from pathlib import Path

from vfsearch.config import CorpusConfig
from vfsearch.corpus.store import Store
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.gallery import Side, build_gallery, write_gallery
from vfsearch.evaluation.video import write_video


def write_showcase(
    store: Store,
    embeddings: Embeddings,
    corpus: CorpusConfig,
    out: Path,
    *,
    title: str,
    probes: int = 8,
    top: int = 10,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write ``gallery.html`` and ``retrieval_result.mp4`` into ``out``; returns both paths.

    Args:
        store: Split to show.
        embeddings: Of some or all of its voices and faces.
        corpus: Where their files are.
        out: Folder.
        title: Of page and film.
        probes: Probes per direction.
        top: Nearest instances shown for each.
        seed: Chooses the probes.

    Raises:
        UsageError: fewer instances than asked for, or ``out`` cannot be written.
    """
    rows = {path: row for row, path in enumerate(embeddings.paths)}

    def side(paths: list[str], root: Path) -> Side:
        known = [path for path in paths if path in rows]
        return Side(paths=known, matrix=embeddings.matrix[[rows[p] for p in known]], root=root)

    names = {who.voice_id: who.voice_id for who in store.identities}
    names |= {who.face_id: who.voice_id for who in store.identities}
    made = build_gallery(
        side(list(store.voice_paths), corpus.root / corpus.audio),
        side(list(store.face_paths), corpus.root / corpus.images),
        names,
        probes=probes,
        top=top,
        seed=seed,
    )
    subtitle = f"{store.name} split, {len(store.identities)} identities"
    page = write_gallery(made, out, title=title, subtitle=subtitle)
    return page, write_video(made, out, title=title)
