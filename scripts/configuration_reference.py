"""Write docs/configuration.md from the settings' own docstrings."""

from pathlib import Path
from typing import Any

from vfsearch.cluster.values import ClusterValues
from vfsearch.config import RunConfig, Section

TARGET = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Settings of a training run

Written from the docstrings in `vfsearch/config.py` by `python scripts/configuration_reference.py`.
A run's YAML file has these keys; `--set section.key=value` overrides one; a search space's
`base:` takes the same keys and its `parameters:` are dotted names of them.
"""
CLUSTER = """
# Values of a cluster

What `cluster/values.yaml` holds (`vfsearch/cluster/values.py`); `vfsearch cluster render` makes the
cluster files of it.
"""


def _type(annotation: Any) -> str:
    text = (
        str(getattr(annotation, "__name__", annotation))
        if isinstance(annotation, type)
        else str(annotation)
    )
    return (
        text.replace("typing.", "")
        .replace("pathlib.", "")
        .replace("Literal", "one of ")
        .replace("|", "or")
    )


def _bounds(metadata: list[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    parts = [
        f"{sign} {value}"
        for item in metadata
        for name, sign in signs.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _section(model: type[Section], name: str) -> list[str]:
    rows, below = [], []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            below += _section(field.annotation, f"{name}.{key}".lstrip("."))
            continue
        default = "required" if field.is_required() else f"`{field.default}`"
        kind = _type(field.annotation) + _bounds(field.metadata)
        rows.append(f"| `{key}` | {kind} | {default} | {field.description or ''} |")
    head = [
        f"\n## `{name}`\n" if name else "\n## top level\n",
        (model.__doc__ or "").strip() + "\n",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    return (head + rows if rows else []) + below


def reference() -> str:
    """The whole document."""
    run, cluster = ("\n".join(_section(model, "")) for model in (RunConfig, ClusterValues))
    return f"{HEAD}{run}\n{CLUSTER}{cluster}\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
