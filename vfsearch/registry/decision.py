"""The promotion decision: a pure function from evidence and policy to yes or no, with reasons.

It is monotone: a candidate that measures better in any figure, or costs less, is never refused
where the worse one was promoted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vfsearch.registry.evidence import Evidence, Scorecard
from vfsearch.registry.policy import PromotionPolicy

Rule = Literal[
    "unseen identities",
    "finite figures",
    "same dataset",
    "minimum",
    "improvement",
    "no worse",
    "limits",
]
COMPARISONS: frozenset[Rule] = frozenset({"same dataset", "improvement", "no worse"})


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One rule applied to one quantity."""

    rule: Rule
    about: str
    passed: bool
    measured: float | None = None
    required: float | None = None
    text: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Promote or not. Every rule that was applied is in ``reasons``, passed or not."""

    promote: bool
    reasons: tuple[Reason, ...]

    @property
    def failed(self) -> tuple[Reason, ...]:
        """The rules that say no."""
        return tuple(reason for reason in self.reasons if not reason.passed)

    @property
    def sound(self) -> bool:
        """Whether only the comparison with the champion, if anything, says no."""
        return all(reason.rule in COMPARISONS for reason in self.failed)


def decide(evidence: Evidence, policy: PromotionPolicy) -> Decision:
    """Apply every rule of the policy; no rule is skipped because another one failed."""
    reasons = tuple(_reasons(evidence, policy))
    return Decision(promote=all(reason.passed for reason in reasons), reasons=reasons)


def _reasons(evidence: Evidence, policy: PromotionPolicy) -> Iterator[Reason]:
    candidate = evidence.candidate
    yield _unseen(candidate)
    yield _finite(evidence)
    yield from _minimum(candidate, policy)
    yield from _limits(candidate, policy)
    if evidence.champion is not None:
        yield _same_dataset(evidence, evidence.champion, policy)
        yield from _improvement(evidence, policy)
        yield from _no_worse(candidate, evidence.champion, policy)


def _unseen(candidate: Scorecard) -> Reason:
    if candidate.seen is None:
        passed, text = False, "the checkpoint does not tell which identities it was trained on"
    elif candidate.seen:
        some = ", ".join(candidate.seen[:3]) + (", ..." if len(candidate.seen) > 3 else "")
        passed, text = (
            False,
            f"trained on {len(candidate.seen)} identities of the test split: {some}",
        )
    else:
        passed, text = True, "no identity of the test split was trained on"
    count = None if candidate.seen is None else float(len(candidate.seen))
    return Reason(
        rule="unseen identities",
        about="training split",
        passed=passed,
        measured=count,
        required=0.0,
        text=text,
    )


def _finite(evidence: Evidence) -> Reason:
    cards = {"candidate": evidence.candidate, "champion": evidence.champion}
    bad = [
        f"{name} {metric}"
        for name, card in cards.items()
        for metric, figure in (card.figures.items() if card else ())
        if not all(map(math.isfinite, (figure.value, figure.low, figure.high, figure.chance)))
    ]
    bad += [
        f"difference of {metric}"
        for metric, gap in evidence.differences.items()
        if not all(map(math.isfinite, (gap.value, gap.low, gap.high)))
    ]
    if not evidence.candidate.figures:
        bad.append("the candidate has no figures at all")
    return Reason(
        rule="finite figures",
        about="all metrics",
        passed=not bad,
        text="all figures are finite" if not bad else "not finite: " + ", ".join(bad),
    )


def _minimum(candidate: Scorecard, policy: PromotionPolicy) -> Iterator[Reason]:
    for bar in policy.minimum:
        figure = candidate.figures.get(bar.metric)
        if figure is None:
            yield _missing("minimum", bar.metric, "the test split gives no such metric")
            continue
        if bar.above_chance is not None:
            required = figure.chance + bar.above_chance
            yield _compare(
                "minimum",
                bar.metric,
                figure.low,
                required,
                strict=True,
                what=f"lower bound (estimate {figure.value:.4f}, chance {figure.chance:.4f})",
            )
        if bar.at_least is not None:
            what = f"lower bound (estimate {figure.value:.4f})"
            yield _compare("minimum", bar.metric, figure.low, bar.at_least, strict=False, what=what)


def _limits(candidate: Scorecard, policy: PromotionPolicy) -> Iterator[Reason]:
    sizes = (
        ("evaluation seconds", candidate.seconds, policy.limits.evaluation_seconds),
        ("model megabytes", candidate.bytes / 1e6, policy.limits.model_megabytes),
    )
    for about, measured, limit in sizes:
        passed = measured <= limit
        yield Reason(
            rule="limits",
            about=about,
            passed=passed,
            measured=measured,
            required=limit,
            text=f"{about} {measured:.4g} {'<=' if passed else '>'} {limit:.4g}",
        )


def _same_dataset(evidence: Evidence, champion: Scorecard, policy: PromotionPolicy) -> Reason:
    now = evidence.candidate.dataset
    text = f"candidate, champion and the champion's promotion: {now}"
    passed = True
    if champion.dataset != now:
        passed, text = False, f"candidate on {now}, champion on {champion.dataset}"
    elif policy.same_dataset and evidence.promoted_on not in (None, now):
        passed = False
        text = (
            f"the champion was promoted on {evidence.promoted_on}, this is {now}; "
            "same_dataset: false compares on this one"
        )
    return Reason(rule="same dataset", about="test split", passed=passed, text=text)


def _improvement(evidence: Evidence, policy: PromotionPolicy) -> Iterator[Reason]:
    for metric in policy.improvement.metrics:
        gap = evidence.differences.get(metric)
        if gap is None:
            yield _missing("improvement", metric, "there is no paired comparison of it")
            continue
        what = f"lower bound of the paired difference (estimate {gap.value:+.4f})"
        margin = policy.improvement.margin
        yield _compare("improvement", metric, gap.low, margin, strict=True, what=what)


def _no_worse(
    candidate: Scorecard, champion: Scorecard, policy: PromotionPolicy
) -> Iterator[Reason]:
    for metric in policy.no_worse.metrics:
        before = champion.figures.get(metric)
        if before is None:
            continue
        after = candidate.figures.get(metric)
        if after is None:
            yield _missing("no worse", metric, "the champion has it and the candidate has not")
            continue
        what = f"estimate (champion {before.value:.4f})"
        floor = before.value - policy.no_worse.tolerance
        yield _compare("no worse", metric, after.value, floor, strict=False, what=what)


def _missing(rule: Rule, metric: str, why: str) -> Reason:
    return Reason(rule=rule, about=metric, passed=False, text=f"{metric}: {why}")


def _compare(
    rule: Rule, metric: str, measured: float, required: float, *, strict: bool, what: str
) -> Reason:
    passed = measured > required if strict else measured >= required
    sign = (">" if strict else ">=") if passed else ("<=" if strict else "<")
    return Reason(
        rule=rule,
        about=metric,
        passed=passed,
        measured=measured,
        required=required,
        text=f"{metric}: {what} {measured:.4f} {sign} {required:.4f}",
    )
