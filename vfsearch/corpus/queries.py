"""Query lists in the released text format: what they hold, reading, writing, checking.

No header, no label column, single spaces, LF. ``match_*``: probe, positive, negatives.
``verify_*``: probe, candidate. ``reterival_*`` (the released spelling) or ``retrieval_*``: line 1
the probes, line 2 the gallery. The identity is the first component of a path. The name's parts,
joined by ``_``, say the rest: direction ``v2f`` or ``f2v``; ``g``, ``n`` or ``gn`` for negatives
of the same gender, nationality or both (none of them: all identities); the gallery size.
"""

import gzip
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64

from vfsearch.corpus.strata import Person, Stratum
from vfsearch.errors import QueryError

Kind = Literal["match", "verify", "retrieval"]
Direction = Literal["v2f", "f2v"]

_KINDS: dict[str, Kind] = {
    "match": "match",
    "verify": "verify",
    "reterival": "retrieval",
    "retrieval": "retrieval",
}
_STRATA: dict[str, Stratum] = {"g": "G", "n": "N", "gn": "GN"}
_DIRECTIONS: dict[str, Direction] = {"v2f": "v2f", "f2v": "f2v"}


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryList:
    """One list as integer arrays over two tables of paths, POSIX, as named in the file."""

    name: str
    """File name without its endings."""
    kind: Kind
    direction: Direction
    stratum: Stratum
    """From whom the negatives come: U all, G same gender, N same nationality, GN both."""
    probe_paths: Sequence[str]
    """Paths of probes, each once."""
    candidate_paths: Sequence[str]
    """Paths of candidates, each once."""
    probes: Int32[np.ndarray, " queries"]
    """Row of ``probe_paths`` of each query."""
    candidates: Int32[np.ndarray, "rows gallery"]
    """Rows of ``candidate_paths``. match: one row per query, the positive first; verify: one row
    of one per query; retrieval: a single row, the gallery shared by all probes."""

    def __len__(self) -> int:
        return len(self.probes)

    @property
    def gallery(self) -> int:
        """Candidates per query: N of 1:N matching."""
        return int(self.candidates.shape[1])


def describe_name(name: str) -> tuple[Kind | None, Direction | None, Stratum]:
    """Kind, direction and stratum that a list's name tells; None where it does not."""
    parts = name.lower().split("_")
    kind = _KINDS.get(parts[0])
    direction = next((_DIRECTIONS[part] for part in parts if part in _DIRECTIONS), None)
    strata: list[Stratum] = [_STRATA[part] for part in parts if part in _STRATA]
    return kind, direction, strata[0] if strata else "U"


def list_name(
    kind: Kind, direction: Direction, stratum: Stratum, split: str, gallery: int = 2
) -> str:
    """The name of a generated list, like ``match_g_v2f_2_test`` (g: same-gender negatives)."""
    parts: list[str] = ["reterival" if kind == "retrieval" else kind]
    if stratum != "U":
        parts.append(stratum.lower())
    parts.append(direction)
    if kind == "match":
        parts.append(str(gallery))
    return "_".join([*parts, split])


def read_list(
    path: Path, kind: Kind | None = None, *, direction: Direction | None = None
) -> QueryList:
    """Read a ``.txt`` or ``.txt.gz`` list; ``kind`` and ``direction`` go before the name's.

    Raises:
        QueryError: unreadable, of unknown kind or direction, or a malformed line (with number).
    """
    name = path.name.removesuffix(".gz").removesuffix(".txt")
    told_kind, told_direction, stratum = describe_name(name)
    kind, direction = kind or told_kind, direction or told_direction
    text = _read_text(path)
    if kind is None:
        raise QueryError(
            f"{path}: the name does not tell the kind of list: it should start with match_, "
            "verify_ or retrieval_, or the kind be given"
        )
    if direction is None:
        raise QueryError(
            f"{path}: the name does not tell the direction: it should contain v2f or f2v"
        )
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise QueryError(f"{path}: is empty")
    lines = [line.removesuffix("\r") for line in lines] if lines[0].endswith("\r") else lines
    tokens = [line.split(" ") for line in lines]
    if kind == "retrieval":
        return _parse_retrieval(path, name, direction, stratum, tokens)
    width = 2 if kind == "verify" else len(tokens[0])
    if width < 2 + (kind == "match"):
        raise QueryError(f"{path}:1: a match line needs a probe, a positive and a negative")
    for number, line in enumerate(tokens, start=1):
        if len(line) != width or "" in line:
            raise QueryError(
                f"{path}:{number}: {width} paths separated by single spaces should be here, "
                f"as {'in every verify list' if kind == 'verify' else 'on line 1'}"
            )
    probe_paths, probes = _index([line[0] for line in tokens])
    flat = [token for line in tokens for token in line[1:]]
    candidate_paths, candidates = _index(flat)
    return QueryList(
        name=name,
        kind=kind,
        direction=direction,
        stratum=stratum,
        probe_paths=probe_paths,
        candidate_paths=candidate_paths,
        probes=probes,
        candidates=candidates.reshape(len(tokens), width - 1),
    )


