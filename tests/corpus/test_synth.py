"""The synthetic corpus: same bytes, separate streams, latents that show, nothing half-written."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import soundfile
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.config import CorpusConfig
from vfsearch.corpus import face, voice
from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.check import check_corpus
from vfsearch.corpus.layout import SPLITS, scan_split
from vfsearch.corpus.synth import Recipe, synthesise
from vfsearch.errors import CorpusError, UsageError

RECIPE = Recipe(identities=10, voices=2, faces=2, seed=7)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "corpus"
    synthesise(out, RECIPE, workers=2)
    return out


def _hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes_whatever_the_processes(corpus: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", RECIPE, workers=1)
    assert _hashes(tmp_path / "again") == _hashes(corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_more_identities_leave_the_first_as_they_were(corpus: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "more", replace(RECIPE, identities=11, voices=1, faces=1), workers=1)
    files = {name: sha for name, sha in _hashes(tmp_path / "more").items() if "/" in name}
    shared = files.keys() & _hashes(corpus).keys()
    assert len(shared) == 20
    assert all(files[name] == _hashes(corpus)[name] for name in shared)


def test_another_seed_shares_no_file(corpus: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "other", replace(RECIPE, seed=8, voices=1, faces=1), workers=1)
    assert not set(_hashes(tmp_path / "other").values()) & set(_hashes(corpus).values())


def test_layout_and_formats_are_those_of_the_real_corpus(corpus: Path) -> None:
    config = CorpusConfig(root=corpus)
    report = check_corpus(config)
    assert report.ok
    assert [split.identities for split in report.splits] == list(RECIPE.counts())
    truth = Truth.load(corpus)
    assert truth is not None
    listed = [who for name in SPLITS for who in scan_split(config, name).identities]
    assert {(who.voice_id, who.face_id) for who in listed} == set(
        zip(truth.voice_ids, truth.face_ids, strict=True)
    )
    assert (corpus / "vox1_train.csv").read_bytes().count(b"\r\n") == RECIPE.counts()[0] + 1
    for path in corpus.glob("wav/*/*/*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 4 <= info.duration <= 10
        sound = soundfile.read(path)[0]
        assert 0.3 < np.abs(sound).max() < 1.0
        assert np.sqrt((sound**2).mean()) > 0.01
    for path in corpus.glob("faces/*/*.jpg"):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape == (160, 160, 3)
        assert picture.std() > 10


def test_a_finished_corpus_is_reused_and_no_other_overwritten(corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert synthesise(corpus, RECIPE).reused
    with pytest.raises(UsageError, match="seed 7 instead of 9"):
        synthesise(corpus, replace(RECIPE, seed=9))
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="is no synthetic corpus"):
        synthesise(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rho": (0.5, 0.5)}, "rho needs 3 numbers"),
        ({"rho": (0.5, 0.5, 1.0)}, "every rho must be in"),
        ({"gender_noise": 0.6}, "gender noise must be in"),
        ({"voices": 0}, "at least one voice"),
        ({"split": (0.5, 0.5, 0.5)}, "three positive shares"),
        ({"identities": 4}, "each needs 2 or more"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        synthesise(tmp_path / "out", replace(RECIPE, **change))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="cannot be written"):
        synthesise(tmp_path / "file" / "out", RECIPE)


class _StopError(Exception):
    pass


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, _all: int) -> None:
        raise _StopError

    with pytest.raises(_StopError):
        synthesise(tmp_path / "out", RECIPE, workers=1, progress=stop)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from vfsearch.corpus.synth import Recipe, synthesise
def progress(done, total):
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    synthesise(Path(sys.argv[1]), Recipe(identities=10, voices=2, faces=2, seed=7), workers=2,
               progress=progress)
"""


@retry(retry=retry_if_result(bool), stop=stop_after_delay(30), wait=wait_fixed(0.1))
def _left(marker: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.environ().get("VFSEARCH_TEST_MARKER", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.fault
def test_a_killed_run_is_not_mistaken_for_a_corpus(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    out = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, str(script), str(out)],
        env=os.environ | {"VFSEARCH_TEST_MARKER": str(tmp_path)},
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert _left(str(tmp_path)) == []
    assert not synthesise(out, RECIPE, workers=2).reused
    assert _hashes(out) == _hashes(corpus)


def test_the_files_know_only_latents_and_shown_gender() -> None:
    """Same latents, gender and stream: same speaker and person; the streams are all the rest."""
    latents = np.array([0.3, -1.0, 0.7])
    for make in (voice.speaker, face.person):
        one, other = (make(latents, True, np.random.default_rng(5)) for _ in range(2))
        assert repr(one) == repr(other)


def _pitch(sound: np.ndarray) -> float:
    """Median fundamental of the louder frames, by autocorrelation, Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(float), 800)[::400]
    frames = frames[np.argsort(frames.std(1))[len(frames) // 2 :]] * np.hanning(800)
    power = np.abs(np.fft.rfft(frames, 2048)) ** 2
    lags = np.fft.irfft(power)[:, 40:267]  # 60 to 400 Hz
    return float(np.median(16_000 / (40 + lags.argmax(1))))


def test_pitch_follows_its_latent_and_gender() -> None:
    heard = {
        (female, latent): _pitch(
            voice.utterance(
                voice.speaker(np.array([latent, 0, 0]), female, np.random.default_rng(1)),
                6.0,
                np.random.default_rng(2),
            )
        )
        for female in (False, True)
        for latent in (-2.0, 0.0, 2.0)
    }
    for female, base in ((False, 118.0), (True, 205.0)):
        for latent in (-2.0, 0.0, 2.0):
            wanted = base * np.exp(0.12 * latent)
            assert heard[female, latent] == pytest.approx(wanted, rel=0.12)


@pytest.mark.parametrize("latent", range(3))
def test_each_face_latent_changes_the_picture_smoothly(latent: int) -> None:
    """A step along a latent moves the picture, and farther steps move it farther."""
    pictures = []
    for value in (-2.0, -1.0, 0.0, 1.0, 2.0):
        latents = np.zeros(3)
        latents[latent] = value
        who = face.person(latents, True, np.random.default_rng(3))
        picture = face.photograph(who, np.random.default_rng(4)).astype(float)
        pictures.append(cv2.resize(picture, (20, 20), interpolation=cv2.INTER_AREA))
    away = [float(np.abs(picture - pictures[0]).mean()) for picture in pictures]
    assert away == sorted(away)
    assert away[1] > 0.3
