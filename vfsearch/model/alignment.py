"""The alignment model: two encoders, two heads, one classifier shared by both modalities."""

import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor, nn

from vfsearch.config import ModelConfig
from vfsearch.model.face import FACE_DIM, build_face_encoder
from vfsearch.model.voice import VOICE_DIM, build_voice_encoder
from vfsearch.model.weights import load_pretrained


def build_head(inputs: int, dim: int, dropout: float) -> nn.Sequential:
    """BatchNorm - ReLU - Linear (no bias) - Dropout (METHOD.md, Encoders)."""
    return nn.Sequential(
        nn.BatchNorm1d(inputs), nn.ReLU(), nn.Linear(inputs, dim, bias=False), nn.Dropout(dropout)
    )


class AlignmentModel(nn.Module):
    """Faces and voices into one space of ``d`` dimensions.

    ``classifier.weight`` is omega (M x d): bias-free, unnormalised, shared by both modalities.
    """

    def __init__(
        self,
        *,
        face: nn.Module,
        voice: nn.Module,
        dim: int,
        dropout: float,
        identities: int,
        face_frozen: bool = False,
        voice_frozen: bool = False,
    ) -> None:
        super().__init__()
        self.face = face
        self.voice = voice
        self.face_head = build_head(FACE_DIM, dim, dropout)
        self.voice_head = build_head(VOICE_DIM, dim, dropout)
        self.classifier = nn.Linear(dim, identities, bias=False)
        self.frozen = tuple(
            encoder for encoder, held in ((face, face_frozen), (voice, voice_frozen)) if held
        )
        for encoder in self.frozen:
            encoder.requires_grad_(False)

    @property
    def identities(self) -> int:
        """M, the rows of the classifier."""
        return self.classifier.out_features

    def train(self, mode: bool = True) -> "AlignmentModel":
        """Frozen encoders stay in evaluation mode: their BatchNorm statistics are fixed too."""
        super().train(mode)
        for encoder in self.frozen:
            encoder.eval()
        return self

    def embed_faces(self, faces: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch dim"]:
        """x: unnormalised embeddings of RGB faces (bytes)."""
        out: Tensor = self.face_head(self._encode(self.face, faces))
        return out.float()

    def embed_voices(self, voices: Int16[Tensor, "batch samples"]) -> Float[Tensor, "batch dim"]:
        """v: unnormalised embeddings of 16 kHz windows (int16)."""
        out: Tensor = self.voice_head(self._encode(self.voice, voices))
        return out.float()

    def forward(
        self,
        faces: UInt8[Tensor, "batch side side 3"],
        voices: Int16[Tensor, "batch samples"],
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """(x, v) of a batch of pairs, float32."""
        return self.embed_faces(faces), self.embed_voices(voices)

    def _encode(self, encoder: nn.Module, inputs: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and encoder not in self.frozen):
            encoded: Tensor = encoder(inputs)
        return encoded


def build_model(config: ModelConfig, identities: int) -> AlignmentModel:
    """Model with fresh (global torch seed) or pretrained encoders.

    Args:
        config: encoders, embedding size, dropout.
        identities: M, rows of the shared classifier.

    Raises:
        CheckpointError: pretrained weights are missing, unsafe or do not fit.
    """
    face = build_face_encoder(config.face.encoder)
    voice = build_voice_encoder(config.voice.encoder)
    if config.face.weights is not None:
        load_pretrained(face, config.face.weights, "face")
    if config.voice.weights is not None:
        load_pretrained(voice, config.voice.weights, "voice")
    return AlignmentModel(
        face=face,
        voice=voice,
        dim=config.embedding_dim,
        dropout=config.dropout,
        identities=identities,
        face_frozen=config.face.frozen,
        voice_frozen=config.voice.frozen,
    )
