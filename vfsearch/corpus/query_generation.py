"""Query lists as the supplement's section 3 makes them.

Per instance of the split ``galleries`` (3) galleries of one random positive of the other modality
and N-1 negatives from other identities; verification takes one sample, positive or negative, of
each 1:2 gallery at random; retrieval probes the whole other modality with every instance. The
text leaves open whether two negatives may share an identity; here they never do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from vfsearch.corpus.queries import Direction, Kind, QueryList, list_name
from vfsearch.corpus.strata import Person, Stratum, stratum_keys, stratum_label
from vfsearch.errors import QueryError

_STRATUM_CODE: dict[Stratum, int] = {"U": 0, "G": 1, "N": 2, "GN": 3}
_DIRECTION_CODE: dict[Direction, int] = {"v2f": 0, "f2v": 1}
_KIND_CODE: dict[Kind, int] = {"match": 0, "verify": 1, "retrieval": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """Voices and faces of one split, each with the row of its identity."""

    voice_paths: Sequence[str]
    voice_identity: Int64[np.ndarray, " voices"]
    face_paths: Sequence[str]
    face_identity: Int64[np.ndarray, " faces"]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Lists, and in words what could not be formed."""

    lists: tuple[QueryList, ...]
    notes: tuple[str, ...]


def generate(
    instances: Instances,
    identities: Sequence[Person],
    *,
    split: str,
    n: Sequence[int],
    strata: Sequence[Stratum],
    seed: int,
    galleries: int = 3,
    min_share: float = 0.5,
    impossible: Literal["error", "drop"] = "error",
) -> Generated:
    """Matching lists for every N and stratum, verification per stratum, retrieval; both directions.

    Every list has its own random stream, keyed by seed, direction, stratum and N: it does not
    depend on which other lists are asked for.

    A probe of whose group fewer than N-1 other identities exist cannot have a gallery. It is left
    out, with a note, as long as at least ``min_share`` of the probes remain (the paper's own test
    set has identities that are alone with their nationality); otherwise the stratum is impossible.

    Raises:
        QueryError: an impossible stratum, naming stratum, gallery size, groups and counts (with
            ``impossible="drop"`` the list is dropped with a note instead); no instances.
    """
    _check_request(n, strata, galleries)
    lists: list[QueryList] = []
    notes: list[str] = []
    for direction in ("v2f", "f2v"):
        side = _Side.of(instances, identities, direction)
        for stratum in strata:
            keys = stratum_keys(identities, stratum)
            for size in sorted({2, *n}):
                keep, shortage = side.feasible(identities, keys, stratum, size)
                share = float(keep.mean())
                if share == 0 or share < min_share:
                    message = f"{shortage}; only {share:.1%} of the probes can have a gallery"
                    if impossible == "error":
                        raise QueryError(f"stratum {stratum} is impossible: {message}")
                    notes.append(f"dropped: {message}")
                    continue
                if shortage and size in n:
                    notes.append(f"{shortage}; their {int((~keep).sum())} probes are left out")
                made = side.match(keys, keep, stratum, size, split, seed, galleries)
                if size in n:
                    lists.append(made)
                if size == 2:
                    lists.append(_verification(made, direction, stratum, split, seed))
        lists.append(side.retrieval(split))
    return Generated(lists=tuple(lists), notes=tuple(notes))


