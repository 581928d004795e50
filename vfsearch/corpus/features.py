"""Extracted features: what frozen encoders made of every file of a corpus, memory-mapped.

One folder: per split two float32 arrays (``train-voice.npy``, ``train-face.npy``) and
``train.json`` with the identities and paths of their rows; ``features.json`` says which encoders
made them of which files, and holds the SHA-256 of every other file. It is written last, and the
folder is renamed into place, so what can be opened is whole.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from vfsearch.config import CorpusConfig, FaceConfig, RunConfig, VoiceConfig
from vfsearch.corpus.layout import (
    Identity,
    SplitName,
    csv_path,
    read_identities,
    scan_split,
    split_hash,
)
from vfsearch.corpus.store import Store, open_store
from vfsearch.corpus.store_build import Excluded
from vfsearch.errors import CorpusError

INDEX = "features.json"
FORMAT: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderRecord(_Record):
    """The encoder that made the features of one modality."""

    encoder: str
    """As in ``model.face.encoder`` or ``model.voice.encoder``."""
    weights: str | None
    """Where its weights were; None where it has none, or a package holds them."""
    sha256: str | None
    """Of the file of weights."""
    dim: int


class Extraction(_Record):
    """How features were made; the same in every split of a folder."""

    format: Literal[1] = FORMAT
    voice: EncoderRecord
    face: EncoderRecord
    audio_seconds: float
    """The first so many seconds of each voice, repeated where it is shorter."""
    face_size: int
    """Side of the faces that the encoder saw, pixels."""
    software: str
    """Version of vfsearch that made them."""
    splits: dict[SplitName, str]
    """``split_hash`` of each."""


class FeatureIndex(_Record):
    """``features.json``."""

    extraction: Extraction
    files: dict[str, str]
    """SHA-256 of every other file of the folder."""


class SplitIndex(_Record):
    """``train.json`` and its like: what the rows are."""

    identities: list[tuple[str, str, Literal["m", "f"], str]]
    """Voice id, face id, gender and nationality."""
    voice_paths: list[str]
    voice_identity: list[int]
    face_paths: list[str]
    face_identity: list[int]
    excluded: list[Excluded]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of one split; reads like a decoded store."""

    name: SplitName
    identities: tuple[Identity, ...]
    split_hash: str
    face_features: Float32[np.ndarray, "faces dim"]
    face_identity: Int64[np.ndarray, " faces"]
    face_paths: Sequence[str]
    voice_features: Float32[np.ndarray, "voices dim"]
    voice_identity: Int64[np.ndarray, " voices"]
    voice_paths: Sequence[str]
    excluded: tuple[Excluded, ...]
    extraction: Extraction

    def read_faces(self, rows: Int64[np.ndarray, " batch"]) -> Float32[np.ndarray, "batch dim"]:
        """Features of faces, copied."""
        return np.asarray(self.face_features[rows])

    def read_voices(
        self,
        rows: Int64[np.ndarray, " batch"],
        samples: int,  # noqa: ARG002 - the window was chosen when they were made
    ) -> Float32[np.ndarray, "batch dim"]:
        """Features of voices, copied."""
        return np.asarray(self.voice_features[rows])

    def draw_voices(
        self,
        rows: Int64[np.ndarray, " batch"],
        where: Float[np.ndarray, " batch"],  # noqa: ARG002
        samples: int,
    ) -> Float32[np.ndarray, "batch dim"]:
        """Features of voices, copied; they are of one window each."""
        return self.read_voices(rows, samples)


def open_split(config: RunConfig, name: SplitName) -> Store | Features:
    """What a run trains or validates on: its features if it names any, else decoded files."""
    if config.corpus.features is None:
        return open_store(config.corpus, name)
    features = open_features(config.corpus.features, name)
    _check_settings(features.extraction, config)
    _check_corpus(features, config.corpus)
    return features


