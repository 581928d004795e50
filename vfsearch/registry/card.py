"""The model card: what a version can do, measured on what, for whom, and where it ends."""

from collections.abc import Mapping
from dataclasses import dataclass

from vfsearch.config import RunConfig
from vfsearch.registry.decision import Decision
from vfsearch.registry.evidence import Figure


@dataclass(frozen=True, kw_only=True)
class CardData:
    """What the card tells."""

    name: str
    run_id: str
    origin: str
    """Sweep and trial, or how else the run came to be."""
    config: RunConfig
    split: str
    identities: int
    voices: int
    faces: int
    dataset: str
    confidence: float
    figures: Mapping[str, Figure]
    others: Mapping[str, float]
    """Metrics of which less is better: EER, median rank."""
    synthetic: bool
    """Whether the corpus is the synthetic one, with a known ceiling."""
    weights_sha256: str
    megabytes: float
    seconds: float
    notes: tuple[str, ...] = ()


def model_card(data: CardData, decision: Decision) -> str:
    """Markdown; the registry shows the first part of it only, so the reasons come last."""
    model = data.config.model
    parts = [
        f"# {data.name}: voices and faces of one person, in one space",
        f"Run `{data.run_id}` ({data.origin}). Face encoder `{model.face.encoder}`, voice encoder "
        f"`{model.voice.encoder}`, {model.embedding_dim} dimensions, {data.megabytes:.1f} MB, "
        f"weights SHA-256 `{data.weights_sha256[:16]}…`.",
        f"## Measured on the {data.split} split",
        f"{data.identities} identities that were not trained on, {data.voices} voices, "
        f"{data.faces} faces (dataset `{data.dataset}`). In brackets the "
        f"{data.confidence:.0%} interval, identities resampled. `v2f`: a voice is the probe; "
        "`_G`, `_N`, `_GN`: negatives of the same gender, nationality, both. Oracles know only "
        "the CSV." + _ceiling(data),
        figures_table(data.figures),
    ]
    if data.others:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(data.others.items()))
        parts.append(f"Less is better: {shown}.")
    parts += [f"- {note}" for note in data.notes]
    parts += [
        "## Intended use",
        "Research on what voices and faces tell about one another: ranking candidate faces for a "
        "voice and the reverse, and measuring such models. `task: embed` gives unit embeddings, "
        "`task: score` cosine similarities; 16 kHz speech of which the first "
        f"{data.config.evaluation.audio_seconds:g} s are heard, and one cropped face per picture.",
        "## Limits",
        "A score is no evidence of identity: much of what is measured is gender and nationality "
        "(compare the oracles and the `_GN` rows). Not for identifying, profiling or "
        "authenticating people. Not measured: other recording conditions, languages, ages, "
        "children, disguise.",
        "## Data",
        _data(data),
        "## Why it stands here",
        "\n".join(
            f"- {'passed' if reason.passed else 'FAILED'}, {reason.rule}: {reason.text}"
            for reason in decision.reasons
        ),
    ]
    return "\n\n".join(parts) + "\n"


def figures_table(figures: Mapping[str, Figure]) -> str:
    """All figures with interval, chance, oracles and the share of the Bayes ceiling."""
    bayes = any(figure.bayes is not None for figure in figures.values())
    oracles = list(dict.fromkeys(name for figure in figures.values() for name in figure.oracles))
    head = ["metric", "model", "chance", *oracles]
    if bayes:
        head += ["Bayes", "of Bayes"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, figure in figures.items():
        cells = [
            f"`{name}`",
            f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]",
            f"{figure.chance:.3f}",
            *(
                f"{figure.oracles[oracle]:.3f}" if oracle in figure.oracles else "–"
                for oracle in oracles
            ),
        ]
        if bayes:
            share = of_bayes(figure)
            cells.append("–" if figure.bayes is None else f"{figure.bayes:.3f}")
            cells.append("–" if share is None else f"{share:.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_bayes(figure: Figure) -> float | None:
    """(metric - chance) / (Bayes - chance); ``None`` without a ceiling above chance."""
    if figure.bayes is None or figure.bayes <= figure.chance:
        return None
    return (figure.value - figure.chance) / (figure.bayes - figure.chance)


def _ceiling(data: CardData) -> str:
    if not data.synthetic:
        return ""
    return " Bayes: the best that any model could reach on this synthetic corpus."


def _data(data: CardData) -> str:
    corpus = data.config.corpus
    made = (
        "The corpus is synthetic: rendered faces and synthesised voices of nobody; figures on it "
        "say nothing about people."
        if data.synthetic
        else "Real voices and faces in VoxCeleb1/VGGFace layout."
    )
    return (
        f"{made} Identities are split by person: `{corpus.train_csv.name}` to train, "
        f"`{corpus.val_csv.name}` to select, `{corpus.test_csv.name}` to test, once. Evaluating "
        f"took {data.seconds:.0f} s."
    )