def _check_request(n: Sequence[int], strata: Sequence[Stratum], galleries: int) -> None:
    if not n or min(n) < 2:
        raise QueryError(f"gallery sizes must be at least 2, but n={list(n)}")
    unknown = [stratum for stratum in strata if stratum not in _STRATUM_CODE]
    if unknown or not strata:
        raise QueryError(f"strata must be some of U, G, N, GN, not {unknown or 'none'}")
    if galleries < 1:
        raise QueryError(f"galleries per instance must be at least 1, not {galleries}")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """One direction: probes, and candidates grouped by identity."""

    direction: Direction
    probe_paths: Sequence[str]
    probe_identity: Int64[np.ndarray, " probes"]
    candidate_paths: Sequence[str]
    grouped: Int64[np.ndarray, " candidates"]
    """Candidate rows, those of identity 0 first."""
    start: Int64[np.ndarray, " identities"]
    count: Int64[np.ndarray, " identities"]

    @staticmethod
    def of(instances: Instances, identities: Sequence[Person], direction: Direction) -> "_Side":
        voices = (instances.voice_paths, instances.voice_identity)
        faces = (instances.face_paths, instances.face_identity)
        (probes, owners), (candidates, targets) = (
            (voices, faces) if direction == "v2f" else (faces, voices)
        )
        if len(probes) == 0 or len(candidates) == 0:
            raise QueryError(
                f"query lists need voices and faces, but there are {len(instances.voice_paths)} "
                f"voices and {len(instances.face_paths)} faces"
            )
        count = np.bincount(targets, minlength=len(identities)).astype(np.int64)
        alone = np.unique(np.asarray(owners)[count[owners] == 0])
        if len(alone):
            who = ", ".join(identities[row].voice_id for row in alone[:5])
            raise QueryError(f"{direction}: {len(alone)} identities have no positive: {who}")
        return _Side(
            direction=direction,
            probe_paths=probes,
            probe_identity=np.asarray(owners, dtype=np.int64),
            candidate_paths=candidates,
            grouped=np.argsort(targets, kind="stable").astype(np.int64),
            start=np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64),
            count=count,
        )

    def feasible(
        self,
        identities: Sequence[Person],
        keys: Int64[np.ndarray, " identities"],
        stratum: Stratum,
        size: int,
    ) -> tuple[Bool[np.ndarray, " probes"], str]:
        """Which probes can have a gallery, and in words which groups are too small."""
        present = self.count > 0
        available = np.bincount(keys[present], minlength=int(keys.max()) + 1)
        small = available - 1 < size - 1
        keep = ~small[keys[self.probe_identity]]
        if keep.all():
            return keep, ""
        groups: dict[int, str] = {
            int(key): stratum_label(person, stratum)
            for key, person in zip(keys, identities, strict=True)
            if small[key]
        }
        told = [f"{label}: {available[key]}" for key, label in list(groups.items())[:5]]
        more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
        return keep, (
            f"{self.direction} 1:{size} stratum {stratum} needs {size} identities in a group, "
            f"but there are {', '.join(told)}{more}"
        )

    def match(
        self,
        keys: Int64[np.ndarray, " identities"],
        keep: Bool[np.ndarray, " probes"],
        stratum: Stratum,
        size: int,
        split: str,
        seed: int,
        galleries: int,
    ) -> QueryList:
        random = _stream(seed, "match", self.direction, stratum, size)
        probes = np.repeat(np.flatnonzero(keep), galleries)
        identity = self.probe_identity[probes]
        picked = np.empty((len(probes), size), dtype=np.int64)
        picked[:, 0] = identity
        present = np.flatnonzero(self.count > 0)
        order = present[np.argsort(keys[present], kind="stable")]
        first = np.searchsorted(keys[order], np.arange(int(keys.max()) + 1))
        members = np.bincount(keys[order], minlength=int(keys.max()) + 1)
        place = np.zeros(len(keys), dtype=np.int64)
        place[order] = np.arange(len(order)) - first[keys[order]]
        # The taken places of the group, ascending: first the probe's own, then each negative's.
        taken = place[identity][:, None]
        for column in range(1, size):
            drawn = random.integers(0, members[keys[identity]] - column)
            for other in taken.T:
                drawn += drawn >= other
            picked[:, column] = order[first[keys[identity]] + drawn]
            taken = np.sort(np.concatenate([taken, drawn[:, None]], axis=1), axis=1)
        rows = self.grouped[self.start[picked] + random.integers(0, self.count[picked])]
        return QueryList(
            name=list_name("match", self.direction, stratum, split, size),
            kind="match",
            direction=self.direction,
            stratum=stratum,
            probe_paths=self.probe_paths,
            candidate_paths=self.candidate_paths,
            probes=probes.astype(np.int32),
            candidates=rows.astype(np.int32),
        )

    def retrieval(self, split: str) -> QueryList:
        return QueryList(
            name=list_name("retrieval", self.direction, "U", split),
            kind="retrieval",
            direction=self.direction,
            stratum="U",
            probe_paths=self.probe_paths,
            candidate_paths=self.candidate_paths,
            probes=np.arange(len(self.probe_paths), dtype=np.int32),
            candidates=np.arange(len(self.candidate_paths), dtype=np.int32)[None],
        )


def _verification(
    pairs: QueryList, direction: Direction, stratum: Stratum, split: str, seed: int
) -> QueryList:
    random = _stream(seed, "verify", direction, stratum, 2)
    side = random.integers(0, 2, size=len(pairs))
    return QueryList(
        name=list_name("verify", direction, stratum, split),
        kind="verify",
        direction=direction,
        stratum=stratum,
        probe_paths=pairs.probe_paths,
        candidate_paths=pairs.candidate_paths,
        probes=pairs.probes,
        candidates=np.take_along_axis(pairs.candidates, side[:, None], axis=1),
    )


def _stream(
    seed: int, kind: Kind, direction: Direction, stratum: Stratum, size: int
) -> np.random.Generator:
    key = [seed, _KIND_CODE[kind], _DIRECTION_CODE[direction], _STRATUM_CODE[stratum], size]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
