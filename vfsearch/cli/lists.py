"""Query lists on the command line: ``--queries a.txt b.txt`` and ``--kind``."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from typer import Context
from typer.core import TyperCommand

if TYPE_CHECKING:
    from vfsearch.corpus.queries import QueryList

_OPTION = "--queries"
_ENDINGS = (".txt", ".txt.gz")
KIND = "Kind of the lists, or kind and direction (match_v2f), where their names do not tell."


class SeveralLists(TyperCommand):
    """A command whose ``--queries`` takes every list that follows, as a shell expands ``*.txt``."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Write the option once per list, which is what the parser knows."""
        return super().parse_args(ctx, _spread(args))


def _spread(args: Sequence[str]) -> list[str]:
    out: list[str] = []
    taking = False
    for previous, arg in pairwise(["", *args]):
        another = taking and previous != _OPTION and arg.endswith(_ENDINGS)
        if another:
            out.append(_OPTION)
        out.append(arg)
        taking = another or _OPTION in (previous, arg)
    return out


def read(path: Path, kind: str | None) -> "QueryList":
    """Read a list whose kind, or kind and direction, may be given by hand.

    Raises:
        UsageError: ``kind`` names no kind.
        QueryError: see ``read_list``.
    """
    from vfsearch.corpus.queries import describe_name, read_list
    from vfsearch.errors import UsageError

    if kind is None:
        return read_list(path)
    told, direction, _ = describe_name(kind)
    if told is None:
        raise UsageError(
            f"--kind {kind!r}: must be match, verify or retrieval, or one of them with the "
            "direction, like match_v2f"
        )
    return read_list(path, told, direction=direction)
