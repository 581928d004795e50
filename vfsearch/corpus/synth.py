"""A synthetic corpus of real WAV and JPG files with a known Bayes ceiling.

Per identity: a gender and K latents z_k; the voice side is √ρ_k z_k + √(1−ρ_k) ε and the face side
likewise with its own ε (METHOD.md, 'The corpus that this project can ship'). Every identity,
modality and file has a random stream of its own, so the same seed gives the same bytes whatever
the number of processes, and more identities leave the first ones as they were.
"""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import soundfile
from filelock import FileLock

from vfsearch.corpus import face, voice
from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.decoding import SAMPLE_RATE
from vfsearch.corpus.layout import SPLITS, Identity, format_identities
from vfsearch.errors import CorpusError, UsageError

FORMAT = 1
_IDENTITY, _ORDER, _VOICE, _FACE = range(4)  # random streams
_NATIONALITIES = ("USA", "UK", "Canada", "India", "Australia", "Ireland", "Germany", "Norway")
_SHARES = (0.5, 0.17, 0.09, 0.08, 0.06, 0.04, 0.03, 0.03)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the bytes of a corpus."""

    identities: int
    voices: int
    faces: int
    seed: int
    rho: tuple[float, ...] = (0.6, 0.5, 0.4)
    gender_noise: float = 0.02
    split: tuple[float, float, float] = (0.6, 0.15, 0.25)
    format: int = FORMAT

    def problems(self) -> list[str]:
        """What is wrong with it, in words."""
        out = []
        if len(self.rho) != len(voice.LATENTS):
            out.append(f"rho needs {len(voice.LATENTS)} numbers, not {len(self.rho)}")
        if not all(0 <= rho < 1 for rho in self.rho):
            out.append(f"every rho must be in [0, 1), not {self.rho}")
        if not 0 <= self.gender_noise <= 0.5:
            out.append(f"gender noise must be in [0, 0.5], not {self.gender_noise}")
        if min(self.voices, self.faces) < 1:
            out.append("each identity needs at least one voice and one face")
        if min(self.split) <= 0 or abs(sum(self.split) - 1) > 1e-9:
            out.append(f"the split must be three positive shares of 1, not {self.split}")
        elif min(self.counts()) < 2:
            out.append(
                f"{self.identities} identities give splits of {self.counts()}; each needs 2 or more"
            )
        return out

    def counts(self) -> tuple[int, int, int]:
        """Identities for training, validation and test."""
        train, val = (round(share * self.identities) for share in self.split[:2])
        return train, val, self.identities - train - val


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What ``synthesise`` did."""

    root: Path
    recipe: Recipe
    reused: bool
    """The same corpus was there already."""


