"""Reading a sweep file: every problem of it at once, each with its line."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vfsearch.config import (
    Lines,
    RunConfig,
    explain,
    parse_override,
    read_yaml,
    set_key,
    validate,
)
from vfsearch.errors import ConfigError
from vfsearch.search.checks import problems_of
from vfsearch.search.definition import SweepConfig
from vfsearch.search.parameters import KINDS, AnyParameter

_STAND_IN: dict[str, Any] = {
    "name": "unnamed",
    "base": {"corpus": {"root": "."}},
    "objectives": [{"metric": "val/match_v2f_1to2", "direction": "maximize"}],
    "budget": {"trials": 1},
    "parameters": {"loss.margin": {"type": "float", "low": 1.0, "high": 2.0}},
}
"""Sound values for required entries that are wrong, so that the others can still be checked."""
_HARMLESS: dict[str, Any] = {"constraints": "0 * seed <= 1", "start": {}}
"""The same for single entries of lists."""


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep file and apply ``KEY=VALUE`` overrides.

    Keys that are settings of a run (``corpus.root``) change the base, others the sweep
    (``budget.trials``, ``parameters.loss.margin.high``).

    Raises:
        ConfigError: with every problem of file and overrides at once.
    """
    data, lines = read_yaml(path)
    problems = _override(data, overrides)
    source = str(path)
    base = _base(data, lines, path, problems)
    parameters, broken = _parameters(data.get("parameters"), lines, source, problems)
    data["base"] = base or _STAND_IN["base"]
    if parameters:
        data["parameters"] = parameters
    config, whole = _assemble(data, lines, source, problems)
    if config is not None:
        for place, message in problems_of(config, broken):
            # What stands in for a wrong entry has no problems of its own worth telling.
            if whole or place[0] in data:
                problems.append(f"{_where(place, source, lines)}: {message}")
    if problems or config is None:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda p: _line(p, source)))
    return config


def _override(data: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    problems: list[str] = []
    for text in overrides:
        try:
            key, value = parse_override(text)
        except ConfigError as error:
            problems += error.problems
            continue
        swept = data.get("parameters")
        if key.startswith("parameters.") and isinstance(swept, dict):
            name, _, option = key.removeprefix("parameters.").rpartition(".")
            entry = swept.setdefault(name, {})
            if isinstance(entry, dict):
                entry[option] = value
        elif key.split(".")[0] not in RunConfig.model_fields:
            set_key(data, key, value)
        elif isinstance(swept, dict) and key in swept:
            problems.append(
                f"--set {text!r}: {key} is searched; set parameters.{key}.low, .high or .choices"
            )
        else:
            if not isinstance(data.get("base"), dict):
                data["base"] = {}
            set_key(data["base"], key, value)
            fixed = data.get("fixed")
            if isinstance(fixed, dict):
                fixed.pop(key, None)
    return problems


def _base(data: dict[str, Any], lines: Lines, path: Path, problems: list[str]) -> RunConfig | None:
    inline = data.get("base", {})
    file = data.pop("config", None)
    if not isinstance(inline, dict):
        problems.append(f"{_where(('base',), str(path), lines)}: base: must hold settings of a run")
        return None
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged, its_lines = read_yaml(path.parent / str(file))
            validate(RunConfig, merged, str(path.parent / str(file)), its_lines)
        except ConfigError as error:
            problems += error.problems
            return None
    merged = _select_by_objective(_merge(merged, inline), data.get("objectives"))
    base_lines = {place[1:]: line for place, line in lines.items() if place[0] == "base"}
    try:
        return validate(RunConfig, merged, str(path), base_lines)
    except ConfigError as error:
        problems += error.problems
        return None


def _select_by_objective(run: dict[str, Any], objectives: Any) -> dict[str, Any]:
    """Let the first objective select the checkpoint, unless the base says otherwise."""
    first = objectives[0] if isinstance(objectives, list) and objectives else None
    if not isinstance(first, dict) or first.get("direction") != "maximize":
        return run
    evaluation = run.get("evaluation", {})
    if not isinstance(evaluation, dict) or not isinstance(first.get("metric"), str):
        return run
    return {**run, "evaluation": {"select": first["metric"], **evaluation}}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _parameters(
    raw: Any, lines: Lines, source: str, problems: list[str]
) -> tuple[dict[str, AnyParameter], set[str]]:
    """Read the parameters; also the names of wrong ones, for which an entry stands in."""
    found: dict[str, AnyParameter] = {}
    broken: set[str] = set()
    for key, spec in raw.items() if isinstance(raw, dict) else ():
        name = str(key)
        place = ("parameters", name)
        where = _where(place, source, lines)
        kind = KINDS.get(str(spec.get("type"))) if isinstance(spec, dict) else None
        if kind is None:
            problems.append(f"{where}: {name}: type must be float, int or categorical")
        else:
            try:
                found[name] = kind.model_validate({**spec, "name": name})
                continue
            except ValidationError as error:
                for entry, text in zip(
                    error.errors(include_url=False),
                    explain(error, source, lines, place),
                    strict=True,
                ):
                    rule = entry["type"] == "value_error" and not entry["loc"]
                    message = entry["msg"].removeprefix("Value error, ")
                    problems.append(f"{where}: {message}" if rule else text)
        broken.add(name)
        found[name] = _stand_in(name, spec)
    return found, broken


def _stand_in(name: str, spec: Any) -> AnyParameter:
    """A sound range for a wrong one, under the same conditions if these can be read."""
    plain = {"name": name, "type": "float", "low": 1.0, "high": 2.0}
    with contextlib.suppress(ValidationError):
        return KINDS["float"].model_validate(
            plain | {"when": spec.get("when", {}) if isinstance(spec, dict) else {}}
        )
    return KINDS["float"].model_validate(plain)


def _assemble(
    data: dict[str, Any], lines: Lines, source: str, problems: list[str]
) -> tuple[SweepConfig | None, bool]:
    """Build the sweep; if some entries are wrong, note them and build it without these."""
    try:
        return SweepConfig.model_validate(data), True
    except ValidationError as error:
        problems += explain(error, source, lines)
        wrong = {entry["loc"] for entry in error.errors(include_url=False) if entry["loc"]}
    for place in wrong:
        if any(other != place and other[: len(place)] == place for other in wrong):
            continue  # a list is called too short for want of its wrong entry
        entries = data.get(str(place[0]))
        if len(place) > 1 and isinstance(entries, list) and str(place[0]) in _HARMLESS:
            entries[int(place[1])] = _HARMLESS[str(place[0])]  # the other entries are judged
        elif isinstance(entries, list) and (place[0], *place[2:]) == ("objectives", "direction"):
            entries[int(place[1])]["direction"] = "maximize"  # its metric is judged
        else:
            data.pop(str(place[0]), None)
    try:
        return SweepConfig.model_validate({**_STAND_IN, **data}), False
    except ValidationError:
        return None, False


def _line(problem: str, source: str) -> int:
    """Line of a problem of this file; those of another file and of overrides come first."""
    found = re.match(rf"{re.escape(source)}:(\d+):", problem)
    return int(found[1]) if found else 0


def _where(place: tuple[str | int, ...], source: str, lines: Lines) -> str:
    while place and place not in lines:
        place = place[:-1]
    return f"{source}:{lines[place]}" if place else source
