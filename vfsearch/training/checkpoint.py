"""Checkpoints: a folder of safetensors and JSON, whole at every instant, never a pickle.

``checkpoints/epoch-00012/`` is written under a temporary name and renamed; ``last`` and ``best``
are symbolic links, replaced atomically, so whatever they resolve to is complete.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vfsearch.config import RunConfig
from vfsearch.corpus.features import EncoderRecord, Extraction, sha256
from vfsearch.errors import CheckpointError
from vfsearch.model.alignment import AlignmentModel, build_model
from vfsearch.model.weights import local_path

MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
FILES = (MODEL, TRAINING, STATE)
FORMAT: Literal[1] = 1


class Best(BaseModel):
    """The best epoch so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epoch: int
    value: float


class CheckpointState(BaseModel):
    """``state.json``: everything of a run that is no tensor.

    Random numbers need no entry: every stream is a function of (seed, step) or (seed, epoch,
    rank), see ``vfsearch.corpus.batches`` and ``vfsearch.training.run``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = FORMAT
    config: RunConfig
    step: int
    """Optimiser steps done."""
    epoch: int
    """Epochs done."""
    sampler: dict[str, int]
    """State of the batch stream."""
    best: Best
    history: list[dict[str, float]]
    """Metrics of every epoch, the last one included."""
    split_hash: str
    """Hash of the training split: identities and file names."""
    identities: list[str]
    """Voice ids of the training split, in the order of the classifier's rows."""
    features: Extraction | None = None
    """What made the features that the run trained on; its encoders' weights are not in here."""


Read = Callable[[str], bytes | None]


def folder_name(epoch: int) -> str:
    """Name of the folder of an epoch."""
    return f"epoch-{epoch:05d}"


def save_checkpoint(
    root: Path,
    state: CheckpointState,
    model: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
) -> Path:
    """Write one checkpoint under ``root`` and move ``last`` (and ``best``, if it is) to it.

    Keeps what ``last`` and ``best`` point to and the previous ``last``, removes older ones.

    Returns:
        The folder itself (not the link): it stays as it is until two epochs later.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    folder = root / folder_name(state.epoch)
    partial = root / f".{folder.name}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        before = target(root, "last")
        for stale in (partial, folder):  # left by a run that died here; no link points to them
            if stale.exists():
                shutil.rmtree(stale)
        partial.mkdir()
        contents = {
            MODEL: save(_plain(model)),
            TRAINING: save(_plain(training)),
            STATE: state.model_dump_json(indent=1).encode(),
        }
        for name, content in contents.items():
            with (partial / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        partial.rename(folder)
        link(root, "last", folder)
        if state.best.epoch == state.epoch:
            link(root, "best", folder)
        keep = {folder.name, before, target(root, "best")}
        for old in root.glob("epoch-*"):
            if old.name not in keep:
                shutil.rmtree(old)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from None
    return folder


def repair_links(root: Path, state: CheckpointState) -> None:
    """Point ``best`` at ``last`` where a kill fell between the two links."""
    last = target(root, "last")
    if last is not None and state.best.epoch == state.epoch and target(root, "best") != last:
        link(root, "best", root / last)


def read_file(folder: Path, name: str) -> bytes:
    """Bytes of one of a checkpoint's files.

    Raises:
        CheckpointError: it is not there.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder / name}: cannot be read ({error.strerror}); "
            f"a checkpoint is a folder with {', '.join(FILES)}"
        ) from None


def parse_state(content: bytes, where: object) -> CheckpointState:
    """Validated ``state.json``.

    Raises:
        CheckpointError: damaged, of another format, or with unknown keys.
    """
    try:
        return CheckpointState.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(
            f"{where}: is not the state of a format {FORMAT} checkpoint: {key}: {first['msg']}"
        ) from None


def read_state(folder: Path) -> CheckpointState:
    """Validated ``state.json`` of a checkpoint folder; errors as `parse_state` and `read_file`."""
    return parse_state(read_file(folder, STATE), folder / STATE)


def parse_tensors(content: bytes, where: object) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: damaged or of another format.
    """
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{where}: is not a whole safetensors file ({error})") from None
    return tensors


def load_into(model: torch.nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Load all weights of a model.

    Raises:
        CheckpointError: names or shapes do not fit.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(f"{where}: does not fit the model: {' '.join(lines[1:3])}") from None


def load_model(
    folder: Path, device: torch.device, *, on_features: bool = False
) -> tuple[AlignmentModel, RunConfig]:
    """Model of a checkpoint in evaluation mode, and the settings of its run.

    The checkpoint of a run on features holds no encoders: they are loaded from where the features'
    index found them, unless ``on_features`` leaves them out.

    Raises:
        CheckpointError: anything but a whole checkpoint of this format; the encoders of a run on
            features are not there any more, or are others.
    """
    state = read_state(folder)
    settings = state.config.model
    # Pretrained files are not needed again where the checkpoint holds every weight.
    sources = {"face": settings.face.weights, "voice": settings.voice.weights}
    made = None if on_features else state.features
    for what in sources:
        sources[what] = None if made is None else _source(what, getattr(made, what), sources[what])
    settings = settings.model_copy(
        update={
            what: getattr(settings, what).model_copy(update={"weights": source})
            for what, source in sources.items()
        }
    )
    where = folder / MODEL
    tensors = parse_tensors(read_file(folder, MODEL), where)
    model = build_model(settings, len(state.identities), on_features=on_features)
    if made is not None:
        for prefix, encoder in (("face", model.face), ("voice", model.voice)):
            tensors |= {f"{prefix}.{name}": t for name, t in encoder.state_dict().items()}
    load_into(model, tensors, where)
    return model.to(device).eval(), state.config


def _source(what: str, made: EncoderRecord, given: str | None) -> str | None:
    """Weights of an encoder that made features: the very same, or an error."""
    weights = given or made.weights
    if weights is not None and sha256(local_path(weights)) != made.sha256:
        raise CheckpointError(
            f"{weights}: these are not the weights of the {what} encoder ({made.encoder}) whose "
            f"features the model was trained on (SHA-256 {made.sha256})"
        )
    return weights


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Contiguous copies on the CPU: safetensors refuses strided or shared memory.
    return {
        name: tensor.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def target(root: Path, name: str) -> str | None:
    """Name of the folder that ``last`` or ``best`` points to; None: there is none."""
    found = root / name
    return found.readlink().name if found.is_symlink() else None


def link(root: Path, name: str, folder: Path) -> None:
    """Point ``last`` or ``best`` at a folder of ``root``, atomically."""
    fresh = root / f".{name}.partial"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(root / name)
