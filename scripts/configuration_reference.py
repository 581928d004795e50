"""Write docs/configuration.md and docs/search-spaces.md from the settings' own docstrings."""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from vfsearch.cluster.values import ClusterValues
from vfsearch.config import RunConfig, Section
from vfsearch.search import definition, parameters, pruners
from vfsearch.search.budget import Budget, Target

TARGET = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Settings of a training run

Written from the docstrings in `vfsearch/config` by `python scripts/configuration_reference.py`.
A run's YAML file has these keys; `--set section.key=value` overrides one; a search space's
`base:` takes the same keys and its `parameters:` are dotted names of them.
"""
CLUSTER = """
# Values of a cluster

What `cluster/values.yaml` holds (`vfsearch/cluster/values.py`); `vfsearch cluster render` makes the
cluster files of it.
"""

SWEEPS = Path(__file__).parent.parent / "docs" / "search-spaces.md"
SWEEPS_HEAD = """# Settings of a sweep

Written from the docstrings in `vfsearch/search/` by `python scripts/configuration_reference.py`.
A search space (`search_spaces/*.yaml`) has these keys; `--set budget.trials=40` overrides one, and
`--set corpus.root=...` one of the base run. `vfsearch space check FILE` tells all mistakes at once.
`base:` holds a run (docs/configuration.md), or `config: FILE` names one. A constraint is a linear
inequality on settings and metrics, like `reweighting.admit_from + 0.1 <= reweighting.admit_to` or
`time/evaluation_seconds <= 60`.
"""
PARTS: dict[str, type[Section]] = {
    "": definition.SweepConfig,
    "parameters.NAME (type: float)": parameters.FloatParameter,
    "parameters.NAME (type: int)": parameters.IntParameter,
    "parameters.NAME (type: categorical)": parameters.CategoricalParameter,
    "objectives": definition.Objective,
    **{
        f"sampler (name: {kind.__name__.lower()})": kind
        for kind in (
            definition.Tpe,
            definition.Gp,
            definition.CmaEs,
            definition.Nsga2,
            definition.Random,
            definition.Grid,
            definition.Qmc,
        )
    },
    **{
        f"pruner (name: {kind.__name__.lower()})": kind
        for kind in (
            pruners.Asha,
            pruners.Hyperband,
            pruners.Median,
            pruners.Wilcoxon,
            pruners.Patient,
        )
    },
    "budget": Budget,
    "budget.target": Target,
    "warm_start": definition.WarmStart,
}


def _type(annotation: Any) -> str:
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(arguments[0]) + _bounds([*arguments[1:], *_metadata(arguments[1:])])
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in arguments))
    if origin is tuple:
        kinds = dict.fromkeys(_type(one) for one in arguments if one is not Ellipsis)
        return f"list of {', '.join(kinds)}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if annotation in (None, NoneType):
        return "null"
    return str(getattr(annotation, "__name__", annotation))


def _metadata(arguments: Sequence[Any]) -> list[Any]:
    """Bounds that a nested `Field` holds."""
    return [item for one in arguments for item in getattr(one, "metadata", [])]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return f"`{value.name if isinstance(value, Section) else value}`"


def _bounds(metadata: list[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    parts = [
        f"{sign} {value}"
        for item in metadata
        for name, sign in signs.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _section(model: type[Section], name: str, *, below: bool = True) -> list[str]:
    rows, inner = [], []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            if below:
                inner += _section(field.annotation, f"{name}.{key}".lstrip("."))
            continue
        if key == "name" and model not in (RunConfig, definition.SweepConfig):
            continue  # the key of the entry, or what chooses this kind of it
        default = _default(field)
        kind = _type(field.annotation) + _bounds(field.metadata)
        rows.append(f"| `{key}` | {kind} | {default} | {field.description or ''} |")
    head = [
        f"\n## `{name}`\n" if name else "\n## top level\n",
        (model.__doc__ or "").strip() + "\n",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    return (head + rows if rows else []) + inner


def reference() -> str:
    """The whole document."""
    run, cluster = ("\n".join(_section(model, "")) for model in (RunConfig, ClusterValues))
    return f"{HEAD}{run}\n{CLUSTER}{cluster}\n"


def sweep_reference() -> str:
    """The document on sweeps."""
    parts = [_section(model, name, below=False) for name, model in PARTS.items()]
    return SWEEPS_HEAD + "\n".join(line for part in parts for line in part) + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    SWEEPS.write_text(sweep_reference(), encoding="utf-8")
