"""The small files of a spool folder: whose it is, and how far it was sent."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.tracking.run_key import RunKey


class Header(BaseModel):
    """Contents of ``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: dict[str, Any]
    tags: dict[str, str] = {}
    tracking: TrackingConfig | None = None
    """Where the servers of the run are."""
    addition: bool = False
    """What is added to a run that others log: its status is not this spool's business."""

    @property
    def folder(self) -> str:
        """Name of the spool's folder below that of the sweep."""
        key = RunKey.from_json(self.key)
        name = key.name if key.trial is not None else "sweep"
        return f"{name}+files" if self.addition else name


class Sent(BaseModel):
    """Contents of ``sent.json``: byte positions in the log, and what is known of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = 0
    files: int = 0
    run_id: str | None = None
    artifact_uri: str | None = None
    status: str | None = None


def read_header(folder: Path) -> Header:
    """Whose spool it is.

    Raises:
        TrackingError: ``run.json`` is damaged.
    """
    try:
        header = Header.model_validate_json((folder / "run.json").read_text("utf-8"))
        RunKey.from_json(header.key)
    except (OSError, ValidationError, KeyError):
        raise TrackingError(f"{folder}/run.json: is damaged or missing") from None
    return header


def read_sent(folder: Path) -> Sent:
    """How far a spool was sent; from the beginning if that is not known."""
    try:
        return Sent.model_validate_json((folder / "sent.json").read_text("utf-8"))
    except (OSError, ValidationError):
        return Sent()


def replace(path: Path, text: str) -> None:
    """Write a small file in one step."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