def open_features(folder: Path, name: SplitName) -> Features:
    """Map the features of one split.

    Raises:
        CorpusError: no such folder or split, or a file is not what was written.
    """
    index = read_index(folder)
    if name not in index.extraction.splits:
        raise CorpusError(
            f"{folder}: holds no features of the {name} split, only of "
            f"{', '.join(index.extraction.splits)}"
        )
    paths = {what: folder / file for what, file in split_files(name).items()}
    for path in paths.values():
        if sha256(path) != index.files.get(path.name):
            raise CorpusError(
                f"{path}: is missing or not as it was written; remove {folder} and extract again"
            )
    rows = SplitIndex.model_validate_json(paths["index"].read_bytes())
    voices, faces = (np.load(paths[what], mmap_mode="r") for what in ("voice", "face"))
    return Features(
        name=name,
        identities=tuple(
            Identity(voice_id=voice, face_id=face, gender=gender, nationality=nationality)
            for voice, face, gender, nationality in rows.identities
        ),
        split_hash=index.extraction.splits[name],
        face_features=faces,
        face_identity=np.array(rows.face_identity, np.int64),
        face_paths=rows.face_paths,
        voice_features=voices,
        voice_identity=np.array(rows.voice_identity, np.int64),
        voice_paths=rows.voice_paths,
        excluded=tuple(rows.excluded),
        extraction=index.extraction,
    )


def read_index(folder: Path) -> FeatureIndex:
    """``features.json`` of a folder.

    Raises:
        CorpusError: it is not there, or of another format.
    """
    path = folder / INDEX
    try:
        return FeatureIndex.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror}); make a folder of features with "
            "'vfsearch corpus features'"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise CorpusError(
            f"{path}: is no index of features in format {FORMAT} ({key}: {first['msg']})"
        ) from None


def split_files(name: SplitName) -> dict[str, str]:
    """The files of a split in a folder of features."""
    return {"index": f"{name}.json", "voice": f"{name}-voice.npy", "face": f"{name}-face.npy"}


def sha256(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def save_split(folder: Path, features: Features) -> None:
    """Write the files of a split (all but ``features.json``)."""
    files = split_files(features.name)
    rows = {
        "identities": [
            (who.voice_id, who.face_id, who.gender, who.nationality) for who in features.identities
        ],
        "voice_paths": list(features.voice_paths),
        "voice_identity": features.voice_identity.tolist(),
        "face_paths": list(features.face_paths),
        "face_identity": features.face_identity.tolist(),
        "excluded": features.excluded,
    }
    (folder / files["index"]).write_text(json.dumps(rows), encoding="utf-8")
    np.save(folder / files["voice"], np.asarray(features.voice_features, np.float32))
    np.save(folder / files["face"], np.asarray(features.face_features, np.float32))


def save_index(folder: Path, extraction: Extraction) -> None:
    """Write ``features.json`` over the files of every split."""
    files = {}
    for name in extraction.splits:
        for file in split_files(name).values():
            files[file] = sha256(folder / file) or ""
    index = FeatureIndex(extraction=extraction, files=files)
    (folder / INDEX).write_text(index.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _check_settings(made: Extraction, config: RunConfig) -> None:
    """Refuse features that the run's own settings would not make."""
    wrong = [
        *_encoder_problems("face", made.face, config.model.face),
        *_encoder_problems("voice", made.voice, config.model.voice),
    ]
    for key, there, wanted in (
        ("evaluation.audio_seconds", made.audio_seconds, config.evaluation.audio_seconds),
        ("corpus.face_size", made.face_size, config.corpus.face_size),
    ):
        if there != wanted:
            wrong.append(f"they were made with {key}={there:g}, not {wanted:g}")
    if wrong:
        raise CorpusError(
            f"{config.corpus.features}: these features do not fit the run: {'; '.join(wrong)}"
        )


def _encoder_problems(
    what: str, made: EncoderRecord, config: FaceConfig | VoiceConfig
) -> list[str]:
    key = f"model.{what}"
    if made.encoder != config.encoder:
        return [f"they were made with {key}.encoder={made.encoder}, not {config.encoder}"]
    if config.weights is not None and sha256(Path(config.weights)) not in (None, made.sha256):
        return [f"they were made with other {key}.weights than {config.weights}"]
    return []


def _check_corpus(features: Features, corpus: CorpusConfig) -> None:
    """Where the corpus itself is at hand it must be the one that the features are of."""
    wanted: str | tuple[Identity, ...]
    there: str | tuple[Identity, ...]
    if all((corpus.root / folder).is_dir() for folder in (corpus.audio, corpus.images)):
        wanted, there = split_hash(scan_split(corpus, features.name)), features.split_hash
        what = "the files of the corpus"
    elif (path := csv_path(corpus, features.name)).exists():
        wanted, there, what = read_identities(path), features.identities, str(path)
    else:
        return
    if wanted != there:
        raise CorpusError(
            f"{corpus.features}: the features of the {features.name} split are not of {what} "
            f"as they are now ({corpus.root}); extract them again"
        )
