"""A checkpoint as an MLflow model folder that loads and serves where vfsearch is not installed."""

import importlib.metadata
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vfsearch
from vfsearch.registry.example import example_files
from vfsearch.registry.resolve import NEEDED

REQUIRED = (
    "mlflow",
    "torch",
    "torchaudio",
    "numpy",
    "pandas",
    "soundfile",
    "opencv-python-headless",
    "safetensors",
    "pydantic",
    "pyyaml",
    "jaxtyping",
)
PACKAGED = "artifacts/checkpoint"
"""Where the checkpoint lies in the model folder."""
_SHIPPED = ("config", "corpus", "model", "training", "registry")
"""Subpackages that embedding a file imports from; the modules above them travel too."""


def requirements() -> list[str]:
    """The packages of the served model, in the versions that made it."""
    # The local part of a version (torch's "+cu130") names a build that no index may have.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIRED]


def signature() -> Any:
    """Rows of voices and faces in, embeddings or scores out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "modality"),
                ColSpec("binary", "content", required=False),
                ColSpec("string", "path", required=False),
                ColSpec("string", "pair", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec("string", "modality", required=False),
                ColSpec(Array(DataType.double), "embedding", required=False),
                ColSpec("long", "voice", required=False),
                ColSpec("long", "face", required=False),
                ColSpec("double", "score", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("task", "string", "embed")]),
    )


def package_model(checkpoint: Path, target: Path, card: str) -> None:
    """Write the model folder: checkpoint, code, signature, requirements, example and card.

    Args:
        checkpoint: folder of safetensors and JSON; training state is left out.
        target: folder to make.
        card: the text of its README.md.
    """
    import pandas as pd

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        import mlflow.pyfunc

        code = Path(scratch) / "vfsearch"
        _copy_code(code)
        weights = Path(scratch) / "checkpoint"
        weights.mkdir()
        for name in NEEDED:
            shutil.copyfile(checkpoint / name, weights / name)
        mlflow.pyfunc.save_model(
            target,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"checkpoint": str(weights)},
            code_paths=[str(code)],
            pip_requirements=requirements(),
            signature=signature(),
            input_example=pd.DataFrame(
                [{"modality": name, "content": data} for name, data in example_files().items()]
            ),
        )
    (target / "README.md").write_text(card, encoding="utf-8")


def _copy_code(target: Path) -> None:
    package = Path(vfsearch.__file__).parent
    for path in [*package.glob("*.py"), *(f for p in _SHIPPED for f in (package / p).glob("*.py"))]:
        copy = target / path.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's chatter and hints off the terminal; errors come through."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # At import it warns of its own type hints, and of ours although there is a signature.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
