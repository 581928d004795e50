"""YAML files of settings: read, overridden, and every problem told at once with its line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from vfsearch.config.base import Section
from vfsearch.config.run import RunConfig
from vfsearch.errors import ConfigError

S = TypeVar("S", bound=Section)
Lines = dict[tuple[str | int, ...], int]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: ``1e-4`` is a number, not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read one YAML mapping and the line of each of its keys.

    Returns:
        The mapping, and ``{("loss", "margin"): 12, ...}`` with lines counted from 1.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, no mapping, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text ({error.reason})"]) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError([f"{where}: is not YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(data, dict) or node is None:
        raise ConfigError([f"{path}: must hold a mapping of settings, not {type(data).__name__}"])
    lines: Lines = {}
    repeated = _note_lines(node, (), lines)
    if repeated:
        raise ConfigError([f"{path}:{line}: {key}: is given twice" for key, line in repeated])
    return data, lines


def _note_lines(node: yaml.Node, prefix: tuple[str | int, ...], lines: Lines) -> list[Any]:
    repeated: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*prefix, key.value)
            if here in lines:
                repeated.append((".".join(map(str, here)), key.start_mark.line + 1))
            lines[here] = key.start_mark.line + 1
            repeated += _note_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*prefix, index)] = value.start_mark.line + 1
            repeated += _note_lines(value, (*prefix, index), lines)
    return repeated


def validate(model: type[S], data: Mapping[str, Any], source: str, lines: Lines) -> S:
    """Build a section, or raise one ``ConfigError`` that lists every problem with its line."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, source, lines)) from None


def explain(
    error: ValidationError, source: str, lines: Lines, prefix: tuple[str | int, ...] = ()
) -> list[str]:
    """Say each problem of a section that stands at ``prefix`` in the file, with its line."""
    entries = error.errors(include_url=False)
    return [
        _problem((*prefix, *entry["loc"]), entry, source, lines)
        for entry in entries
        # A list of which no entry is sound is not too short as well.
        if entry["type"] != "too_short" or not _has_inner(entry["loc"], entries)
    ]


def _has_inner(place: tuple[str | int, ...], entries: Sequence[Any]) -> bool:
    size = len(place)
    return any(len(e["loc"]) > size and e["loc"][:size] == place for e in entries)


def _problem(key: tuple[str | int, ...], entry: Any, source: str, lines: Lines) -> str:
    kind = entry["type"]
    if kind == "union_tag_invalid":
        key = (*key, entry["ctx"]["discriminator"].strip("'"))
    found: tuple[str | int, ...] = ()
    name: list[str] = []
    for part in key:
        here = (*found, part) in lines
        found = (*found, part) if here else found
        # What is not in the file is missing there, or only the kind of what is.
        if here or part == key[-1]:
            name.append(str(part))
    where = f"{source}:{lines[found]}" if found in lines else source
    head = f"{where}: {'.'.join(name) or 'the file'}"
    if kind == "missing":
        return f"{head}: is required"
    if kind == "extra_forbidden":
        return f"{head}: is no setting; see the reference in docs/configuration.md"
    if kind == "value_error":
        return f"{head}: {entry['msg'].removeprefix('Value error, ')}"
    if kind == "union_tag_invalid":
        tags = entry["ctx"]["expected_tags"].replace("'", "")
        return f"{head}: {entry['ctx']['tag']!r} is wrong, it should be one of {tags}"
    message = re.sub(r"^\w+ should ", "", entry["msg"])
    return f"{head}: {entry['input']!r} is wrong, it should {message}"


def set_key(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings, making the ones that are missing."""
    *parents, last = dotted.split(".")
    for part in parents:
        child = data.get(part)
        if not isinstance(child, dict):
            child = data[part] = {}
        data = child
    data[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``loss.margin=5.4`` into key and YAML value."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {text!r}: must be KEY=VALUE, like loss.margin=5.4"])
    try:
        return key.strip(), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError([f"--set {text!r}: the value is not YAML"]) from None


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML file and apply ``KEY=VALUE`` overrides.

    Raises:
        ConfigError: with every problem of file and overrides at once.
    """
    data, lines = read_yaml(path)
    for override in overrides:
        set_key(data, *parse_override(override))
    return validate(RunConfig, data, str(path), lines)


def flat(section: Section) -> dict[str, Any]:
    """Dotted keys and plain values of a section, for parameters of a tracked run."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else key, child)
        else:
            out[prefix] = value

    walk("", section.model_dump(mode="json"))
    return out
