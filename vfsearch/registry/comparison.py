"""Candidate against champion: the same queries, the same resampled identities."""

from collections.abc import Iterator, Mapping

from vfsearch.errors import UsageError
from vfsearch.evaluation.significance import compare_lists
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


def same_split(hashes: Mapping[str, str]) -> None:
    """See that models are about to be compared on the same data.

    Args:
        hashes: hash of the split (identities and files) by model.

    Raises:
        UsageError: they differ; a model without ``--corpus`` brings its own.
    """
    if len(set(hashes.values())) > 1:
        told = ", ".join(f"{name} on {found[:12]}" for name, found in hashes.items())
        raise UsageError(
            f"models can only be compared on the same split, but these differ in identities or "
            f"files: {told}; name one corpus for all by --corpus"
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
    named = {
        queries.name: (queries, names)
        for queries, names in zip(candidate.lists, metric_names(candidate.lists), strict=True)
        if wanted.intersection(names)
    }
    compared = compare_lists(
        {"champion": champion.embeddings, "candidate": candidate.embeddings},
        [queries for queries, _ in named.values()],
        candidate.store.identities,
        bootstrap=policy.resamples,
        seed=policy.seed,
    )
    keys: dict[str, Iterator[str]] = {name: iter(names) for name, (_, names) in named.items()}
    found: dict[str, Difference] = {}
    for one in compared:
        metric = next(keys[one.name])
        if metric in wanted:
            low, high = one.interval
            found[metric] = Difference(
                value=one.difference, low=low, high=high, p_value=one.p_value
            )
    return found
