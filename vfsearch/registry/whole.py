"""A model that was trained on features, with the encoders that made them: it embeds raw files.

Its run's checkpoint holds heads and classifier only, and names files of the machine that extracted
the features. What is promoted must embed a stranger's WAV and JPG on any machine.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save

from vfsearch.errors import CheckpointError
from vfsearch.registry.keeping import keep
from vfsearch.registry.resolve import STATE_FILE, WEIGHTS_FILE, ResolvedModel
from vfsearch.training.checkpoint import load_model, read_state


def whole(model: ResolvedModel) -> ResolvedModel:
    """The same model with every weight that it needs in its checkpoint.

    One that was trained on files is returned as it is.

    Raises:
        CheckpointError: the checkpoint is damaged, or the encoders that made its features are not
            on this machine, or are others.
    """
    state = read_state(model.folder)
    if state.features is None:
        return model
    try:
        loaded, _ = load_model(model.folder, torch.device("cpu"))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; {model.text} was trained on features and embeds files only with the "
            "encoders that made them: promote it where they are"
        ) from None
    tensors = {name: tensor.contiguous() for name, tensor in loaded.state_dict().items()}
    contents = {
        WEIGHTS_FILE: save(tensors),
        STATE_FILE: state.model_copy(update={"features": None}).model_dump_json(indent=1).encode(),
    }
    files = {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }

    def write(target: Path) -> None:
        for name, content in contents.items():
            (target / name).write_bytes(content)

    return replace(model, folder=keep(files, write), weights_sha256=files[WEIGHTS_FILE][1])
