"""The decoded store: exact content, bad files, one build per machine, nothing half-built."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from support.small_corpus import small_corpus

from vfsearch.config import CorpusConfig
from vfsearch.corpus.check import check_corpus
from vfsearch.corpus.layout import SPLITS
from vfsearch.corpus.store import open_store
from vfsearch.errors import CorpusError, UnusableSplitError


@pytest.fixture
def config(tmp_path: Path) -> CorpusConfig:
    return small_corpus(tmp_path / "corpus", store=tmp_path / "store")


def _voices(config: CorpusConfig) -> list[Path]:
    """Of the first identity of the training split."""
    return sorted((config.root / "wav" / "id00001").rglob("*.wav"))


def _faces(config: CorpusConfig) -> list[Path]:
    return sorted((config.root / "faces" / "Some_One_1").glob("*.jpg"))


def test_the_store_holds_what_the_files_hold(config: CorpusConfig) -> None:
    store = open_store(config, "train")
    assert store.excluded == ()
    assert store.voice_paths == sorted(store.voice_paths)
    for row, path in enumerate(store.voice_paths):
        wanted, rate = soundfile.read(config.root / "wav" / path, dtype="int16")
        assert rate == 16_000
        np.testing.assert_array_equal(store.voice(row), wanted)
        assert store.voice_lengths[row] == len(wanted)
        assert path.startswith(store.identities[store.voice_identity[row]].voice_id + "/")
    for row, path in enumerate(store.face_paths):
        bgr = cv2.imread(str(config.root / "faces" / path))
        wanted = cv2.resize(bgr, (32, 32), interpolation=cv2.INTER_AREA)[..., ::-1]
        np.testing.assert_array_equal(store.faces[row], wanted)
        assert path.startswith(store.identities[store.face_identity[row]].face_id + "/")


def test_the_second_opening_decodes_nothing(config: CorpusConfig) -> None:
    open_store(config, "train")
    told: list[int] = []
    store = open_store(config, "train", lambda done, _all: told.append(done))
    assert told == []
    assert isinstance(store.faces, np.memmap)
    assert not store.faces.flags.writeable
    assert not store.voice(0).flags.writeable


def test_a_changed_file_is_decoded_again(config: CorpusConfig) -> None:
    open_store(config, "train")
    new = np.arange(8000, dtype=np.int16)
    soundfile.write(_voices(config)[0], new, 16_000, subtype="PCM_16")
    store = open_store(config, "train")
    row = list(store.voice_paths).index(str(_voices(config)[0].relative_to(config.root / "wav")))
    np.testing.assert_array_equal(store.voice(row), new)


def _write(samples: int, rate: int, channels: int) -> Callable[[Path], None]:
    sound = np.ones((samples, channels), np.int16)
    return lambda path: soundfile.write(path, sound, rate, subtype="PCM_16")


def _cut(keep: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def _filled(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


BAD_VOICES: dict[str, Callable[[Path], None]] = {
    "is empty": _filled(b""),
    "is no audio file": _filled(b"not a sound"),
    "has 8000 samples per second": _write(8000, 8000, 1),
    "has 2 channels": _write(8000, 16_000, 2),
    "holds no sound": _write(0, 16_000, 1),
    "(Is a directory)": _folder,
    "cannot be read": _gone,
}
BAD_FACES: dict[str, Callable[[Path], None]] = {
    "is empty": _filled(b""),
    "is no whole JPEG": _cut(0.6),
    "is no image": _filled(b"no picture\xff\xd9"),
    "(Is a directory)": _folder,
    "(No such file or directory)": _gone,
}


@pytest.mark.parametrize(
    ("files", "reason", "damage"),
    [(_voices, *item) for item in BAD_VOICES.items()]
    + [(_faces, *item) for item in BAD_FACES.items()],
)
def test_a_bad_file_is_left_out_and_told(
    config: CorpusConfig,
    files: Callable[[CorpusConfig], list[Path]],
    reason: str,
    damage: Callable[[Path], None],
) -> None:
    bad = files(config)[1]
    damage(bad)
    store = open_store(config, "train")
    counts = (len(store.voice_paths), len(store.face_paths))
    assert counts == ((11, 12) if bad.suffix == ".wav" else (12, 11))
    ((path, told),) = store.excluded
    assert path == str(bad)
    assert reason in told
    assert isinstance(store.faces, np.memmap), "mapped, not copied, whatever is left out"
    test_kept_files_are_where_they_should_be(config)


def test_kept_files_are_where_they_should_be(config: CorpusConfig) -> None:
    store = open_store(config, "train")
    assert len(store.faces) == len(store.face_paths) == len(store.face_identity)
    for row, path in enumerate(store.voice_paths):
        wanted = soundfile.read(config.root / "wav" / path, dtype="int16")[0]
        np.testing.assert_array_equal(store.voice(row), wanted)
    for row, path in enumerate(store.face_paths):
        bgr = cv2.imread(str(config.root / "faces" / path))
        wanted = cv2.resize(bgr, (32, 32), interpolation=cv2.INTER_AREA)[..., ::-1]
        np.testing.assert_array_equal(store.faces[row], wanted)


def test_a_voice_cut_short_never_gives_wrong_sound(config: CorpusConfig) -> None:
    """libsndfile repairs the length in the header: what is there is whole samples, in order."""
    path = _voices(config)[1]
    before = soundfile.read(path, dtype="int16")[0]
    _cut(0.5)(path)
    store = open_store(config, "train")
    name = str(path.relative_to(config.root / "wav"))
    if name in store.voice_paths:
        left = store.voice(list(store.voice_paths).index(name))
        np.testing.assert_array_equal(left, before[: len(left)])
    else:
        assert str(path) in dict(store.excluded)


@pytest.mark.parametrize("files", [_voices, _faces])
def test_a_lost_identity_is_refused_by_name(
    config: CorpusConfig, files: Callable[[CorpusConfig], list[Path]]
) -> None:
    for path in files(config):
        path.write_bytes(b"")
    with pytest.raises(UnusableSplitError, match=r"loses 1 of 4 identities.*\n.*id00001") as caught:
        open_store(config, "train")
    assert "is empty" in str(caught.value)
    with pytest.raises(UnusableSplitError):  # also when it has been decoded before
        open_store(config, "train")
    report = check_corpus(config)
    assert not report.ok
    assert [split.problem is None for split in report.splits] == [False, True, True]


def test_a_moved_corpus_names_its_bad_files_where_they_are_now(config: CorpusConfig) -> None:
    _voices(config)[0].write_bytes(b"")
    open_store(config, "train")
    moved = config.model_copy(update={"root": config.root.rename(config.root.parent / "moved")})
    ((path, _),) = open_store(moved, "train").excluded
    assert Path(path).exists()
    assert check_corpus(moved).splits[0].voices == 11


def test_the_check_counts_and_passes(config: CorpusConfig) -> None:
    report = check_corpus(config)
    assert report.ok
    assert [(s.name, s.identities, s.voices, s.faces) for s in report.splits] == [
        (name, 4, 12, 12) for name in SPLITS
    ]


def test_the_check_finds_missing_splits_and_shared_identities(config: CorpusConfig) -> None:
    (config.root / "vox1_val.csv").unlink()
    (config.root / "vox1_test.csv").write_bytes((config.root / "vox1_train.csv").read_bytes())
    report = check_corpus(config)
    assert not report.ok
    assert "vox1_val.csv" in (report.splits[1].problem or "")
    assert any("id00001 stands in train and test" in told for told in report.shared)


@pytest.mark.parametrize("name", ["index.npz", "voices.i16", "faces.u8", "excluded.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_store_is_refused(config: CorpusConfig, name: str, keep: float) -> None:
    open_store(config, "train")
    (path,) = (config.store or Path()).glob(f"train-*/{name}")
    if name == "excluded.json":
        path.write_text("[[", encoding="utf-8")
    else:
        _cut(keep)(path)
    with pytest.raises(CorpusError, match="remove the folder"):
        open_store(config, "train")


def test_a_store_that_cannot_be_written_is_told(config: CorpusConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"store cannot be written.*corpus\.store"):
        open_store(config.model_copy(update={"store": tmp_path / "file" / "store"}), "train")


OPENER = """
import json, os, signal, sys
from pathlib import Path
from vfsearch.config import CorpusConfig
from vfsearch.corpus import store as module
mode, root, store = sys.argv[1:]
def build(*args, made=module.build):
    print("building", flush=True)
    made(*args)
