"""Settings of the data and of the model: corpus, encoders, heads."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_serializer, model_validator

from vfsearch.config.base import Count, Location, Positive, Section


class CorpusConfig(Section):
    """Where the voices and faces are (VoxCeleb1 / VGGFace layout)."""

    root: Path
    """Corpus folder; the paths below are relative to it unless absolute. Or ``s3://bucket/prefix``
    of ``vfsearch corpus push``: every node fetches it once."""
    audio: Path = Path("wav")
    """Audio root: ``<VoxCeleb1_ID>/<video>/<n>.wav``, 16 kHz."""
    images: Path = Path("faces")
    """Image root: ``<VGGFace1_ID>/<n>.jpg``."""
    train_csv: Path = Path("vox1_train.csv")
    """Identities of the training split (released CSV format)."""
    val_csv: Path = Path("vox1_val.csv")
    """Identities of the validation split."""
    test_csv: Path = Path("vox1_test.csv")
    """Identities of the test split."""
    store: Path | None = None
    """Folder of the decoded, memory-mapped store; default: ``store`` under the vfsearch home."""
    face_size: Annotated[int, Field(ge=32, le=512)] = 112
    """Side of the stored faces, pixels."""
    cache_gib: Positive = 500
    """What corpora from S3 and their stores may take on a node, GiB; the longest unused go."""
    features: Path | None = None
    """Folder of ``vfsearch corpus features``: train on what the frozen encoders made of every file,
    encoded once; null: encode in every step."""

    @property
    def remote(self) -> str | None:
        """The root's address if it is on S3."""
        parts = self.root.parts  # none for "."; a path swallows one of the two slashes
        return f"s3://{'/'.join(parts[1:])}" if parts[:1] == ("s3:",) else None

    @field_serializer("root", when_used="json")
    def _root(self, root: Path) -> str:
        return self.remote or str(root)


class _EncoderConfig(Section):
    """What the encoders of both modalities share."""

    encoder: str
    weights: Location | None = None
    """Pretrained weights: path or URI of a safetensors or weights-only file."""
    frozen: bool = False
    """Keep the encoder's weights fixed."""

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Self:
        if self.encoder == "statistics" and not (self.frozen and self.weights is None):
            raise ValueError("encoder statistics has no weights: weights must be null, frozen true")
        return self


class FaceConfig(_EncoderConfig):
    """Face encoder."""

    encoder: Literal["ir50", "ir_se50", "small", "statistics", "discriminants"] = "ir50"
    """``ir50`` and ``ir_se50`` are the paper's; ``small`` is the same kind for CPU runs;
    ``statistics`` (colours and edges) has nothing to train and suits synthetic faces,
    ``discriminants`` are what of it tells identities apart (``vfsearch corpus discriminants``)."""


class VoiceConfig(_EncoderConfig):
    """Voice encoder."""

    encoder: Literal["thin_resnet34", "small", "statistics", "discriminants"] = "thin_resnet34"
    """``thin_resnet34`` is the paper's; ``small`` is the same kind for CPU runs; ``statistics``
    (spectrum, pitch, rhythm) has nothing to train and suits synthetic voices,
    ``discriminants`` are what of it tells identities apart (``vfsearch corpus discriminants``)."""


class ModelConfig(Section):
    """Two encoders, two heads."""

    face: FaceConfig = FaceConfig()
    voice: VoiceConfig = VoiceConfig()
    embedding_dim: Count = 128
    """Size of the shared embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout after the head's linear layer."""
    head_hidden: Count | None = None
    """Width of a linear layer before each head's ReLU, for encoders whose outputs were not made
    for it; null: the paper's head."""
    sync_batch_norm: bool = False
    """Share BatchNorm statistics between ranks (GPUs only)."""
