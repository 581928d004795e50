"""How a model is computed, whatever it computes: memory format, recomputation, compiled units."""

import os
import shutil
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from vfsearch.config import TrainingConfig, home
from vfsearch.errors import ConfigError
from vfsearch.model.alignment import AlignmentModel
from vfsearch.model.units import Units

_VARIANTS = 256
"""Compiled variants that may exist of one unit: shapes of all units x audio lengths x modes."""


def prepare(model: AlignmentModel, config: TrainingConfig, device: torch.device) -> None:
    """Apply ``channels_last``, ``recompute`` and ``compile`` in place; names of weights stay.

    Compiled code is kept on disk under the vfsearch home, so that other processes find it.

    Raises:
        ConfigError: ``compile`` is on and there is nothing to compile with.
    """
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.compile:
        check_compiler(device)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "compiled"))
    for units in (part for part in model.modules() if isinstance(part, Units)):
        units.recompute = config.recompute
        if config.compile:
            for unit in units:
                # Of one batch and length each: kernels that know their sizes are faster.
                unit.compile(dynamic=False, recompile_limit=_VARIANTS)


def eagerly(config: TrainingConfig) -> AbstractContextManager[object]:
    """In here, compiled units run as they are written: evaluation brings batches of any size."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()


def check_compiler(device: torch.device) -> None:
    """Look for what torch.compile builds kernels with.

    Raises:
        ConfigError: names what is missing.
    """
    compiler = os.environ.get("CXX", "g++") if device.type == "cpu" else os.environ.get("CC", "gcc")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if shutil.which(compiler) else [f"the compiler {compiler}"]
    missing += [] if header.exists() else [f"Python's headers ({header})"]
    if missing:
        raise ConfigError(
            [
                f"training.compile: needs {' and '.join(missing)}, which this machine lacks; "
                "install it (on Debian: g++ python3-dev), or set training.compile to false"
            ]
        )
