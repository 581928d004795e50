"""Features: extracted once, checked when opened, and as good as the frozen encoders themselves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.small_corpus import small_corpus
from support.tiny_run import Recorder, tiny_config

from vfsearch.config import CorpusConfig, FaceConfig, RunConfig, VoiceConfig
from vfsearch.corpus.features import INDEX, open_features
from vfsearch.errors import CheckpointError, CorpusError, UsageError
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.extract import extract
from vfsearch.model.face import build_face_encoder
from vfsearch.model.voice import build_voice_encoder
from vfsearch.registry.assess import assess
from vfsearch.training.checkpoint import load_model
from vfsearch.training.loop import Outcome, Stores, train

SECONDS = 0.5  # the shortest voice: a training window is then the evaluation's
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("features")
    corpus = small_corpus(root / "corpus", identities=8, store=root / "store", seconds=SECONDS)
    torch.manual_seed(0)
    paths = {"root": root, "corpus": corpus.root, "features": root / "features"}
    for what, encoder in (("face", build_face_encoder), ("voice", build_voice_encoder)):
        paths[what] = root / f"{what}.safetensors"
        save_file(encoder("small").state_dict(), paths[what])
    extract(corpus, *encoders(paths), paths["features"], audio_seconds=SECONDS)
    return paths


def encoders(paths: dict[str, Path]) -> tuple[VoiceConfig, FaceConfig]:
    return (
        VoiceConfig(encoder="small", weights=str(paths["voice"]), frozen=True),
        FaceConfig(encoder="small", weights=str(paths["face"]), frozen=True),
    )


def config(paths: dict[str, Path], *, features: bool, **changes: object) -> RunConfig:
    voice, face = encoders(paths)
    base = tiny_config().model_dump()
    base["corpus"] = CorpusConfig(
        root=paths["corpus"],
        face_size=32,
        store=paths["root"] / "store",
        features=paths["features"] if features else None,
    )
    base["model"] |= {"voice": voice, "face": face}
    base["training"] |= {"audio_seconds": (SECONDS, SECONDS), "augment": False}
    base["evaluation"] |= {"audio_seconds": SECONDS}
    return RunConfig.model_validate(base | changes)


def run(run_config: RunConfig, out: Path) -> Outcome:
    return train(run_config, out, Recorder(), device=CPU)


def test_a_run_on_features_equals_one_with_the_frozen_encoders(
    made: dict[str, Path], tmp_path: Path
) -> None:
    on_files = run(config(made, features=False), tmp_path / "files")
    on_features = run(config(made, features=True), tmp_path / "features")
    for ours, theirs in zip(on_features.history, on_files.history, strict=True):
        for key, value in theirs.items():
            if not key.startswith("time/"):
                assert ours[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    # The checkpoint holds no encoder, and yet embeds files just as the other does.
    mine, _ = load_model(on_features.best, CPU)
    wanted, settings = load_model(on_files.best, CPU)
    val = Stores.open(config(made, features=False)).val
    embedded = [embed_split(m, val, settings.evaluation, device=CPU) for m in (mine, wanted)]
    np.testing.assert_allclose(embedded[0].unit, embedded[1].unit, atol=1e-4)
    size = [
        (outcome.best / "model.safetensors").stat().st_size for outcome in (on_features, on_files)
    ]
    assert size[0] < size[1] / 5


def test_a_resumed_run_on_features_is_the_same_run(made: dict[str, Path], tmp_path: Path) -> None:
    whole = run(config(made, features=True), tmp_path / "whole")
    first = Recorder(stop_at=2)
    train(config(made, features=True), tmp_path / "twice", first, device=CPU)
    again = run(config(made, features=True), tmp_path / "twice")
    for ours, theirs in zip(again.history, whole.history, strict=True):
        assert {k: v for k, v in ours.items() if "time/" not in k} == {
            k: v for k, v in theirs.items() if "time/" not in k
        }


def test_evaluation_embeds_files_with_the_recorded_encoders(
    made: dict[str, Path], tmp_path: Path
) -> None:
    outcome = run(config(made, features=True), tmp_path / "run")
    corpus = CorpusConfig(root=made["corpus"], store=made["root"] / "store")
    assessed = assess(outcome.best, corpus, "val", bootstrap=0, galleries=(2,), strata=("U",))
    value = assessed.figures["match_v2f_1to2"].value
    assert 0 <= value <= 1
    assert assessed.embeddings.matrix.shape == (48, 16)


def test_evaluation_refuses_other_weights(made: dict[str, Path], tmp_path: Path) -> None:
    paths = dict(made)
    for what in ("face", "voice"):
        paths[what] = tmp_path / made[what].name
        shutil.copyfile(made[what], paths[what])
    outcome = run(config(paths, features=True), tmp_path / "run")
    torch.manual_seed(1)
    save_file(build_voice_encoder("small").state_dict(), paths["voice"])
    with pytest.raises(CheckpointError, match="not the weights of the voice encoder"):
        load_model(outcome.best, CPU)
    paths["voice"].unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(outcome.best, CPU)


def test_extraction_is_reused_and_goes_on(made: dict[str, Path], tmp_path: Path) -> None:
    corpus = config(made, features=False).corpus
    out = tmp_path / "features"
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(corpus, *encoders(made), out, audio_seconds=SECONDS, progress=stop)
    assert not out.exists()
    partial = tmp_path / ".features.partial"
    before = (partial / "train-voice.npy").stat().st_mtime_ns
    extract(corpus, *encoders(made), out, audio_seconds=SECONDS)
    assert (out / "train-voice.npy").stat().st_mtime_ns == before
    assert {path.name for path in out.iterdir()} == {
        INDEX,
        *(f"{s}{end}" for s in ("train", "val", "test") for end in
          (".json", "-voice.npy", "-face.npy")),
    }  # fmt: skip
    for file in out.glob("*.npy"):
        assert file.read_bytes() == (made["features"] / file.name).read_bytes()
    unused: list[int] = []
    extract(
        corpus, *encoders(made), out, audio_seconds=SECONDS, progress=lambda d, _: unused.append(d)
    )
    assert not unused
    with pytest.raises(UsageError, match=r"holds other features .their audio_seconds"):
        extract(corpus, *encoders(made), out, audio_seconds=2 * SECONDS)
    (tmp_path / "else").mkdir()
    with pytest.raises(UsageError, match="no folder of features"):
        extract(corpus, *encoders(made), tmp_path / "else", audio_seconds=SECONDS)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, how) for name in ("train-face.npy", "train.json") for how in ("cut", "changed", "gone")]
    + [(INDEX, "cut"), (INDEX, "gone")],
)
def test_damaged_features_are_refused(
    made: dict[str, Path], tmp_path: Path, name: str, damage: str
) -> None:
    folder = tmp_path / "features"
    shutil.copytree(made["features"], folder)
    path = folder / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-9])
    else:
        path.write_bytes(content.replace(b"0", b"1", 1))
    with pytest.raises(CorpusError, match=name):
        open_features(folder, "train")


def test_features_must_fit_run_and_corpus(made: dict[str, Path], tmp_path: Path) -> None:
    good = config(made, features=True)
    for changes, message in (
        ({"evaluation": {"audio_seconds": 2.0}}, "audio_seconds=0.5, not 2"),
        ({"model": {"voice": {"encoder": "thin_resnet34"}}}, "voice.encoder=small, not thin"),
        ({"model": {"face": {"weights": str(made["voice"])}}}, "other model.face.weights"),
    ):
        data = json.loads(good.model_dump_json())
        for section, values in changes.items():
            for key, value in values.items():
                data[section][key] = (
                    data[section][key] | value if isinstance(value, dict) else value
                )
        with pytest.raises(CorpusError, match=message):
            Stores.open(RunConfig.model_validate(data))
    other = tmp_path / "corpus"
    shutil.copytree(made["corpus"], other)
    moved = {"corpus": good.corpus.model_copy(update={"root": other})}
    assert len(Stores.open(good.model_copy(update=moved)).train.identities) == 8
    next((other / "faces").rglob("*.jpg")).unlink()
    with pytest.raises(CorpusError, match="extract them again"):
        Stores.open(good.model_copy(update=moved))
    shutil.rmtree(other / "faces")  # without the files the CSV must agree
    Stores.open(good.model_copy(update=moved))
    table = (other / "vox1_train.csv").read_bytes()
    (other / "vox1_train.csv").write_bytes(table.replace(b",m,", b",f,"))
    with pytest.raises(CorpusError, match=r"vox1_train\.csv"):
        Stores.open(good.model_copy(update=moved))
    shutil.rmtree(other)  # features alone are enough to train
    Stores.open(good.model_copy(update=moved))


def test_what_features_cannot_do_is_said(made: dict[str, Path]) -> None:
    data = json.loads(config(made, features=True).model_dump_json())
    data["model"]["face"]["frozen"] = False
    data["training"]["augment"] = True
    with pytest.raises(ValueError, match=r"model\.face\.frozen must be true and training.augment"):
        RunConfig.model_validate(data)
    with pytest.raises(CheckpointError, match="need trained weights"):
        extract(
            config(made, features=False).corpus,
            VoiceConfig(encoder="small"),
            FaceConfig(encoder="small"),
            made["root"] / "nothing",
        )
