"""A checkpoint as an MLflow model folder that loads and serves where vfsearch is not installed."""

import importlib.metadata
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import vfsearch
from vfsearch.registry.example import example_files

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
    "filelock",
    "numba",
    "scipy",
)
_LEFT_OUT = ("cli", "search", "tracking", "assets", "page", "__pycache__", "*.pyc")
"""Parts of the package that embedding a file never imports."""


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
    import mlflow.pyfunc
    import pandas as pd

    from vfsearch.registry import embedder

    here = Path(__file__)
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / "vfsearch"
        shutil.copytree(
            Path(vfsearch.__file__).parent, code, ignore=shutil.ignore_patterns(*_LEFT_OUT)
        )
        weights = Path(scratch) / "checkpoint"
        weights.mkdir()
        for name in embedder.NEEDED:
            shutil.copyfile(checkpoint / name, weights / name)
        with warnings.catch_warnings():
            # MLflow wants type hints that it could check; the signature below does that.
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                target,
                python_model=str(here.with_name("pyfunc_model.py")),
                artifacts={"checkpoint": str(weights)},
                code_paths=[str(code)],
                pip_requirements=requirements(),
                signature=signature(),
                input_example=pd.DataFrame(
                    [{"modality": name, "content": data} for name, data in example_files().items()]
                ),
            )
    (target / "README.md").write_text(card, encoding="utf-8")
