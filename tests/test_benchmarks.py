"""The table of ``make bench``: scripts exist, goals are read, kept figures name a machine."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import SCRIPTS  # noqa: E402
from benchmarks.record import RESULTS, Row, met  # noqa: E402


@pytest.mark.parametrize(
    ("value", "goal", "reached"),
    [
        (1.9, "<= 2", True),
        (2.1, "<= 2", False),
        (1.0, "< 1", False),
        (20_001.0, ">= 20,000", True),
        (3.9, ">= 4 x", False),
        (3.9, "-", None),
    ],
)
def test_goals_are_compared(value: float, goal: str, reached: bool | None) -> None:
    assert met(Row(what="w", value=value, unit="s", goal=goal)) is reached


def test_scripts_exist_and_the_short_ones_fit_a_quarter_of_an_hour() -> None:
    for script in SCRIPTS:
        assert importlib.util.find_spec(f"benchmarks.{script.name}") is not None
    assert sum(script.seconds for script in SCRIPTS if not script.long) < 15 * 60


def test_kept_figures_are_of_scripts_and_name_their_machine() -> None:
    known = {name for script in SCRIPTS for name in script.results}
    for path in RESULTS.glob("*.json"):
        assert path.stem in known
        kept = json.loads(path.read_text(encoding="utf-8"))
        assert kept["machine"]["cores"] > 0
        assert kept["rows"]
        for row in kept["rows"]:
            assert Row.__required_keys__ <= set(row) <= set(Row.__annotations__)
