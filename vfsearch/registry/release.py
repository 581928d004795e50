"""What a promotion writes: the decision, the packaged model, the version with its tags."""

import json
import re
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import vfsearch
from vfsearch.evaluation.bootstrap import LEVEL
from vfsearch.registry.assess import Assessment
from vfsearch.registry.card import CardData, model_card
from vfsearch.registry.decision import Decision
from vfsearch.registry.evidence import Evidence, Figure
from vfsearch.registry.package import PACKAGED, package_model
from vfsearch.registry.policy import PromotionPolicy
from vfsearch.registry.resolve import ResolvedModel
from vfsearch.registry.versions import CHECKPOINT, OUTCOME, WEIGHTS, Registry
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.runs import mlflow_errors

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class Release:
    """A decided candidate and where it is to be written."""

    registry: Registry
    run: "Run"
    candidate: ResolvedModel
    assessment: Assessment
    evidence: Evidence
    decision: Decision
    outcome: str
    policy: PromotionPolicy
    champion: str | None
    by: str
    at: str

    @cached_property
    def folder(self) -> str:
        """Folder of this attempt below the run's artifacts; no two attempts share one."""
        return f"promotion/{re.sub('[^0-9T]', '', self.at[:19])}-{uuid4().hex[:8]}"

    @property
    def store(self) -> ArtifactStore:
        """The run's artifacts."""
        return self.registry.connection.store(str(self.run.info.artifact_uri))


def decision_document(release: Release) -> dict[str, Any]:
    """Every number and reason, as plain values."""
    return {
        "format": 1,
        "outcome": release.outcome,
        "by": release.by,
        "at": release.at,
        "vfsearch": vfsearch.__version__,
        "model": release.registry.name,
        "candidate": {
            "run_id": release.candidate.run_id,
            "checkpoint": release.candidate.uri,
            "weights_sha256": release.candidate.weights_sha256,
            "less_is_better": dict(release.assessment.others),
            "notes": list(release.assessment.notes),
        },
        "champion_version": release.champion,
        "evidence": asdict(release.evidence),
        "policy": release.policy.model_dump(mode="json"),
        "decision": asdict(release.decision),
    }


def keep_decision(release: Release) -> str:
    """Write the decision below the run's artifacts and its figures into the run; returns its URI.

    Raises:
        TrackingError: a server cannot be reached or refuses.
    """
    key = f"{release.folder}/decision.json"
    text = json.dumps(decision_document(release), indent=1, allow_nan=False)
    release.store.put(text.encode(), key)
    from mlflow.entities import Metric

    moment = int(datetime.fromisoformat(release.at).timestamp() * 1000)
    figures = {f"test/{name}": figure.value for name, figure in release.assessment.figures.items()}
    figures |= {f"test/{name}": value for name, value in release.assessment.others.items()}
    connection = release.registry.connection
    with mlflow_errors(connection, f"run {release.run.info.run_id}"):
        release.registry.client.log_batch(
            release.run.info.run_id,
            metrics=[Metric(name, value, moment, 0) for name, value in figures.items()],
        )
    return f"{release.store.root}/{key}"


def register_version(release: Release, decision_uri: str) -> str:
    """Package and upload the model and register it; weights already registered keep their number.

    Raises:
        TrackingError: a server cannot be reached or refuses.
    """
    card = model_card(_card_data(release), release.decision)
    registry = release.registry
    tags = version_tags(release, decision_uri)
    known = registry.by_weights(release.candidate.weights_sha256)
    if known is not None:  # it names the checkpoint in its own package already
        registry.tag(str(known.version), tags)
        registry.describe(str(known.version), card)
        return str(known.version)
    source = f"{release.store.root}/{release.folder}/model"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        package_model(release.candidate.folder, folder, card)
        release.store.upload_folder(folder, f"{release.folder}/model")
    return registry.register(
        source=source,
        run_id=str(release.run.info.run_id),
        description=card,
        tags=tags | {CHECKPOINT: f"{source}/{PACKAGED}"},
    )


def version_tags(release: Release, decision_uri: str) -> dict[str, str]:
    """Every number and reason as tags, so that the registry's page shows them."""
    tags = {
        WEIGHTS: release.candidate.weights_sha256,
        OUTCOME: release.outcome,
        "vfsearch.decision": decision_uri,
        "vfsearch.dataset": release.assessment.dataset,
        "vfsearch.promoted_by": release.by,
        "vfsearch.decided_at": release.at,
    }
    for name, figure in release.assessment.figures.items():
        tags[f"test/{name}"] = _shown(figure)
    for name, value in release.assessment.others.items():
        tags[f"test/{name}"] = f"{value:.4f}"
    for name, gap in release.evidence.differences.items():
        tags[f"difference/{name}"] = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    for number, reason in enumerate(release.decision.reasons, start=1):
        verdict = "passed" if reason.passed else "FAILED"
        tags[f"reason/{number:02d}"] = f"{verdict}, {reason.rule}: {reason.text}"
    return tags


def _shown(figure: Figure) -> str:
    bayes = "" if figure.bayes is None else f", Bayes {figure.bayes:.4f}"
    return (
        f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}], "
        f"chance {figure.chance:.4f}{bayes}"
    )


def _card_data(release: Release) -> CardData:
    tags = release.run.data.tags
    sweep, trial = tags.get("vfsearch.sweep"), tags.get("vfsearch.trial")
    assessment = release.assessment
    return CardData(
        name=release.registry.name,
        run_id=str(release.run.info.run_id),
        origin=f"sweep {sweep}, trial {trial}" if sweep else "a single training run",
        config=assessment.config,
        split=assessment.split,
        identities=assessment.identities,
        voices=assessment.voices,
        faces=assessment.faces,
        dataset=assessment.dataset,
        confidence=LEVEL,
        figures=assessment.figures,
        others=assessment.others,
        synthetic=assessment.synthetic,
        weights_sha256=release.candidate.weights_sha256,
        megabytes=assessment.bytes / 1e6,
        seconds=assessment.seconds,
        notes=assessment.notes,
    )
