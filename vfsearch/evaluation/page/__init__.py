"""Self-contained pages: one HTML file that asks for nothing from anywhere.

Style and script are inlined and allowed by their hashes only; the content security policy forbids
every other source, so not even a mistake in the data can make a reader's browser send a request.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from vfsearch.errors import UsageError

BASE = "vfsearch.evaluation.page"


def render(
    template: str,
    *,
    package: str = BASE,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **context: Any,
) -> str:
    """Fill one template of a page package; every value is escaped.

    Args:
        template: File of the package, extending ``base.html`` of this one.
        package: Package that holds the template, its styles and scripts.
        styles: CSS files of the package, after ``base.css``.
        scripts: JavaScript files of the package, in order of execution.
        **context: Values of the template; an unknown name in it is an error.
    """
    style = "\n".join([_read(BASE, "base.css"), *(_read(package, name) for name in styles)])
    script = "\n".join(_read(package, name) for name in scripts)
    policy = (
        "default-src 'none'; img-src data:; media-src data:; form-action 'none'; base-uri 'none'; "
        f"style-src 'unsafe-inline'; script-src '{_hash(script)}'"
    )
    environment = Environment(
        loader=FunctionLoader(lambda name: _read(BASE if name == "base.html" else package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embed"] = embed
    return environment.get_template(template).render(
        page_style=Markup(style), page_script=Markup(script), page_policy=policy, **context
    )


def embed(data: Any) -> Markup:
    """JSON that is safe inside ``<script type="application/json">``."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def data_uri(kind: str, content: bytes) -> str:
    """``data:`` address of some bytes; ``kind`` is the MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write(path: Path, text: str) -> Path:
    """Write a page completely or not at all.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
