"""The decision is pure: no server, no model, only numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfsearch.errors import ConfigError
from vfsearch.registry.decision import decide
from vfsearch.registry.evidence import Difference, Evidence, Figure, Scorecard
from vfsearch.registry.policy import Improvement, Minimum, NoWorse, PromotionPolicy, load_policy

V2F, F2V, GENDER = "match_v2f_1to2", "match_f2v_1to2", "match_v2f_1to2_G"
POLICY = PromotionPolicy(no_worse=NoWorse(metrics=(V2F, GENDER), tolerance=0.02))
SHIPPED = Path(__file__).parents[2] / "tracking" / "promotion.yaml"


def figure(value: float, half: float = 0.05, chance: float = 0.5) -> Figure:
    return Figure(value=value, low=value - half, high=value + half, chance=chance)


def card(v2f: float = 0.8, f2v: float = 0.8, gender: float = 0.7) -> Scorecard:
    return Scorecard(
        figures={V2F: figure(v2f), F2V: figure(f2v), GENDER: figure(gender)},
        dataset="d1",
        seconds=10,
        bytes=4_000_000,
        seen=(),
    )


def against(candidate: Scorecard, champion: Scorecard, half: float = 0.03) -> Evidence:
    gaps = {
        name: candidate.figures[name].value - champion.figures[name].value for name in (V2F, F2V)
    }
    return Evidence(
        candidate=candidate,
        champion=champion,
        differences={
            name: Difference(value=gap, low=gap - half, high=gap + half)
            for name, gap in gaps.items()
        },
        promoted_on="d1",
    )


def failed(evidence: Evidence, policy: PromotionPolicy = POLICY) -> set[tuple[str, str]]:
    decision = decide(evidence, policy)
    assert decision.promote == (not decision.failed)
    return {(reason.rule, reason.about) for reason in decision.failed}


def test_the_shipped_policy_is_the_default() -> None:
    assert load_policy(SHIPPED) == PromotionPolicy() == load_policy(None)


def test_first_promotion_needs_the_minimum_only() -> None:
    assert failed(Evidence(candidate=card())) == set()
    assert failed(Evidence(candidate=card(f2v=0.54))) == {("minimum", F2V)}
    assert failed(Evidence(candidate=card(f2v=0.55))) == {("minimum", F2V)}, "must exceed chance"
    assert failed(Evidence(candidate=card(v2f=0.51, f2v=0.4))) == {
        ("minimum", V2F),
        ("minimum", F2V),
    }


def test_better_model_with_certainty_wins_and_chance_progress_does_not() -> None:
    assert failed(against(card(0.85, 0.85), card())) == set()
    assert failed(against(card(0.82, 0.85), card())) == {("improvement", V2F)}
    assert failed(against(card(), card())) == {("improvement", V2F), ("improvement", F2V)}


def test_a_stratum_may_not_be_lost() -> None:
    assert failed(against(card(0.9, 0.9, 0.69), card())) == set()
    assert failed(against(card(0.9, 0.9, 0.67), card())) == {("no worse", GENDER)}
    without = replace(card(0.9, 0.9), figures={V2F: figure(0.9), F2V: figure(0.9)})
    assert failed(against(without, card())) == {("no worse", GENDER)}
    small = replace(card(), figures={V2F: figure(0.8), F2V: figure(0.8)})
    assert failed(against(card(0.9, 0.9), small)) == set(), "the champion has no such figure"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"seen": ("id1",)}, ("unseen identities", "training split")),
        ({"seen": None}, ("unseen identities", "training split")),
        ({"seconds": 4000.0}, ("limits", "evaluation seconds")),
        ({"bytes": 2_000_000_000}, ("limits", "model megabytes")),
        ({"dataset": "d2"}, ("same dataset", "test split")),
    ],
)
def test_each_rule_refuses_alone(change: dict[str, object], rule: tuple[str, str]) -> None:
    candidate = replace(card(0.9, 0.9), **change)  # type: ignore[arg-type]
    assert failed(against(candidate, card())) == {rule}


def test_another_test_split_than_at_the_promotion_is_refused_unless_allowed() -> None:
    evidence = replace(against(card(0.9, 0.9), card()), promoted_on="d0")
    assert failed(evidence) == {("same dataset", "test split")}
    assert failed(evidence, POLICY.model_copy(update={"same_dataset": False})) == set()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_figures_that_are_not_finite_are_refused(bad: float) -> None:
    figures = {**card().figures, "auc_v2f": figure(bad)}
    evidence = Evidence(candidate=replace(card(), figures=figures))
    assert ("finite figures", "all metrics") in failed(evidence)
    assert failed(Evidence(candidate=replace(card(), figures={})))


def test_only_comparisons_failing_makes_a_sound_challenger() -> None:
    assert decide(against(card(), card()), POLICY).sound
    assert not decide(against(card(0.5, 0.5), card()), POLICY).sound
    assert not decide(Evidence(candidate=replace(card(), seen=("id1",))), POLICY).sound


VALUE = st.floats(0.4, 1.0)
STEP = st.floats(0.0, 0.3)


@given(
    old=st.tuples(VALUE, VALUE, VALUE),
    new=st.tuples(VALUE, VALUE, VALUE),
    gain=st.tuples(STEP, STEP, STEP),
    seconds=st.tuples(st.floats(0, 5000), st.floats(0, 1)),
    size=st.tuples(st.integers(0, 2_000_000_000), st.floats(0, 1)),
    first=st.booleans(),
)
def test_a_better_candidate_never_turns_yes_to_no(
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    gain: tuple[float, float, float],
    seconds: tuple[float, float],
    size: tuple[int, float],
    first: bool,
) -> None:
    worse = replace(card(*new), seconds=seconds[0], bytes=size[0])
    better = replace(
        card(*(value + step for value, step in zip(new, gain, strict=True))),
        seconds=seconds[0] * seconds[1],
        bytes=int(size[0] * size[1]),
    )
    champion = card(*old)
    before = Evidence(candidate=worse) if first else against(worse, champion)
    after = Evidence(candidate=better) if first else against(better, champion)
    passed = {(r.rule, r.about) for r in decide(before, POLICY).reasons if r.passed}
    lost = {(r.rule, r.about) for r in decide(after, POLICY).failed} & passed
    assert not lost
    if decide(before, POLICY).promote:
        assert decide(after, POLICY).promote


@given(
    old=st.tuples(VALUE, VALUE, VALUE),
    new=st.tuples(VALUE, VALUE, VALUE),
    margin=STEP,
    tolerance=STEP,
    bar=st.floats(0, 0.4),
    stricter=st.floats(0, 0.2),
)
def test_a_stricter_policy_never_turns_no_to_yes(
    old: tuple[float, float, float],
    new: tuple[float, float, float],
    margin: float,
    tolerance: float,
    bar: float,
    stricter: float,
) -> None:
    def policy(extra: float) -> PromotionPolicy:
        return PromotionPolicy(
            minimum=(Minimum(metric=V2F, above_chance=bar + extra, at_least=bar + extra),),
            improvement=Improvement(metrics=(V2F,), margin=margin + extra),
            no_worse=NoWorse(metrics=(GENDER,), tolerance=max(0.0, tolerance - extra)),
        )

    evidence = against(card(*new), card(*old))
    if decide(evidence, policy(stricter)).promote:
        assert decide(evidence, policy(0.0)).promote


@given(value=st.tuples(VALUE, VALUE, VALUE))
def test_a_model_never_replaces_itself(value: tuple[float, float, float]) -> None:
    assert not decide(against(card(*value), card(*value), half=0.0), POLICY).promote


def test_every_problem_of_a_policy_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "minimum:\n  - {metric: eer_v2f, at_least: 0.1}\n  - {metric: auc_v2f}\n"
        "improvement:\n  margin: -1\nlimit: 3\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    text = str(caught.value)
    assert "4 problems" in text
    assert "eer_v2f" in text
    assert "above_chance, at_least or both" in text
    assert f"{path}:5: improvement.margin" in text
    assert f"{path}:6: limit: is no setting" in text


def test_a_policy_cannot_ask_for_a_gallery_that_it_does_not_evaluate() -> None:
    with pytest.raises(ValueError, match="does not hold 7"):
        PromotionPolicy(minimum=(Minimum(metric="match_v2f_1to7", at_least=0.2),))
