"""The alignment model: two encoders, two heads, one classifier shared by both modalities."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vfsearch.config import ModelConfig
from vfsearch.model.encoders import FACE_DIMS, VOICE_DIMS, build_face, build_voice


def build_head(inputs: int, dim: int, dropout: float, hidden: int | None = None) -> nn.Sequential:
    """BatchNorm - ReLU - Linear (no bias) - Dropout (METHOD.md, Encoders).

    With ``hidden``, BatchNorm - Linear (no bias) to so many dimensions stand before it.
    """
    before: list[nn.Module] = []
    if hidden is not None:
        before = [nn.BatchNorm1d(inputs), nn.Linear(inputs, hidden, bias=False)]
        inputs = hidden
    return nn.Sequential(
        *before,
        nn.BatchNorm1d(inputs),
        nn.ReLU(),
        nn.Linear(inputs, dim, bias=False),
        Dropout(dropout),
    )


class Dropout(nn.Dropout):
    """Dropout from uniform numbers: on CPUs a third of the time of Bernoulli draws."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero each number with probability ``p`` while training, and scale up the others."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, device=x.device) < 1 - self.p
        return x * (kept / (1 - self.p)).to(x.dtype)


class AlignmentModel(nn.Module):
    """Faces and voices into one space of ``d`` dimensions.

    ``classifier.weight`` is omega (M x d): bias-free, unnormalised, shared by both modalities.
    """

    def __init__(
        self,
        *,
        face: nn.Module,
        voice: nn.Module,
        face_head: nn.Module,
        voice_head: nn.Module,
        classifier: nn.Linear,
        face_frozen: bool = False,
        voice_frozen: bool = False,
    ) -> None:
        super().__init__()
        self.face = face
        self.voice = voice
        self.face_head = face_head
        self.voice_head = voice_head
        self.classifier = classifier
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

    def embed_faces(self, faces: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """x: unnormalised embeddings of RGB faces (uint8 [batch, side, side, 3]) or features."""
        out: Tensor = self.face_head(self._encode(self.face, faces))
        return out.float()

    def embed_voices(self, voices: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """v: unnormalised embeddings of 16 kHz windows (int16 [batch, samples]) or features."""
        out: Tensor = self.voice_head(self._encode(self.voice, voices))
        return out.float()

    def forward(
        self,
        faces: Shaped[Tensor, "batch ..."],
        voices: Shaped[Tensor, "batch ..."],
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """(x, v) of a batch of pairs, float32."""
        return self.embed_faces(faces), self.embed_voices(voices)

    def _encode(self, encoder: nn.Module, inputs: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and encoder not in self.frozen):
            encoded: Tensor = encoder(inputs)
        return encoded


def build_model(
    config: ModelConfig, identities: int, *, on_features: bool = False
) -> AlignmentModel:
    """Model with fresh (global torch seed) or pretrained encoders.

    Args:
        config: encoders, embedding size, dropout.
        identities: M, rows of the shared classifier.
        on_features: leave out the encoders; faces and voices are then what they have made.

    Raises:
        CheckpointError: pretrained weights are missing, unsafe or do not fit.
    """
    dim, dropout, hidden = config.embedding_dim, config.dropout, config.head_hidden
    # Before the encoders, so that heads start alike with and without them.
    face_head = build_head(FACE_DIMS[config.face.encoder], dim, dropout, hidden)
    voice_head = build_head(VOICE_DIMS[config.voice.encoder], dim, dropout, hidden)
    classifier = nn.Linear(dim, identities, bias=False)
    return AlignmentModel(
        face=nn.Identity() if on_features else build_face(config.face),
        voice=nn.Identity() if on_features else build_voice(config.voice),
        face_head=face_head,
        voice_head=voice_head,
        classifier=classifier,
        face_frozen=config.face.frozen,
        voice_frozen=config.voice.frozen,
    )
