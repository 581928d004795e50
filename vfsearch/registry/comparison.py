"""Candidate against champion: the same queries, the same resampled identities."""

from vfsearch.evaluation.bootstrap import draw, intervals, replicates
from vfsearch.evaluation.measure import measure, resolve
from vfsearch.registry.assess import Assessment, metric_names
from vfsearch.registry.evidence import Difference, Evidence, Scorecard
from vfsearch.registry.policy import PromotionPolicy


def gather(
    candidate: Assessment,
    champion: Assessment | None,
    policy: PromotionPolicy,
    *,
    promoted_on: str | None,
) -> Evidence:
    """All that the decision needs.

    Args:
        candidate: the candidate on the test split.
        champion: the champion on the same split, if there is one.
        policy: names the metrics to compare; its seed is that of the resampling.
        promoted_on: dataset on which the champion was promoted.
    """
    return Evidence(
        candidate=scorecard(candidate),
        champion=scorecard(champion) if champion else None,
        differences=differences(candidate, champion, policy) if champion else {},
        promoted_on=promoted_on,
    )


def scorecard(assessment: Assessment) -> Scorecard:
    """The part of an assessment that a decision looks at."""
    return Scorecard(
        figures=assessment.figures,
        dataset=assessment.dataset,
        seconds=assessment.seconds,
        bytes=assessment.bytes,
        seen=assessment.seen,
    )


def differences(
    candidate: Assessment, champion: Assessment, policy: PromotionPolicy
) -> dict[str, Difference]:
    """Candidate minus champion with paired identity-bootstrap intervals; nothing on other data."""
    if candidate.dataset != champion.dataset:
        return {}
    wanted = {*policy.improvement.metrics, *policy.no_worse.metrics}
    found: dict[str, Difference] = {}
    for queries, names in zip(candidate.lists, metric_names(candidate.lists), strict=True):
        if not wanted.intersection(names):
            continue
        resolved = resolve(queries, candidate.store.identities)
        # One draw for both models: that is what makes the comparison paired.
        weights = draw(resolved, policy.resamples, policy.seed)
        mine, theirs = (
            measure(resolved, model.embeddings, influence=True) for model in (candidate, champion)
        )
        after, before = replicates(mine, weights), replicates(theirs, weights)
        bounds = intervals({key: after[key] - before[key] for key in after})
        estimate, base = mine.metrics(), theirs.metrics()
        for name, key in zip(names, estimate, strict=True):
            if name in wanted:
                low, high = bounds[key]
                found[name] = Difference(value=estimate[key] - base[key], low=low, high=high)
    return found
