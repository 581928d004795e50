"""Pretrained weights: what fits loads, what could run code does not."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vfsearch.config import FaceConfig, ModelConfig, VoiceConfig
from vfsearch.errors import CheckpointError
from vfsearch.model.alignment import build_model
from vfsearch.model.face import build_face_encoder
from vfsearch.model.weights import load_pretrained, read_tensors


def config(weights: str) -> ModelConfig:
    return ModelConfig(
        face=FaceConfig(encoder="small", weights=weights), voice=VoiceConfig(encoder="small")
    )


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested", "uri"])
def test_weights_load_from_every_safe_form(tmp_path: Path, form: str) -> None:
    state = build_face_encoder("small").state_dict()
    path = tmp_path / ("w.pth" if form in ("torch", "nested") else "w.safetensors")
    if form == "torch":
        torch.save(state, path)
    elif form == "nested":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        save_file(state, path)
    source = path.as_uri() if form == "uri" else str(path)
    loaded = build_model(config(source), 3).face.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


class Poison:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_poisoned_pickle_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    victim, path = tmp_path / "ran", tmp_path / "w.pth"
    if form == "torch":
        torch.save({"x": Poison(victim)}, path)
    else:
        path.write_bytes(pickle.dumps(Poison(victim)))
    with pytest.raises(CheckpointError, match="weights-only"):
        read_tensors(str(path))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://bucket/w.safetensors", "s3:// is not read here"),
        ("https://host/w.pth", "https:// is not read here"),
        ("nowhere.safetensors", "no such file"),
    ],
)
def test_sources_that_cannot_be_read(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tensors(source)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(CheckpointError, match="not a safetensors"):
            read_tensors(str(tmp_path / name))


def test_misfits_are_named(tmp_path: Path) -> None:
    state = build_face_encoder("small").state_dict()
    state["output_layer.3.bias"] = torch.zeros(9)
    del state["input_layer.0.weight"]
    state["extra"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(build_face_encoder("small"), str(tmp_path / "w.safetensors"), "face")
    text = str(caught.value)
    assert "missing input_layer.0.weight" in text
    assert "unknown extra" in text
    assert "output_layer.3.bias is (9,), should be (512,)" in text
