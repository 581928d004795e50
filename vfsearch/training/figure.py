"""One figure of a run: loss terms, bound, admissions, weight norms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Panel = tuple[str, str, tuple[tuple[str, str], ...]]

PANELS: tuple[Panel, ...] = (
    (
        "Loss terms",
        "nats",
        (
            ("train/loss", "total"),
            ("train/implicit", "implicit"),
            ("train/explicit", "explicit (Eq. 5)"),
        ),
    ),
    (
        "Implicit loss and its lower bound",
        "nats",
        (("bound/implicit", "measured"), ("bound/implicit_lower", "Corollary 1")),
    ),
    ("Admission", "identities", (("reweighting/admitted", "admitted"),)),
    (
        "Classifier row norms",
        "‖ω_k‖",
        (("bound/max_weight_norm", "max"), ("bound/mean_weight_norm", "mean")),
    ),
    (
        "Gradient mass per anchor",
        "share",
        (
            ("train/positive_mass", "positive"),
            ("train/negative_mass", "negatives"),
            ("train/hardest_negative_mass", "hardest negative"),
        ),
    ),
    (
        "Validation, 1:2 matching",
        "accuracy",
        (("val/match_v2f_1to2", "voice → face"), ("val/match_f2v_1to2", "face → voice")),
    ),
)
# Colours that stay apart for colour-blind readers, and a second cue by dashes.
STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", ":"))


def draw_run(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the epochs of a run (``Outcome.history``) into a PNG; metrics that lack are left out.

    Raises:
        ValueError: no epoch.
    """
    if not history:
        raise ValueError("a figure needs at least one epoch")
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        _draw_panel(axes, panel, history)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.replace(path)


def _draw_panel(axes: Axes, panel: Panel, history: Sequence[Mapping[str, float]]) -> None:
    title, unit, lines = panel
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(unit)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = 0
    for (key, label), (colour, dashes) in zip(lines, STYLES, strict=False):
        points = [(epoch, row[key]) for epoch, row in enumerate(history, 1) if key in row]
        if points:
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), dashes, color=colour, label=label, marker=marker)
            drawn += 1
    if title == "Validation, 1:2 matching":
        axes.axhline(0.5, color="0.5", linewidth=0.8)
        axes.annotate("chance", (0.01, 0.5), xycoords=("axes fraction", "data"), fontsize=8)
    if drawn > 1:
        axes.legend(fontsize=9)
