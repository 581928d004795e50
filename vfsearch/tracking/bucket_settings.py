"""What a bucket should be set to: read from files, merged with what others set; no server."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfsearch.errors import ConfigError

JSON = Any
POLICY_FILE = "bucket-policy.json"
LIFECYCLE_FILE = "lifecycle.json"
TLS_ONLY = "VfsearchTlsOnly"


def load_policy(
    folder: Path, bucket: str, *, writers: Sequence[str], readers: Sequence[str], tls: bool
) -> list[JSON]:
    """Statements of ``bucket-policy.json`` for this bucket.

    Statements for writers (readers) are left out if there are none; so is the one that demands
    TLS without ``tls``.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    names = {"${writers}": sorted(writers), "${readers}": sorted(readers)}
    statements = _read(folder / POLICY_FILE, "Statement")
    wanted = []
    for statement in statements:
        filled = _replace(statement, lambda text: text.replace("${bucket}", bucket))
        principal = statement.get("Principal")
        who = principal.get("AWS") if isinstance(principal, Mapping) else None
        if who in names:
            if not names[who]:
                continue
            filled["Principal"] = {"AWS": names[who]}
        if statement.get("Sid") != TLS_ONLY or tls:
            wanted.append(filled)
    return wanted


def load_lifecycle(folder: Path) -> list[JSON]:
    """Rules of ``lifecycle.json``.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    return _read(folder / LIFECYCLE_FILE, "Rules")


def merged(present: Sequence[JSON], wanted: Sequence[JSON], key: str) -> list[JSON]:
    """Wanted rules in place of those of the same name (``key``); all others stay."""
    ours = {rule[key] for rule in wanted}
    return [*(rule for rule in present if rule.get(key) not in ours), *wanted]


def same(first: JSON, second: JSON) -> bool:
    """Whether two settings mean the same: servers reorder, and unwrap lists of one."""
    return bool(_normal(first) == _normal(second))


def _normal(value: JSON) -> JSON:
    if isinstance(value, Mapping):
        return {key: _normal(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list | tuple):
        inner = sorted((_normal(one) for one in value), key=lambda one: json.dumps(one))
        return inner[0] if len(inner) == 1 else inner
    return value


def _replace(value: JSON, change: Callable[[str], str]) -> JSON:
    if isinstance(value, Mapping):
        return {key: _replace(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def _read(path: Path, key: str) -> list[JSON]:
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))[key]
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise TypeError
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be read ({error.strerror}); name the folder by --settings"]
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError([f"{path}: must be JSON with a list of objects under {key!r}"]) from None
    return rules
