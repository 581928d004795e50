"""Documents that are written from the code are those of this code."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import configuration_reference  # noqa: E402


def test_the_reference_of_settings_is_fresh() -> None:
    text = configuration_reference.TARGET.read_text(encoding="utf-8")
    assert text == configuration_reference.reference(), "run scripts/configuration_reference.py"
    sweeps = configuration_reference.SWEEPS.read_text(encoding="utf-8")
    assert sweeps == configuration_reference.sweep_reference(), "and this one"


def test_the_lock_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--hash=sha256:" in lock
