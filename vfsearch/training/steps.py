"""``steps.csv`` of a run: what every optimiser step recorded, kept on rank 0."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfsearch.training.objective import TERMS

NAME = "steps.csv"
COLUMNS = ("step", *TERMS)


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One optimiser step."""

    step: int
    """From 0 over the whole run."""
    terms: tuple[float, ...]
    """Values of ``TERMS``."""

    def __getitem__(self, term: str) -> float:
        return self.terms[TERMS.index(term)]


class StepFile:
    """Appended once per epoch, before its checkpoint: a restart finds what it must not repeat."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def resume(self, step: int) -> None:
        """Drop steps from ``step`` on, of an epoch that died before its checkpoint."""
        rows = self.rows(0, step)
        partial = self._path.with_name(f".{NAME}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([row.step, *map(repr, row.terms)] for row in rows)
        partial.replace(self._path)

    def append(self, first: int, table: Sequence[Sequence[float]]) -> None:
        """Add the steps ``first``, ``first + 1``, ... in one write."""
        lines = [
            ",".join([str(step), *map(repr, terms)]) + "\n"
            for step, terms in enumerate(table, start=first)
        ]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def rows(self, first: int, end: int) -> tuple[StepRow, ...]:
        """The steps from ``first`` up to ``end``; those of another machine are not here."""
        if not self._path.exists():
            return ()
        with self._path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if len(line) == len(COLUMNS)]
        rows = [StepRow(step=int(line[0]), terms=tuple(map(float, line[1:]))) for line in lines[1:]]
        return tuple(row for row in rows if first <= row.step < end)