module.build = build
if mode == "wait":
    sys.stdin.readline()
def progress(done, total):
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
config = CorpusConfig(root=Path(root), face_size=32, store=Path(store))
opened = module.open_store(config, "train", progress)
print(json.dumps([len(opened.voice_paths), int(opened.samples[:100].astype(int).sum())]))
"""


def _opener(mode: str, config: CorpusConfig) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", OPENER, mode, str(config.root), str(config.store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_processes_that_open_at_once_build_once(config: CorpusConfig) -> None:
    openers = [_opener("wait", config) for _ in range(3)]
    for process in openers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].split("\n") for process in openers]
    assert all(process.returncode == 0 for process in openers)
    assert sum("building" in lines for lines in answers) == 1
    assert len({lines[-2] for lines in answers}) == 1


@pytest.mark.fault
def test_a_killed_build_is_never_used(config: CorpusConfig) -> None:
    killed = _opener("die", config)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in (config.store or Path()).iterdir() if path.is_dir()] == [
        ".partial"
    ]
    again = _opener("open", config)
    lines = again.communicate(timeout=120)[0].split("\n")
    assert again.returncode == 0
    assert "building" in lines
    assert json.loads(lines[-2])[0] == 12
    assert not list((config.store or Path()).glob("*.partial"))
    test_kept_files_are_where_they_should_be(config)
