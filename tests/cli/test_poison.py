"""A pickle that would run code, given wherever a command takes a model: refused, and never run."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import complains, run
from support.registry_models import LENIENT, run_config, untrained, upload_run, write_corpus

from vfsearch.config import CorpusConfig
from vfsearch.errors import CheckpointError
from vfsearch.registry.promotion import promote
from vfsearch.registry.resolve import resolve_model
from vfsearch.tracking.connection import Connection
from vfsearch.training.checkpoint import FILES


class Poison:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.victim),)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    root = tmp_path_factory.mktemp("corpus")
    return write_corpus(root, each=2).model_copy(update={"store": root / "store"})


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def poisoned(corpus: CorpusConfig, tmp_path: Path, victim: Path, file: str, form: str) -> Path:
    """A checkpoint folder of which one file is a pickle."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(untrained(corpus, tmp_path / "whole", 1), folder)
    if form == "torch":
        torch.save({"weights": Poison(victim)}, folder / file)
    else:
        (folder / file).write_bytes(pickle.dumps(Poison(victim)))
    return folder


def test_the_poison_would_work(tmp_path: Path, victim: Path) -> None:
    pickle.loads(pickle.dumps(Poison(victim)))  # noqa: S301 - that it runs is the point
    assert victim.is_dir()


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("file", [name for name in FILES if not name.startswith("training")])
@pytest.mark.parametrize("command", ["evaluate", "gallery", "search"])
def test_every_command_refuses_a_poisoned_folder(
    command: str,
    file: str,
    form: str,
    corpus: CorpusConfig,
    tmp_path: Path,
    victim: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = poisoned(corpus, tmp_path, victim, file, form)
    voice = next((corpus.root / "wav").rglob("*.wav"))
    arguments: dict[str, list[object]] = {
        "evaluate": [folder, "--corpus", corpus.root],
        "gallery": [folder, "--corpus", corpus.root, "--out", tmp_path / "page"],
        "search": ["--voice", voice, "--faces", corpus.root / "faces", "--model", folder],
    }
    complains(run(capsys, command, *arguments[command]), 4, file)
    assert not victim.exists()
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.safetensors", "e.npz", "e.npy"])
@pytest.mark.parametrize("command", ["evaluate", "gallery", "search", "compare"])
def test_every_command_refuses_a_poisoned_file(
    command: str,
    name: str,
    corpus: CorpusConfig,
    tmp_path: Path,
    victim: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    if name == "e.npz":
        objects = np.array([Poison(victim)], dtype=object)
        np.savez(file, path=np.array(["a"]), embedding=objects)
    elif name == "e.npy":
        np.save(file, np.array([Poison(victim)], dtype=object), allow_pickle=True)
    else:
        torch.save({"weights": Poison(victim)}, file)
    lists = tmp_path / "match_v2f_2.txt"
    lists.write_text("a b c\n")
    csv = corpus.root / "vox1_test.csv"
    voice = next((corpus.root / "wav").rglob("*.wav"))
    arguments: dict[str, list[object]] = {
        "evaluate": [file, "--csv", csv, "--queries", lists],
        "compare": [file, file, "--csv", csv, "--queries", lists],
        "gallery": [file, "--corpus", corpus.root, "--out", tmp_path / "page"],
        "search": ["--voice", voice, "--faces", corpus.root / "faces", "--model", file],
    }
    code, _, errors = run(capsys, command, *arguments[command])
    assert code in (2, 3, 4)
    assert errors.count("vfsearch: error:") == 1
    assert "Traceback" not in errors
    assert not victim.exists()


@pytest.mark.slow
def test_a_poisoned_run_is_neither_promoted_nor_loaded(
    connection: Connection, corpus: CorpusConfig, tmp_path: Path, victim: Path
) -> None:
    folder = poisoned(corpus, tmp_path, victim, "model.safetensors", "torch")
    bad = upload_run(connection, folder)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        promote(connection, bad, run_config(corpus).corpus, LENIENT, model_name="poisoned")
    # MLflow's own kind of model, a pickle: registered by hand, it is still none of ours.
    client = connection.client()
    version = client.create_model_version(
        "poisoned", f"{connection.client().get_run(bad).info.artifact_uri}/checkpoints", bad
    )
    client.set_registered_model_alias("poisoned", "champion", version.version)
    with pytest.raises(CheckpointError, match="was not registered by vfsearch promote"):
        resolve_model("models:/poisoned@champion", lambda: connection)
    assert not victim.exists()