def synthesise(
    out: Path,
    recipe: Recipe,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Synthesis:
    """Write a corpus; the folder appears whole or not at all.

    Args:
        out: Corpus folder.
        recipe: What to make.
        workers: Processes; default: one per core.
        progress: Called with identities done and in all.

    Raises:
        UsageError: the recipe is wrong, or ``out`` holds something else.
        CorpusError: ``out`` cannot be written.
    """
    if problems := recipe.problems():
        raise UsageError("; ".join(problems))
    out = out.absolute()
    if _holds(out, recipe):
        return Synthesis(root=out, recipe=recipe, reused=True)
    partial = out.with_name(f".{out.name}.partial")
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            # Cleaned under the lock only: outside it the folder may be another process's.
            try:
                if not _holds(out, recipe):
                    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
                    _write(partial, recipe, workers, progress or (lambda _done, _all: None))
                    partial.replace(out)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                lock.unlink(missing_ok=True)  # filelock sees that and those who wait start anew
    except OSError as error:
        raise CorpusError(f"{out}: the corpus cannot be written ({error.strerror})") from None
    except BrokenProcessPool:
        raise CorpusError(
            f"{out}: a process that was writing the corpus was killed; is there enough memory? "
            "Try fewer processes"
        ) from None
    return Synthesis(root=out, recipe=recipe, reused=False)


def _holds(out: Path, recipe: Recipe) -> bool:
    if not out.exists():
        return False
    if out.is_dir() and not any(out.iterdir()):
        return False
    try:
        there = json.loads((out / "corpus.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{out}: is there already and is no synthetic corpus") from None
    wanted = json.loads(json.dumps(asdict(recipe)))
    if there != wanted:
        changed = [key for key in wanted if there.get(key) != wanted[key]]
        raise UsageError(
            f"{out}: holds another synthetic corpus ("
            + ", ".join(f"{key} {there.get(key)} instead of {wanted[key]}" for key in changed)
            + "); remove it or choose another folder"
        )
    return True


def _write(
    root: Path, recipe: Recipe, workers: int | None, progress: Callable[[int, int], None]
) -> None:
    root.mkdir()
    drawn = [_draw(recipe, row) for row in range(recipe.identities)]
    truth = Truth(
        voice_ids=[d.identity.voice_id for d in drawn],
        face_ids=[d.identity.face_id for d in drawn],
        voice_latents=np.array([d.voice for d in drawn]),
        face_latents=np.array([d.face for d in drawn]),
        voice_gender=np.array([d.voice_female for d in drawn]),
        face_gender=np.array([d.face_female for d in drawn]),
        rho=np.array(recipe.rho),
        gender_noise=recipe.gender_noise,
    )
    truth.save(root)
    order = np.random.default_rng([recipe.seed, _ORDER]).permutation(recipe.identities)
    ends = np.cumsum(recipe.counts())
    for name, rows in zip(SPLITS, np.split(order, ends[:-1]), strict=True):
        identities = [drawn[row].identity for row in sorted(rows)]
        subset = "test" if name == "test" else "dev"
        text = format_identities(identities, subset)
        (root / f"vox1_{name}.csv").write_bytes(text.encode())
    jobs = [(root, recipe, row) for row in range(recipe.identities)]
    processes = min(workers or os.cpu_count() or 1, recipe.identities)
    with ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent) as pool:
        for done, _ in enumerate(pool.map(_files, jobs, chunksize=1), start=1):
            progress(done, recipe.identities)
    provenance = {
        "what": "synthetic voices and faces; no recording and no photograph of a person",
        "recipe": asdict(recipe),
        "voice latents": voice.LATENTS,
        "face latents": face.LATENTS,
    }
    text = json.dumps(provenance, indent=2) + "\n"
    (root / "corpus.json").write_text(text, encoding="utf-8")


def _end_with_parent() -> None:
    """Of a killed run no worker must stay behind, waiting for work for ever."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    identity: Identity
    voice: np.ndarray
    face: np.ndarray
    voice_female: bool
    face_female: bool


def _draw(recipe: Recipe, row: int) -> _Drawn:
    random = np.random.default_rng([recipe.seed, _IDENTITY, row])
    female = bool(random.random() < 0.5)
    flips = random.random(2) < recipe.gender_noise
    # Drawn beside the latents and used by no file: it tells nothing that a model could hear or see.
    nationality = str(random.choice(_NATIONALITIES, p=_SHARES))
    rho = np.array(recipe.rho)
    shared, own_voice, own_face = random.normal(size=(3, len(rho)))
    return _Drawn(
        identity=Identity(
            voice_id=f"id{10001 + row:05d}",
            face_id=f"Synth_{row + 1:05d}",
            gender="f" if female else "m",
            nationality=nationality,
        ),
        voice=np.sqrt(rho) * shared + np.sqrt(1 - rho) * own_voice,
        face=np.sqrt(rho) * shared + np.sqrt(1 - rho) * own_face,
        voice_female=female != bool(flips[0]),
        face_female=female != bool(flips[1]),
    )


def _files(job: tuple[Path, Recipe, int]) -> None:
    """Write the voices and faces of one identity (runs in a worker process)."""
    root, recipe, row = job
    cv2.setNumThreads(1)
    drawn = _draw(recipe, row)
    speaker = voice.speaker(drawn.voice, drawn.voice_female, _stream(recipe, _VOICE, row, 0))
    for n in range(recipe.voices):
        random = _stream(recipe, _VOICE, row, n + 1)
        folder = root / "wav" / drawn.identity.voice_id / f"video{n // 2 + 1:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        sound = voice.utterance(speaker, float(random.uniform(4, 10)), random)
        soundfile.write(folder / f"{n % 2 + 1:05d}.wav", sound, SAMPLE_RATE, subtype="PCM_16")
    person = face.person(drawn.face, drawn.face_female, _stream(recipe, _FACE, row, 0))
    folder = root / "faces" / drawn.identity.face_id
    folder.mkdir(parents=True)
    for n in range(recipe.faces):
        picture = face.photograph(person, _stream(recipe, _FACE, row, n + 1))
        ok, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not ok:
            raise CorpusError(f"{folder}: a face could not be encoded")
        (folder / f"{n + 1:07d}.jpg").write_bytes(jpeg.tobytes())


def _stream(recipe: Recipe, stream: int, row: int, file: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, stream, row, file])
