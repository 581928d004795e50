"""``vfsearch corpus check``: would training work on these files?"""

from collections.abc import Callable
from dataclasses import dataclass

from vfsearch.config import CorpusConfig
from vfsearch.corpus.layout import SPLITS, SplitName, scan_split
from vfsearch.corpus.store import open_store
from vfsearch.errors import CorpusError, UnusableSplitError


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What a split holds, and what keeps it from being used."""

    name: SplitName
    identities: int
    voices: int
    faces: int
    """Usable files."""
    excluded: tuple[tuple[str, str], ...]
    """Path and reason of files that cannot be used."""
    problem: str | None
    """Why training or evaluation on this split would fail, or None."""


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """All splits."""

    splits: tuple[SplitReport, ...]
    shared: tuple[str, ...]
    """Identities that stand in more than one split, in words."""

    @property
    def ok(self) -> bool:
        """Whether training would start."""
        return not self.shared and all(split.problem is None for split in self.splits)


def check_corpus(
    config: CorpusConfig, progress: Callable[[str, int, int], None] | None = None
) -> CorpusReport:
    """Decode every file of every split (into the store, so the work is not lost).

    Args:
        config: Corpus.
        progress: Called with split, files done and in all.
    """
    reports: list[SplitReport] = []
    owners: dict[str, list[SplitName]] = {}
    for name in SPLITS:
        try:
            split = scan_split(config, name)
        except CorpusError as error:
            reports.append(_empty(name, str(error)))
            continue
        for who in split.identities:
            for key in (who.voice_id, who.face_id):
                owners.setdefault(key, []).append(name)
        problem = None
        excluded: tuple[tuple[str, str], ...] = ()
        try:
            store = open_store(config, name, _told(progress, name))
            excluded = store.excluded
        except UnusableSplitError as error:
            problem, excluded = str(error), error.excluded
        bad = {path for path, _ in excluded}
        roots = (config.root / config.audio, config.root / config.images)
        reports.append(
            SplitReport(
                name=name,
                identities=len(split.identities),
                voices=sum(str(roots[0] / voice.path) not in bad for voice in split.voices),
                faces=sum(str(roots[1] / face.path) not in bad for face in split.faces),
                excluded=excluded,
                problem=problem,
            )
        )
    shared = tuple(
        f"{key} stands in {' and '.join(names)}" for key, names in owners.items() if len(names) > 1
    )
    return CorpusReport(splits=tuple(reports), shared=shared)


def _empty(name: SplitName, problem: str) -> SplitReport:
    return SplitReport(name=name, identities=0, voices=0, faces=0, excluded=(), problem=problem)


def _told(
    progress: Callable[[str, int, int], None] | None, name: str
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
