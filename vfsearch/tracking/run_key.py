"""The identity of a run: a sweep, one of its trials, or one seed of a trial."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vfsearch.errors import TrackingError

SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class RunKey:
    """The identity of a run: a sweep, one of its trials, or one seed of a trial."""

    sweep: str
    trial: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse names that would not survive in a filter, a path or a URL."""
        if not SWEEP_NAME.fullmatch(self.sweep):
            raise TrackingError(
                f"sweep name {self.sweep!r}: must be up to 100 letters, digits, '.', '_' or '-', "
                "and begin with a letter or digit"
            )
        if self.seed is not None and self.trial is None:
            raise ValueError("a seed belongs to a trial")

    @property
    def kind(self) -> Literal["sweep", "trial", "seed"]:
        """What the run stands for."""
        if self.trial is None:
            return "sweep"
        return "trial" if self.seed is None else "seed"

    @property
    def name(self) -> str:
        """Short name of the run: MLflow's charts and tables have little room."""
        if self.trial is None:
            return self.sweep
        return f"t{self.trial:03d}" + ("" if self.seed is None else f"-s{self.seed}")

    @property
    def parent(self) -> "RunKey | None":
        """The run above: a trial's sweep, a seed's trial."""
        if self.trial is None:
            return None
        return RunKey(sweep=self.sweep, trial=None if self.seed is None else self.trial)

    def tags(self) -> dict[str, str]:
        """Tags by which the run is found."""
        tags = {"vfsearch.kind": self.kind, "vfsearch.sweep": self.sweep}
        if self.trial is not None:
            tags["vfsearch.trial"] = str(self.trial)
        if self.seed is not None:
            tags["vfsearch.seed"] = str(self.seed)
        return tags

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the spool."""
        return {"sweep": self.sweep, "trial": self.trial, "seed": self.seed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        return cls(sweep=data["sweep"], trial=data["trial"], seed=data["seed"])

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """Inverse of :meth:`tags`; ``None`` for a run that vfsearch did not make."""
        if "vfsearch.kind" not in tags:
            return None
        trial, seed = tags.get("vfsearch.trial"), None
        if tags["vfsearch.kind"] == "seed":
            seed = tags["vfsearch.seed"]
        return cls(
            sweep=tags["vfsearch.sweep"],
            trial=None if trial is None else int(trial),
            seed=None if seed is None else int(seed),
        )