def _parse_retrieval(
    path: Path, name: str, direction: Direction, stratum: Stratum, tokens: list[list[str]]
) -> QueryList:
    if len(tokens) != 2:
        raise QueryError(
            f"{path}: a retrieval list has two lines, the probes and the gallery, not {len(tokens)}"
        )
    for number, line in enumerate(tokens, start=1):
        if "" in line:
            raise QueryError(f"{path}:{number}: paths separated by single spaces should be here")
    probe_paths, probes = _index(tokens[0])
    candidate_paths, candidates = _index(tokens[1])
    return QueryList(
        name=name,
        kind="retrieval",
        direction=direction,
        stratum=stratum,
        probe_paths=probe_paths,
        candidate_paths=candidate_paths,
        probes=probes,
        candidates=candidates.reshape(1, -1),
    )


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise QueryError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise QueryError(f"{path}: cannot be read ({reason})") from None


def _index(tokens: list[str]) -> tuple[tuple[str, ...], Int32[np.ndarray, " tokens"]]:
    table = {token: row for row, token in enumerate(dict.fromkeys(tokens))}
    rows = np.fromiter(map(table.__getitem__, tokens), dtype=np.int32, count=len(tokens))
    return tuple(table), rows


def format_list(queries: QueryList) -> str:
    """The list in the released text format, with a final LF."""
    # Object arrays: taking and joining references is an order faster than building strings.
    probes = np.array(queries.probe_paths, dtype=object)[queries.probes]
    candidates = np.array(queries.candidate_paths, dtype=object)[queries.candidates]
    if queries.kind == "retrieval":
        return " ".join(probes.tolist()) + "\n" + " ".join(candidates[0].tolist()) + "\n"
    rows = np.concatenate([probes[:, None], candidates], axis=1).tolist()
    return "\n".join(map(" ".join, rows)) + "\n"


def write_list(queries: QueryList, folder: Path) -> Path:
    """Write ``<folder>/<name>.txt``; the file appears whole or not at all.

    Raises:
        QueryError: the folder cannot be written.
    """
    target = folder / f"{queries.name}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{queries.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(format_list(queries))
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise QueryError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def identities_of(
    paths: Sequence[str], identities: Sequence[Person], modality: Literal["voice", "face"]
) -> Int64[np.ndarray, " paths"]:
    """Row in ``identities`` of each path's identity, its first component.

    Raises:
        QueryError: an identity that the CSV does not have, with the path that names it.
    """
    table = {
        person.voice_id if modality == "voice" else person.face_id: row
        for row, person in enumerate(identities)
    }
    rows = [table.get(path.partition("/")[0], -1) for path in paths]
    missing = [path for path, row in zip(paths, rows, strict=True) if row < 0]
    if missing:
        names = list(dict.fromkeys(path.partition("/")[0] for path in missing))
        raise QueryError(
            f"{len(names)} {modality} identities are not in the CSV: {', '.join(names[:5])}"
            f"{' ...' if len(names) > 5 else ''} (first path: {missing[0]})"
        )
    return np.array(rows, dtype=np.int64)


def modalities(
    direction: Direction,
) -> tuple[Literal["voice", "face"], Literal["voice", "face"]]:
    """Modality of the probes and of the candidates."""
    return ("voice", "face") if direction == "v2f" else ("face", "voice")
