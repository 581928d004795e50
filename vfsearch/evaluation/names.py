"""Names of metrics in tracked runs, like ``val/match_v2f_1to2_G``; imports nothing that is slow."""

from typing import Literal

from vfsearch.config import EvaluationConfig

VERIFICATION = ("auc", "eer")
RETRIEVAL = ("map", "r_at_1", "r_at_5", "r_at_10", "median_rank")
"""In the order of the results; tracked runs allow no @."""


INTERVAL = ("interval/low", "interval/high")
"""95 % interval of ``evaluation.select`` over identities, beside the metrics of an epoch."""


def match_key(prefix: str, direction: str, gallery: int, stratum: str) -> str:
    """Name of 1:N accuracy."""
    return f"{prefix}/match_{direction}_1to{gallery}{_suffix(stratum)}"


def list_keys(
    kind: Literal["verify", "retrieval"], prefix: str, direction: str, stratum: str
) -> list[str]:
    """Names of the metrics of a verification or retrieval list, in the order of its results."""
    names = VERIFICATION if kind == "verify" else RETRIEVAL
    return [f"{prefix}/{name}_{direction}{_suffix(stratum)}" for name in names]


def validation_keys(config: EvaluationConfig) -> list[str]:
    """Every metric that an evaluation can give; a small split may lack some of the lists."""
    found = []
    for direction in ("v2f", "f2v"):
        for stratum in config.strata:
            found += [match_key("val", direction, size, stratum) for size in config.galleries]
            found += list_keys("verify", "val", direction, stratum)
        found += list_keys("retrieval", "val", direction, "U")
    return found


def _suffix(stratum: str) -> str:
    return "" if stratum == "U" else f"_{stratum}"
