"""Log lines of workers say where they were said."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfsearch.search.lines import TrialLines


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger("vfsearch")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_each_line_is_json_with_sweep_trial_and_rank() -> None:
    out = io.StringIO()
    lines = TrialLines(1, out)
    logger = logging.getLogger("vfsearch.tracking.anything")
    logger.info("before the first trial")
    lines.begin(Path("/home/sweeps/first/trials/t003"), attempt=0)
    logger.warning('a "quoted"\nmessage of %d', 7)
    lines.begin(Path("/home/sweeps/first/trials/t004"), attempt=2)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line.get("trial"), line["rank"], line["level"]) for line in said] == [
        (None, 1, "INFO"),
        ("t003", 1, "WARNING"),
        ("t004", 1, "ERROR"),
    ]
    assert said[1]["message"] == 'a "quoted"\nmessage of 7'
    assert (said[2]["sweep"], said[2]["attempt"]) == ("first", 2)
    assert "ValueError: broken" in said[2]["error"]


def test_a_second_one_takes_over() -> None:
    first, second = io.StringIO(), io.StringIO()
    TrialLines(0, first)
    TrialLines(0, second)
    logging.getLogger("vfsearch").info("once")
    assert not first.getvalue()
    assert len(second.getvalue().splitlines()) == 1
