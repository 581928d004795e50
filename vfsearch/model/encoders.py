"""Encoders by name: their sizes, where their weights are, and building them."""

from pathlib import Path
from typing import assert_never

from torch import nn

from vfsearch.config import FaceConfig, VoiceConfig
from vfsearch.errors import CheckpointError
from vfsearch.model.discriminant import DISCRIMINANTS, Discriminants
from vfsearch.model.face import FACE_DIM, build_face_encoder
from vfsearch.model.statistics import FaceStatistics, VoiceStatistics
from vfsearch.model.voice import VOICE_DIM, build_voice_encoder
from vfsearch.model.weights import load_pretrained, local_path

FACE_DIMS = {
    "ir50": FACE_DIM,
    "ir_se50": FACE_DIM,
    "small": FACE_DIM,
    "statistics": FaceStatistics.dim,
    "discriminants": DISCRIMINANTS,
}
"""Outputs of each face encoder."""
VOICE_DIMS = {
    "thin_resnet34": VOICE_DIM,
    "small": VOICE_DIM,
    "statistics": VoiceStatistics.dim,
    "discriminants": DISCRIMINANTS,
}
"""Outputs of each voice encoder."""


def build_face(config: FaceConfig) -> nn.Module:
    """A face encoder, with its pretrained weights if any are named.

    Raises:
        CheckpointError: the weights are missing, unsafe or do not fit.
    """
    encoder: nn.Module
    match config.encoder:
        case "ir50" | "ir_se50" | "small":
            encoder = build_face_encoder(config.encoder)
        case "statistics":
            encoder = FaceStatistics()
        case "discriminants":
            encoder = Discriminants(FaceStatistics(), FaceStatistics.dim)
        case _:
            assert_never(config.encoder)
    if config.weights is not None:
        load_pretrained(encoder, config.weights, "face")
    return encoder


def build_voice(config: VoiceConfig) -> nn.Module:
    """A voice encoder, with its pretrained weights if any are named; raises as `build_face`."""
    encoder: nn.Module
    match config.encoder:
        case "thin_resnet34" | "small":
            encoder = build_voice_encoder(config.encoder)
        case "statistics":
            encoder = VoiceStatistics()
        case "discriminants":
            encoder = Discriminants(VoiceStatistics(), VoiceStatistics.dim)
        case _:
            assert_never(config.encoder)
    if config.weights is not None:
        load_pretrained(encoder, config.weights, "voice")
    return encoder


def weights_file(config: FaceConfig | VoiceConfig) -> Path | None:
    """The file that a frozen encoder gets its weights from; None: it has no weights.

    Raises:
        CheckpointError: it is not there, or an encoder that needs one names none.
    """
    if config.encoder == "statistics":
        return None
    if config.weights is None:
        raise CheckpointError(
            f"encoder {config.encoder}: features of it need trained weights; name a safetensors "
            "or weights-only file"
        )
    return local_path(config.weights)
