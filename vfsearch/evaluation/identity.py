"""What figures must share to be compared: the split, the query lists, the evaluation's version."""

import hashlib
from collections.abc import Sequence

import numpy as np

from vfsearch.corpus.queries import QueryList

VERSION = 1
"""Raised whenever evaluation changes what a metric means."""
_PARTS = ("version of the evaluation", "split (identities and files)", "query lists")


def queries_hash(lists: Sequence[QueryList]) -> str:
    """SHA-256 over names and contents of query lists."""
    digest = hashlib.sha256()
    for queries in lists:
        digest.update(f"{queries.name}\n{queries.kind}\n{queries.direction}\n".encode())
        for paths, rows in (
            (queries.probe_paths, queries.probes),
            (queries.candidate_paths, queries.candidates),
        ):
            digest.update("\n".join(paths).encode())
            digest.update(np.ascontiguousarray(rows, np.int32).tobytes())
    return digest.hexdigest()


def evaluation_key(split_hash: str, lists: Sequence[QueryList]) -> str:
    """Identity of an evaluation: ``v1:<split>:<queries>``; equal keys, comparable figures."""
    return f"v{VERSION}:{split_hash[:12]}:{queries_hash(lists)[:12]}"


def difference(first: str, second: str) -> str:
    """In which part two evaluations differ, in words; empty if they are the same."""
    return " and ".join(
        f"{part} ({a} and {b})"
        for part, a, b in zip(_PARTS, first.split(":"), second.split(":"), strict=True)
        if a != b
    )
