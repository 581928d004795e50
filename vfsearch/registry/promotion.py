"""Promotion: evaluate candidate and champion alike, decide, register, move the alias.

Outcomes: ``promoted``, the candidate is champion; ``challenger``, it clears every bar but is not
shown to be better than the champion, and is registered with the alias ``challenger``; ``refused``,
it fails a bar of its own and is not registered; ``unchanged``, it is the champion already.
"""

import getpass
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from vfsearch.config import CorpusConfig
from vfsearch.errors import PromotionRefused
from vfsearch.registry.assess import Assessment, assess
from vfsearch.registry.comparison import gather
from vfsearch.registry.decision import Decision, decide
from vfsearch.registry.evidence import Evidence
from vfsearch.registry.history import Record, champion
from vfsearch.registry.policy import PromotionPolicy
from vfsearch.registry.release import Release, keep_decision, register_version
from vfsearch.registry.resolve import ResolvedModel, get_run, resolve_run, resolve_version
from vfsearch.registry.versions import (
    MODEL,
    OUTCOME,
    Registry,
    find_registry,
    open_registry,
)
from vfsearch.registry.whole import whole
from vfsearch.tracking.connection import Connection

Outcome = Literal["promoted", "challenger", "refused", "unchanged"]
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What a promotion came to; after a dry run, what it would have come to."""

    outcome: Outcome
    dry_run: bool
    name: str
    run_id: str
    version: str | None
    """Version of the candidate, if it is registered."""
    champion_before: str | None
    """Version that was champion before."""
    decision: Decision | None = None
    """``None`` if nothing had to be decided."""
    evidence: Evidence | None = None
    candidate: Assessment | None = None
    champion: Assessment | None = None
    decision_uri: str | None = None


def promote(
    connection: Connection,
    candidate_run_id: str,
    corpus: CorpusConfig,
    policy: PromotionPolicy,
    *,
    dry_run: bool = False,
    model_name: str = MODEL,
    by: str | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Promotion:
    """Decide whether a run's best checkpoint becomes the champion, and make it so.

    Candidate and champion are fetched from S3 and evaluated by the same code on the same queries
    of the test split of ``corpus``. A first champion has to clear the minimum only.

    Args:
        connection: tracking server and bucket.
        candidate_run_id: run whose best checkpoint is the candidate.
        corpus: whose test split decides.
        policy: the rules.
        dry_run: evaluate and decide, but write nothing anywhere.
        model_name: registered model.
        by: who promotes; default: the user's name on this machine.
        progress: is told in words what goes on.
        device: where to embed; default: a GPU if there is one.

    Raises:
        PromotionRefused: another promotion won in the meantime (a refusal by the policy is an
            outcome, not an error).
        UsageError, CheckpointError, CorpusError, TrackingError: candidate, corpus or servers.
    """
    tell = progress or (lambda _: None)
    by = by or user()
    if dry_run:
        registry = find_registry(connection, model_name)
        records = registry.records() if registry else ()
    else:
        registry = open_registry(connection, model_name, create=True)
        records = registry.settle()
    tell(f"fetching run {candidate_run_id}")
    candidate = whole(resolve_run(candidate_run_id, connection))
    incumbent = champion(records)
    holder = _holder(registry, incumbent, connection) if registry and incumbent else None
    promotion = Promotion(
        outcome="unchanged",
        dry_run=dry_run,
        name=model_name,
        run_id=candidate_run_id,
        version=incumbent.version if incumbent else None,
        champion_before=incumbent.version if incumbent else None,
    )
    if holder is not None and holder.weights_sha256 == candidate.weights_sha256:
        return promotion
    tell("evaluating the candidate on the test split")
    mine = _assess(candidate, corpus, policy, device)
    theirs = None
    if holder is not None:
        tell(f"evaluating the champion, version {holder.version}, on the same queries")
        theirs = _assess(holder, corpus, policy, device)
    evidence = gather(mine, theirs, policy, promoted_on=incumbent.dataset if incumbent else None)
    decision = decide(evidence, policy)
    outcome: Outcome = (
        "promoted" if decision.promote else "challenger" if decision.sound else "refused"
    )
    promotion = replace(
        promotion,
        outcome=outcome,
        version=None,
        decision=decision,
        evidence=evidence,
        candidate=mine,
        champion=theirs,
    )
    if dry_run or registry is None:
        return promotion
    release = Release(
        registry=registry,
        run=get_run(connection, candidate_run_id),
        candidate=candidate,
        assessment=mine,
        evidence=evidence,
        decision=decision,
        outcome=outcome,
        policy=policy,
        champion=incumbent.version if incumbent else None,
        by=by,
        at=now(),
    )
    return _carry_out(promotion, release, records, tell)


def _assess(
    model: ResolvedModel, corpus: CorpusConfig, policy: PromotionPolicy, device: str | None
) -> Assessment:
    return assess(
        model.folder,
        corpus,
        "test",
        bootstrap=policy.resamples,
        seed=policy.seed,
        galleries=policy.galleries,
        instances=policy.instances,
        device=device,
    )


def _carry_out(
    promotion: Promotion, release: Release, records: tuple[Record, ...], tell: Progress
) -> Promotion:
    registry = release.registry
    uri = keep_decision(release)
    promotion = replace(promotion, decision_uri=uri)
    if promotion.outcome == "refused":
        tell("refused by the policy")
        return promotion
    tell("registering the version")
    version = register_version(release, uri)
    promotion = replace(promotion, version=version)
    if promotion.outcome == "challenger":
        registry.challenge(version)
        tell(f"version {version} is the challenger")
        return promotion
    record = Record(
        serial=len(records) + 1,
        event="promoted",
        version=version,
        previous=promotion.champion_before,
        run_id=promotion.run_id,
        dataset=release.assessment.dataset,
        by=release.by,
        at=release.at,
        why=_why(release),
        decision=uri,
    )
    tell("moving the alias")
    try:
        registry.chain.append(record)
    except PromotionRefused as refusal:
        registry.tag(version, {OUTCOME: f"lost: {refusal}"})
        raise
    registry.settle()
    tell(f"version {version} is the champion")
    return promotion


def _holder(registry: Registry, incumbent: Record, connection: Connection) -> ResolvedModel:
    version = registry.version(incumbent.version)
    assert version is not None  # settle() and records() have looked it up
    return resolve_version(version, connection)


def _why(release: Release) -> str:
    gaps = release.evidence.differences
    if release.evidence.champion is None:
        return "first champion: clears the minimum of the policy"
    if not release.policy.improvement.metrics:
        return "clears every bar of the policy, which asks for no improvement"
    return "; ".join(
        f"{metric} {gaps[metric].value:+.4f} [{gaps[metric].low:+.4f}, {gaps[metric].high:+.4f}]"
        for metric in release.policy.improvement.metrics
    )


def user() -> str:
    """The user's name on this machine, as far as it has one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
