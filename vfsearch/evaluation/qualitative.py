"""Qualitative results of a model on a split: the gallery page and the retrieval film."""

from dataclasses import dataclass
from pathlib import Path

from vfsearch.config import CorpusConfig
from vfsearch.corpus.layout import Split
from vfsearch.errors import QueryError
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.gallery import Side, build_gallery, write_gallery
from vfsearch.evaluation.video import write_video


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What was written."""

    page: Path
    film: Path


def show(
    embeddings: Embeddings,
    split: Split,
    config: CorpusConfig,
    out: Path,
    *,
    title: str,
    subtitle: str = "",
    probes: int = 8,
    top: int = 10,
    seed: int = 0,
) -> Shown:
    """Write ``gallery.html`` and ``retrieval_result.mp4`` (supplement, section 4 and figure 1).

    Args:
        embeddings: Voices and faces of the split, together; instances without one (files that the
            store excluded) are left out.
        split: Identities and files.
        config: Where the files are.
        out: Folder, made if it is missing.
        title: Headline.
        subtitle: Which model on which split.
        probes: Probes per direction.
        top: Hits shown for each; the film shows at most ten.
        seed: Chooses the probes.

    Raises:
        QueryError: no voice or no face of the split has an embedding.
        UsageError: fewer instances than asked for, or the folder cannot be written.
        CorpusError: a file that is shown cannot be read.
    """
    voices = _side(embeddings, [one.path for one in split.voices], config.root / config.audio)
    faces = _side(embeddings, [one.path for one in split.faces], config.root / config.images)
    for kind, side in (("voices", voices), ("faces", faces)):
        if not len(side.paths):
            raise QueryError(
                f"{embeddings.source}: holds no embedding of the {kind} of the {split.name} split"
            )
    names = {
        folder: who.voice_id for who in split.identities for folder in (who.voice_id, who.face_id)
    }
    gallery = build_gallery(voices, faces, names, probes=probes, top=top, seed=seed)
    return Shown(
        page=write_gallery(gallery, out, title=title, subtitle=subtitle),
        film=write_video(gallery, out, title=title),
    )


def _side(embeddings: Embeddings, paths: list[str], root: Path) -> Side:
    known = set(embeddings.paths)
    chosen = [path for path in paths if path in known]
    rows = embeddings.rows(chosen, "the split")
    return Side(paths=chosen, matrix=embeddings.matrix[rows], root=root)
