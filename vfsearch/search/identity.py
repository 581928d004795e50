"""What makes two definitions the same sweep, so that one may continue the other's study."""

import json
from typing import Any

import sqlalchemy as sa

from vfsearch.search.definition import SweepConfig

_FREE = {"budget", "concurrency", "pack", "start", "warm_start", "storage", "description"}
_FREE_SETTINGS = (
    "seed",
    "workers.",
    "tracking.",
    "corpus.root",
    "corpus.store",
    "corpus.cache_gib",
)


def definition(config: SweepConfig) -> dict[str, Any]:
    """Return the definition as the study keeps it: without the database and without passwords."""
    data = config.model_dump(mode="json", exclude={"storage"})
    for source in data["warm_start"]:
        if source["url"] is not None:
            source["url"] = sa.make_url(source["url"]).render_as_string(hide_password=True)
    return data


def changes(old: SweepConfig, new: SweepConfig) -> list[str]:
    """List what differs between two definitions and would mix incomparable trials."""
    before, after = _identity(old), _identity(new)
    return [
        f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _identity(config: SweepConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json", exclude=_FREE)
    flat: dict[str, Any] = {}
    for name, parameter in data.pop("parameters").items():
        flat[f"parameters.{name}"] = {k: v for k, v in parameter.items() if k != "name"}
    _flatten("base", data.pop("base"), flat)
    free = tuple(f"base.{key}" for key in _FREE_SETTINGS)
    return {k: v for k, v in {**flat, **data}.items() if not k.startswith(free)}


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            _flatten(f"{prefix}.{key}", child, into)
    else:
        into[prefix] = value


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
