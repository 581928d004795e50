"""Every cluster file from one set of values: rendered, compared, written."""

from pathlib import Path
from typing import Any

import yaml

from vfsearch.cluster.foundation import foundation
from vfsearch.cluster.image import dockerfile
from vfsearch.cluster.kubernetes import kuberay
from vfsearch.cluster.providers import aws, local
from vfsearch.cluster.values import ClusterValues

HEADER = (
    "# Rendered by 'vfsearch cluster render' from cluster/values.yaml: change that, not this.\n"
)


class _Plain(yaml.SafeDumper):
    """No anchors: repeated parts are written out."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def render(values: ClusterValues) -> dict[str, str]:
    """Text of every file, by name."""
    return {
        "local.yaml": _yaml(local(values)),
        "aws.yaml": _yaml(aws(values)),
        "aws-foundation.yaml": _yaml(foundation(values)),
        "kuberay.yaml": _yaml(*kuberay(values)),
        "Dockerfile": HEADER + dockerfile(values),
    }


def stale(values: ClusterValues, folder: Path) -> list[str]:
    """Names of the files in ``folder`` that are missing or differ from the values."""
    return [
        name
        for name, text in render(values).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def write(values: ClusterValues, folder: Path) -> list[str]:
    """Write what differs; returns the names. Each file is replaced as a whole."""
    changed = stale(values, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        partial = folder / f".{name}.partial"
        partial.write_text(render(values)[name], encoding="utf-8")
        partial.replace(folder / name)
    return changed


def _yaml(*documents: dict[str, Any]) -> str:
    body = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
    return HEADER + body
