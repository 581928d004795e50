"""Models that were trained on features: promoted with their encoders, they embed raw files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.registry_models import LENIENT, Models, run_config, upload_run
from support.tiny_run import Recorder

from vfsearch.config import CorpusConfig, FaceConfig, RunConfig, VoiceConfig, home
from vfsearch.errors import CheckpointError
from vfsearch.evaluation.discriminants import FEATURES, write_discriminants
from vfsearch.evaluation.extract import extract
from vfsearch.registry.assess import assess
from vfsearch.registry.embedder import FileEmbedder, Source
from vfsearch.registry.package import PACKAGED, package_model
from vfsearch.registry.promotion import promote
from vfsearch.registry.resolve import ResolvedModel, resolve_model
from vfsearch.registry.whole import whole
from vfsearch.tracking.connection import Connection
from vfsearch.training.checkpoint import read_state
from vfsearch.training.loop import train


@contextmanager
def away(folder: Path | None) -> Iterator[None]:
    """As on a machine that never had the folder."""
    if folder is None:
        yield
        return
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        yield
    finally:
        hidden.rename(folder)


def _source(modality: Literal["voice", "face"], path: Path) -> Source:
    return Source(modality=modality, name=str(path), data=path.read_bytes())


@dataclass(frozen=True)
class Trained:
    """A run on features and what its features came from."""

    checkpoint: Path
    encoders: Path | None
    """Folder of the encoders' weights, if they have any."""


def trained(corpus: CorpusConfig, features: Path, encoder: str, out: Path) -> Path:
    """The best checkpoint of a short run on features."""
    config = run_config(corpus).model_dump(mode="json")
    config["corpus"]["features"] = str(features)
    for what in ("voice", "face"):
        config["model"][what] = {"encoder": encoder, "frozen": True}
    config["training"] |= {"augment": False, "epoch_steps": 10}
    config["training"]["stages"]["warm_up"] = 10
    done = train(RunConfig.model_validate(config), out, Recorder(), device=torch.device("cpu"))
    return done.best


@pytest.fixture(scope="module")
def statistics(tiny_corpus: CorpusConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("statistics")
    extract(
        tiny_corpus,
        VoiceConfig(encoder="statistics", frozen=True),
        FaceConfig(encoder="statistics", frozen=True),
        root / "features",
        audio_seconds=1.0,
    )
    return Trained(trained(tiny_corpus, root / "features", "statistics", root / "run"), None)


@pytest.fixture(scope="module")
def discriminants(
    statistics: Trained, tiny_corpus: CorpusConfig, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    root = tmp_path_factory.mktemp("discriminants")
    source = read_state(statistics.checkpoint).config.corpus.features
    assert source is not None
    made = root / "made"
    write_discriminants(source, made)
    return Trained(trained(tiny_corpus, made / FEATURES, "discriminants", root / "run"), made)


@pytest.fixture(params=["statistics", "discriminants"])
def model(request: pytest.FixtureRequest) -> Trained:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Trained)
    return found


def test_promoted_with_its_encoders_it_embeds_raw_files_anywhere(
    model: Trained,
    connection: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
    name: str,
    tmp_path: Path,
) -> None:
    run = upload_run(connection, model.checkpoint)
    wanted = assess(model.checkpoint, tiny_corpus, bootstrap=0, galleries=(2,), strata=("U",))
    first = promote(connection, run, tiny_corpus, LENIENT, model_name=name)
    assert first.outcome == "promoted"
    assert first.candidate is not None
    np.testing.assert_allclose(first.candidate.embeddings.unit, wanted.embeddings.unit, atol=2e-6)

    store, root = wanted.store, tiny_corpus.root
    sources = [
        *(_source("voice", root / "wav" / path) for path in store.voice_paths),
        *(_source("face", root / "faces" / path) for path in store.face_paths),
    ]
    # Another machine: neither the encoders nor anything that was fetched before is there.
    shutil.rmtree(home() / "models")
    with away(model.encoders):
        champion = resolve_model(f"models:/{name}@champion", lambda: connection)
        package_model(champion.folder, tmp_path / "model", "# card\n")
        for folder in (champion.folder, tmp_path / "model" / PACKAGED):
            embedded = FileEmbedder.load(folder).embed(sources)
            np.testing.assert_allclose(embedded, wanted.embeddings.unit, atol=2e-6)
        # As the champion it is measured from there.
        run = models.run(connection, 1)
        second = promote(connection, run, tiny_corpus, LENIENT, model_name=name)
    assert second.evidence is not None
    assert second.evidence.champion is not None
    assert first.evidence is not None
    assert second.evidence.champion.figures == first.evidence.candidate.figures


def test_the_same_run_is_the_same_version(
    discriminants: Trained, connection: Connection, tiny_corpus: CorpusConfig, name: str
) -> None:
    run = upload_run(connection, discriminants.checkpoint)
    first = promote(connection, run, tiny_corpus, LENIENT, model_name=name)
    again = promote(connection, run, tiny_corpus, LENIENT, model_name=name)
    assert (again.outcome, again.version) == ("unchanged", first.version)


def test_without_its_encoders_it_is_refused(
    discriminants: Trained, connection: Connection, tiny_corpus: CorpusConfig, name: str,
) -> None:  # fmt: skip
    run = upload_run(connection, discriminants.checkpoint)
    told = r"no such file; runs:/\w+ was trained on features .* promote it where they are"
    with away(discriminants.encoders), pytest.raises(CheckpointError, match=told):
        promote(connection, run, tiny_corpus, LENIENT, model_name=name)


def test_a_model_trained_on_files_is_left_as_it_is(models: Models) -> None:
    folder = models.checkpoint(1)
    model = ResolvedModel(folder=folder, text="mine", weights_sha256="0" * 64)
    assert whole(model) is model
