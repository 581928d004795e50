"""Pretrained weights from a local file, read without ever running code from it."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vfsearch.errors import CheckpointError


def local_path(source: str) -> Path:
    """Path of a plain path or ``file://`` URI.

    Raises:
        CheckpointError: another scheme, or no such file.
    """
    parsed = urlparse(source)
    if parsed.scheme == "file":
        path = Path(unquote(parsed.path))
    elif "://" in source:
        raise CheckpointError(
            f"weights {source!r}: {parsed.scheme}:// is not read here; "
            "download the file and give its path or a file:// URI"
        )
    else:
        path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"weights {source!r}: no such file")
    return path


def read_tensors(source: str) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch file that holds nothing but tensors.

    A torch file may nest them under ``state_dict``; a common ``module.`` prefix is dropped.

    Raises:
        CheckpointError: unreadable, or it would run code to load (a pickle with other objects).
    """
    path = local_path(source)
    try:
        if path.suffix == ".safetensors":
            loaded: object = load_file(path)
        else:
            with warnings.catch_warnings():
                # An odd pickle protocol is a warning there; here the file loads or is refused.
                warnings.simplefilter("ignore")
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"weights {source!r}: not a safetensors or weights-only file ({first})"
        ) from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"weights {source!r}: must hold a mapping of names to tensors")
    if loaded and all(str(name).startswith("module.") for name in loaded):
        return {str(name).removeprefix("module."): value for name, value in loaded.items()}
    return {str(name): value for name, value in loaded.items()}


def load_pretrained(encoder: nn.Module, source: str, what: str) -> None:
    """Load weights into an encoder; every parameter and statistic must be there and fit.

    Feature constants of our own (``features.*``) and BatchNorm's counters may be absent.

    Raises:
        CheckpointError: names the tensors that are missing, unknown or of another shape.
    """
    given = read_tensors(source)
    wanted = encoder.state_dict()
    optional = {
        name
        for name in wanted
        if name.startswith("features.") or name.endswith("num_batches_tracked")
    }
    problems = [f"missing {name}" for name in wanted if name not in given and name not in optional]
    problems += [f"unknown {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {tuple(given[name].shape)}, should be {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:5])
        raise CheckpointError(
            f"weights {source!r} do not fit the {what} encoder: {len(problems)} problems: {shown}"
        )
    encoder.load_state_dict(given, strict=False)
