"""What all sections of the settings share."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]


def home() -> Path:
    """Folder of everything this machine keeps: ``$VFSEARCH_HOME``, else ``./.vfsearch``."""
    return Path(os.environ.get("VFSEARCH_HOME", ".vfsearch")).absolute()


def _without_password(text: str) -> str:
    """Refuse what would end in logs, artifacts and process lists."""
    if urlsplit(text).password is not None:
        raise ValueError(
            "must hold no password: MLflow reads MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD or ~/.mlflow/credentials, S3 clients the usual AWS files"
        )
    return text


Location = Annotated[str, AfterValidator(_without_password)]
"""A path or URL."""


class Section(BaseModel):
    """Base of every settings section: frozen, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
