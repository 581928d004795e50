"""The gallery: what a model takes for the same person, to see and to hear.

Section 4 and figure 1 of the supplement: for each probe the ten nearest of the other modality,
matches in red, mismatches in green; and, because colour alone is no cue, in words and in the kind
of frame too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfsearch.errors import UsageError
from vfsearch.evaluation import page
from vfsearch.evaluation.media import (
    encode_voice,
    face_jpeg,
    loudness,
    read_voice,
)
from vfsearch.evaluation.neighbours import (
    Matrix,
    Retrieval,
    choose_probes,
    identities_of,
    retrieve,
)

SECONDS = 5.0
"""Length of every voice heard: the training window of the paper at its longest."""
SIDE = 160
"""Longest side of every face shown, pixels."""
BARS = 56
"""Bars of a voice's drawn shape."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One modality of a split with its embeddings."""

    paths: Sequence[str]
    """Relative to ``root``, POSIX, first component the identity's folder."""
    matrix: Matrix
    """One row per path."""
    root: Path
    """Folder of the files."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Both directions of a few retrievals: what the page and the video show."""

    voices: Path
    faces: Path
    v2f: tuple[Retrieval, ...]
    f2v: tuple[Retrieval, ...]
    voice_count: int
    face_count: int
    identity_count: int


def build_gallery(
    voices: Side,
    faces: Side,
    names: Mapping[str, str],
    *,
    probes: int = 8,
    top: int = 10,
    seed: int = 0,
) -> Gallery:
    """Choose probes by seed and rank the other modality for each.

    Args:
        voices: Voices of a split.
        faces: Faces of the same split.
        names: Identity of each voice and face folder (both kinds of IDs to one name).
        probes: Probes per direction, of different identities as long as there are enough.
        top: Hits shown for each.
        seed: Chooses the probes.

    Raises:
        UsageError: one of the modalities is empty, or has fewer instances than asked for.
        QueryError: a path of no known identity, or an embedding that cannot be compared.
    """
    for kind, side in (("voices", voices), ("faces", faces)):
        if not len(side.paths):
            raise UsageError(f"a gallery needs {kind}, but there are none")
    who = {id(side): identities_of(side.paths, names) for side in (voices, faces)}

    def direction(one: Side, other: Side) -> tuple[Retrieval, ...]:
        mine, theirs = who[id(one)], who[id(other)]
        chosen = choose_probes(one.paths, mine, probes, seed)
        return tuple(
            retrieve(
                chosen, one.paths, one.matrix, mine, other.paths, other.matrix, theirs, top=top
            )
        )

    return Gallery(
        voices=voices.root,
        faces=faces.root,
        v2f=direction(voices, faces),
        f2v=direction(faces, voices),
        voice_count=len(voices.paths),
        face_count=len(faces.paths),
        identity_count=len({*who[id(voices)], *who[id(faces)]}),
    )


def write_gallery(gallery: Gallery, out: Path, *, title: str, subtitle: str = "") -> Path:
    """Write ``gallery.html`` into a folder: one file, nothing else needed to see and hear it.

    Returns:
        Path of the page.

    Raises:
        CorpusError: a voice or face cannot be read.
        UsageError: the folder cannot be written.
    """
    media = _Media(gallery)
    sections = [
        _section("v2f", "Voice → face", "voice", "faces", gallery.v2f, gallery.face_count, media),
        _section("f2v", "Face → voice", "face", "voices", gallery.f2v, gallery.voice_count, media),
    ]
    text = page.render(
        "gallery.html",
        styles=["gallery.css"],
        scripts=["gallery.js"],
        title=title,
        subtitle=subtitle,
        sections=sections,
        counts={
            "voices": gallery.voice_count,
            "faces": gallery.face_count,
            "identities": gallery.identity_count,
        },
        seconds=f"{SECONDS:g}",
        media=media,
    )
    return page.write(out / "gallery.html", text)


class _Media:
    """Data addresses of the files shown; each file is coded once."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._faces: dict[str, str] = {}
        self._voices: dict[str, dict[str, Any]] = {}

    def face(self, path: str) -> str:
        """JPEG as a data address."""
        if path not in self._faces:
            content = face_jpeg(self._gallery.faces / path, SIDE)
            self._faces[path] = page.data_uri("image/jpeg", content)
        return self._faces[path]

    def voice(self, path: str) -> dict[str, Any]:
        """AAC as a data address, length in seconds, and bars to draw."""
        if path not in self._voices:
            sound, rate = read_voice(self._gallery.voices / path, SECONDS)
            heights = loudness(sound, BARS)
            self._voices[path] = {
                "source": page.data_uri("audio/mp4", encode_voice(sound, rate)),
                "seconds": f"{len(sound) / rate:.1f}",
                "bars": [
                    (3 * i, round(16 - 15 * h, 1), round(max(30 * h, 1.5), 1))
                    for i, h in enumerate(heights.tolist())
                ],
            }
        return self._voices[path]


def _section(
    key: str,
    title: str,
    probe: str,
    others: str,
    found: Sequence[Retrieval],
    size: int,
    media: _Media,
) -> dict[str, Any]:
    top = len(found[0].hits)
    return {
        "key": key,
        "title": title,
        "probe": probe,
        "others": others,
        "size": size,
        "found": found,
        "shown": top * len(found),
        "matches": sum(hit.match for one in found for hit in one.hits),
        "chance": f"{sum(one.chance for one in found):.1f}",
        "first": sum(one.hits[0].match for one in found),
        "show": media.face if probe == "voice" else media.voice,
    }
