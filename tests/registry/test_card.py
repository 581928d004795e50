"""The model card: what it must tell, and how it is shortened."""

import pytest

from vfsearch.registry.card import figures_table, of_bayes
from vfsearch.registry.evidence import Figure
from vfsearch.registry.versions import _shortened

KNOWN = Figure(
    value=0.7, low=0.6, high=0.8, chance=0.5, bayes=0.9, oracles={"gender": 0.72, "both": 0.8}
)


def test_share_of_the_ceiling() -> None:
    assert of_bayes(KNOWN) == pytest.approx(0.5)
    assert of_bayes(Figure(value=0.7, low=0.6, high=0.8, chance=0.5)) is None
    assert of_bayes(Figure(value=0.5, low=0.4, high=0.6, chance=0.5, bayes=0.5)) is None


def test_table_shows_what_a_figure_is_to_be_read_against() -> None:
    other = Figure(value=0.6, low=0.5, high=0.7, chance=0.5, oracles={"gender": 0.5})
    lines = figures_table({"auc_v2f": KNOWN, "auc_v2f_G": other}).splitlines()
    assert lines[0] == "| metric | model | chance | gender | both | Bayes | of Bayes |"
    assert lines[2] == (
        "| `auc_v2f` | 0.700 [0.600, 0.800] | 0.500 | 0.720 | 0.800 | 0.900 | 50% |"
    )
    assert lines[3] == "| `auc_v2f_G` | 0.600 [0.500, 0.700] | 0.500 | 0.500 | – | – | – |"
    assert len({line.count("|") for line in lines}) == 1


def test_a_long_card_fits_the_registrys_column() -> None:
    card = "\n".join(f"line {number}" for number in range(2000))
    short = _shortened(card)
    assert len(short) <= 5000
    assert short.startswith("line 0\nline 1\n")
    assert short.endswith("README.md in the model's folder)")
    assert _shortened("brief") == "brief"
