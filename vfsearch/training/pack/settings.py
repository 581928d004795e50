"""Which runs can share a pack: pure functions of their settings."""

from typing import Any

from vfsearch.config import RunConfig

MAY_DIFFER = (
    "seed",
    "model.dropout",
    "loss",
    "classifier",
    "reweighting",
    "optimizer",
    "training.stages",
    "evaluation.select",
)
"""Settings, or whole sections, that every member of a pack may have for itself."""


def why_not(config: RunConfig) -> str | None:
    """Why a run cannot train in a pack at all; None if it can."""
    if config.corpus.features is None:
        return "packs train on extracted features, but corpus.features is not set"
    if config.workers.count != 1:
        return f"a pack is one process, but workers.count is {config.workers.count}"
    if config.training.precision != "fp32":
        return f"packs compute in fp32, but training.precision is {config.training.precision}"
    if config.training.micro_batch is not None:
        return "packs take whole batches, but training.micro_batch is set"
    return None


def shared(config: RunConfig) -> dict[str, Any]:
    """The settings that all members of a pack have in common."""
    data = config.model_dump(mode="json")
    for key in MAY_DIFFER:
        *parents, last = key.split(".")
        section = data
        for parent in parents:
            section = section[parent]
        del section[last]
    return data


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Keys that keep two runs out of one pack; none: they can share it."""
    mine, its = _flat(shared(one)), _flat(shared(other))
    return sorted(key for key in mine.keys() | its.keys() if mine.get(key) != its.get(key))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out
