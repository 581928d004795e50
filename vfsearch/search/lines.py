"""Logs of workers as JSON lines, each with sweep, trial and rank; Ray keeps them per process."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

_ROOT = "vfsearch"


class TrialLines(logging.StreamHandler[TextIO]):
    """Writes what vfsearch's loggers say in this process, and which trial it was said in."""

    def __init__(self, rank: int, stream: TextIO | None = None) -> None:
        """Take over the loggers of the package."""
        super().__init__(stream or sys.stderr)
        self._where: dict[str, object] = {"rank": rank}
        logger = logging.getLogger(_ROOT)
        logger.handlers[:] = [self]
        logger.setLevel(logging.INFO)
        logger.propagate = False  # Ray's own handlers would repeat each line

    def begin(self, out: Path, attempt: int) -> None:
        """Say from now on which trial it is; ``out`` is its folder, ``.../SWEEP/trials/TRIAL``."""
        self._where |= {"sweep": out.parents[1].name, "trial": out.name, "attempt": attempt}

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._where,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(line)
