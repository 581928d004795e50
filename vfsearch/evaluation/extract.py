"""Features of a whole corpus by frozen encoders, extracted once (``vfsearch corpus features``)."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float32, Int64, Shaped
from torch import nn

import vfsearch
from vfsearch.config import CorpusConfig, FaceConfig, VoiceConfig
from vfsearch.corpus import features as files
from vfsearch.corpus.features import EncoderRecord, Extraction, Features
from vfsearch.corpus.layout import SPLITS, SplitName, scan_split, split_hash
from vfsearch.corpus.store import Store, open_store
from vfsearch.errors import CorpusError, UsageError
from vfsearch.evaluation.embed import SAMPLE_RATE, embed
from vfsearch.model.encoders import (
    FACE_DIMS,
    VOICE_DIMS,
    build_face,
    build_voice,
    weights_file,
)

CHUNK = 64
Progress = Callable[[int, int], None]


def extract(
    corpus: CorpusConfig,
    voice: VoiceConfig,
    face: FaceConfig,
    out: Path,
    *,
    splits: Sequence[SplitName] = SPLITS,
    audio_seconds: float = 10.0,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Encode every voice and face of the splits; the folder appears whole or not at all.

    An interrupted extraction goes on after its last whole split; a finished one is left as it is.

    Args:
        corpus: whose files.
        voice: encoder and weights.
        face: encoder and weights.
        out: folder to make.
        splits: which.
        audio_seconds: window at the start of each voice.
        device: where to encode; None: a GPU if there is one.
        progress: called with files done and in all.

    Raises:
        UsageError: ``out`` holds something else.
        CheckpointError: weights are missing or do not fit.
        CorpusError: a split is not usable, or the folder cannot be written.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scanned = {name: scan_split(corpus, name) for name in splits}
    plan = Extraction(
        voice=_record(voice, VOICE_DIMS[voice.encoder]),
        face=_record(face, FACE_DIMS[face.encoder]),
        audio_seconds=audio_seconds,
        face_size=corpus.face_size,
        software=vfsearch.__version__,
        splits={name: split_hash(split) for name, split in scanned.items()},
    )
    out = out.absolute()
    if _holds(out, plan):
        return plan
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_name(f".{out.name}.lock")):
            if not _holds(out, plan):
                _fill(partial, plan, corpus, voice, face, device, progress or (lambda *_: None))
                partial.replace(out)
    except OSError as error:
        raise CorpusError(f"{out}: features cannot be written ({error.strerror})") from None
    return plan


def _record(config: VoiceConfig | FaceConfig, dim: int) -> EncoderRecord:
    path = weights_file(config)
    return EncoderRecord(
        encoder=config.encoder,
        weights=None if config.weights is None or path is None else str(path.absolute()),
        sha256=None if path is None else files.sha256(path),
        dim=dim,
    )


def _holds(out: Path, plan: Extraction) -> bool:
    if not out.exists():
        return False
    try:
        there = files.read_index(out).extraction
    except CorpusError:
        raise UsageError(f"{out}: is there already and is no folder of features") from None
    changed = [key for key, value in there if value != getattr(plan, key) and key != "software"]
    if changed:
        raise UsageError(
            f"{out}: holds other features (their {', '.join(changed)}); remove it or choose "
            "another folder"
        )
    return True


def _fill(
    partial: Path,
    plan: Extraction,
    corpus: CorpusConfig,
    voice: VoiceConfig,
    face: FaceConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    marker = partial / "plan.json"
    text = plan.model_dump_json()
    if not marker.exists() or marker.read_text(encoding="utf-8") != text:
        shutil.rmtree(partial, ignore_errors=True)  # of other settings, or of another corpus
        partial.mkdir()
        marker.write_text(text, encoding="utf-8")
    encoders = build_voice(voice).to(device).eval(), build_face(face).to(device).eval()
    stores = {name: open_store(corpus, name) for name in plan.splits}
    total = sum(len(s.voice_paths) + len(s.face_paths) for s in stores.values())
    done = 0

    def count(files: int) -> None:
        nonlocal done
        done += files
        progress(done, total)

    for name, store in stores.items():
        finished = partial / f"{name}.done"
        if finished.exists():
            count(len(store.voice_paths) + len(store.face_paths))
            continue
        files.save_split(partial, _encode(store, plan, encoders, device, count))
        finished.touch()
    files.save_index(partial, plan)
    marker.unlink()
    for name in plan.splits:
        (partial / f"{name}.done").unlink()


def _encode(
    store: Store,
    plan: Extraction,
    encoders: tuple[nn.Module, nn.Module],
    device: torch.device,
    count: Callable[[int], None],
) -> Features:
    window = round(plan.audio_seconds * SAMPLE_RATE)

    def run(
        encoder: nn.Module,
        read: Callable[[Int64[np.ndarray, " chunk"]], Shaped[np.ndarray, "chunk ..."]],
        paths: Sequence[str],
    ) -> Float32[np.ndarray, "files dim"]:
        def counted(rows: Int64[np.ndarray, " chunk"]) -> Shaped[np.ndarray, "chunk ..."]:
            count(len(rows))
            return read(rows)

        with torch.inference_mode():
            encoded = embed(counted, encoder, np.arange(len(paths)), CHUNK, device)
        if (bad := ~np.isfinite(encoded).all(axis=1)).any():
            raise CorpusError(f"{paths[int(np.argmax(bad))]}: its features are not finite")
        return encoded

    voices, faces = encoders
    return Features(
        name=store.name,
        identities=store.identities,
        split_hash=store.split_hash,
        voice_features=run(voices, lambda rows: store.read_voices(rows, window), store.voice_paths),
        voice_identity=store.voice_identity,
        voice_paths=store.voice_paths,
        face_features=run(faces, store.read_faces, store.face_paths),
        face_identity=store.face_identity,
        face_paths=store.face_paths,
        excluded=store.excluded,
        extraction=plan,
    )
