"""Every setting of a training run: typed, validated, one place per default.

A run is described by one YAML file (see ``configs/``); ``load_run`` reads it, applies ``--set``
overrides and reports every problem of the file at once, each with its line, key and value.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from vfsearch.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]


def home() -> Path:
    """Folder of everything this machine keeps: ``$VFSEARCH_HOME``, else ``./.vfsearch``."""
    return Path(os.environ.get("VFSEARCH_HOME", ".vfsearch")).absolute()


def _without_password(text: str) -> str:
    """Refuse what would end in logs, artifacts and process lists."""
    if urlsplit(text).password is not None:
        raise ValueError(
            "must hold no password: MLflow reads MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD or ~/.mlflow/credentials, S3 clients the usual AWS files"
        )
    return text


Location = Annotated[str, AfterValidator(_without_password)]
"""A path or URL."""


class Section(BaseModel):
    """Base of every settings section: frozen, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


def _check_statistics(encoder: str, weights: str | None, frozen: bool) -> None:
    if encoder == "statistics" and not (frozen and weights is None):
        raise ValueError("encoder statistics has no weights: weights must be null, frozen true")


class FaceConfig(Section):
    """Face encoder."""

    encoder: Literal["ir50", "ir_se50", "small", "statistics", "discriminants"] = "ir50"
    """``ir50`` and ``ir_se50`` are the paper's; ``small`` is the same kind for CPU runs;
    ``statistics`` (colours and edges) has nothing to train and suits synthetic faces,
    ``discriminants`` are what of it tells identities apart (``vfsearch corpus discriminants``)."""
    weights: Location | None = None
    """Pretrained weights: path or URI of a safetensors or weights-only file."""
    frozen: bool = False
    """Keep the encoder's weights fixed."""

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Self:
        _check_statistics(self.encoder, self.weights, self.frozen)
        return self


class VoiceConfig(Section):
    """Voice encoder."""

    encoder: Literal["thin_resnet34", "small", "statistics", "discriminants"] = "thin_resnet34"
    """``thin_resnet34`` is the paper's; ``small`` is the same kind for CPU runs; ``statistics``
    (spectrum, pitch, rhythm) has nothing to train and suits synthetic voices,
    ``discriminants`` are what of it tells identities apart (``vfsearch corpus discriminants``)."""
    weights: Location | None = None
    """Pretrained weights: path or URI of a safetensors or weights-only file."""
    frozen: bool = False
    """Keep the encoder's weights fixed."""

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Self:
        _check_statistics(self.encoder, self.weights, self.frozen)
        return self


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


class LossConfig(Section):
    """Implicit and explicit alignment."""

    implicit: NonNegative = 1.0
    """Factor of CE_face + CE_voice; 0 switches implicit alignment off."""
    explicit: NonNegative = 0.5
    """Factor of the two directions of Eq. 5; 0 switches explicit alignment off."""
    margin: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 5.4
    """m of Eq. 5; 1 is N-pair softmax cross-entropy. Comparable at one global batch only."""
    weight_ce: Literal["per_sample", "batch_mean"] = "per_sample"
    """Weighted cross-entropy as in the supplement, or mean CE x mean weight as released."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.implicit == 0 and self.explicit == 0:
            raise ValueError("implicit and explicit are both 0: at least one must be positive")
        return self


class ClassifierConfig(Section):
    """The shared classifier."""

    norm_bound: Positive | None = None
    """C: after each step every row is projected onto the ball of this radius; null: no bound."""


class ReweightingConfig(Section):
    """Adaptive identity re-weighting."""

    schedule: Literal["none", "rank", "soft"] = "soft"
    """``rank`` is the authors' hard admission, ``soft`` admits with a temperature."""
    temperature: Positive = 1.0
    """tau of the soft admission, in units of the identity loss (nats)."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the loss average per identity, per visit."""
    start_loss: Positive | None = None
    """First value of the average; null: 2 ln M (the paper's 14.0 at M = 924)."""
    every: Count = 100
    """Steps between two admissions; the first is at the end of the warm-up."""
    admit_from: Fraction = 0.5
    """Share of identities admitted first."""
    admit_step: Fraction = 0.024
    """Share added at each admission."""
    admit_to: Fraction = 0.9
    """Share admitted at last; the rest are the personalised identities."""
    age_factor: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Factor on the weights of admitted identities at each admission."""
    scale: Literal["mean_one", "unit"] = "mean_one"
    """``mean_one``: s_hat = s M / sum(s), as released; ``unit``: s_hat in (0, 1), as printed."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.admit_from <= self.admit_to:
            raise ValueError(
                f"admit_from <= admit_to must hold, but admit_from={self.admit_from} "
                f"and admit_to={self.admit_to}"
            )
        return self


class OptimizerConfig(Section):
    """SGD."""

    lr: Positive = 0.01
    """Learning rate at the start of a stage."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    weight_decay: NonNegative = 1e-4
    """lambda, on all parameters."""
    drop: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the learning rate at each milestone."""


class StagesConfig(Section):
    """Lengths of the three stages, in optimiser steps."""

    warm_up: Whole = 500
    """Steps with uniform weights."""
    weight_learning: Whole = 1900
    """Steps with re-weighting on, after the warm-up in the same run (2,400 in all)."""
    retrain: Whole = 0
    """Steps of a fresh run with the learned weights frozen (the paper's 10,000); 0: none."""
    learning_milestones: tuple[Whole, ...] = (1000, 2000)
    """Steps of warm-up and weight learning at which the learning rate drops."""
    retrain_milestones: tuple[Whole, ...] = (2000, 3000)
    """Steps of the retraining at which the learning rate drops."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.total == 0:
            raise ValueError("warm_up + weight_learning + retrain must be at least 1 step")
        return self

    @property
    def total(self) -> int:
        """Steps of all stages together."""
        return self.warm_up + self.weight_learning + self.retrain


class TrainingConfig(Section):
    """The loop."""

    batch: Annotated[int, Field(ge=2)] = 64
    """Global batch N: identities per step over all workers."""
    epoch_steps: Count | None = None
    """Steps between two evaluations (an 'epoch'); null: one pass over the identities."""
    stages: StagesConfig = StagesConfig()
    audio_seconds: tuple[Positive, Positive] = (2.5, 5.0)
    """Shortest and longest training window; one length per batch."""
    audio_step: Positive = 0.25
    """Training windows are multiples of this many seconds; compiled code exists once per length."""
    augment: bool = True
    """Flip, rotation, pad-and-crop on the faces."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Autocast type of the forward pass."""
    channels_last: bool = False
    """Keep images and spectra with their channels innermost: what bf16 kernels are fastest on."""
    compile: bool = False
    """Compile the encoders' residual units (torch.compile); on CPUs this needs a C++ compiler."""
    micro_batch: Count | None = None
    """Pairs per forward pass on one worker, for small memories: the loss stays that of the whole
    batch, BatchNorm normalises over these pairs; null: a worker's whole share at once."""
    recompute: bool = False
    """Compute the residual units again in the backward pass instead of keeping their insides."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        low, high = self.audio_seconds
        if low > high:
            raise ValueError(f"audio_seconds: shortest <= longest must hold, but {low} > {high}")
        return self


class EvaluationConfig(Section):
    """Evaluation on the validation split, each epoch."""

    galleries: tuple[Annotated[int, Field(ge=2)], ...] = (2, 5, 10)
    """Gallery sizes N of 1:N matching."""
    strata: tuple[Literal["U", "G", "N", "GN"], ...] = ("U", "G")
    """Negatives from all identities, same gender, same nationality, both."""
    seed: int = 0
    """Seed of the generated query lists."""
    instances: Count | None = None
    """At most this many voices and faces per identity (the first by name); null: all."""
    audio_seconds: Positive = 10.0
    """Window at evaluation: the first seconds, tiled if short."""
    batch: Count = 64
    """Instances per forward pass."""
    bound_pairs: Whole | None = 1
    """Pairs of each training identity over which Proposition 1 is measured (``bound/...``); null:
    every file of the training split; 0: not measured."""
    select: str = "val/match_v2f_1to2"
    """Metric that decides which checkpoint is the best of the run (higher is better)."""


class WorkersConfig(Section):
    """Data-parallel workers of one run: ``count``, or elastic between ``min`` and ``max``."""

    count: Count = 2
    """Workers; the global batch is shared among them. Elastic: as many as ``max``."""
    min: Count | None = None
    """Fewest workers with which a run goes on when nodes are lost; null: not elastic."""
    max: Count | None = None
    """Most workers, to which it grows as nodes join; the global batch stays, in more parts."""
    resize_seconds: Positive = 60
    """Seconds between two looks for room to grow."""
    use_gpu: Literal["auto"] | bool = "auto"
    """``auto``: one GPU per worker if the machine or cluster has any."""
    cpus: Positive = 1
    """CPUs per worker."""
    gpus: Positive = 1
    """GPUs per worker when GPUs are used; a fraction shares one."""
    max_retries: Whole = 2
    """Restarts after a lost worker or node, per trial."""
    report_timeout: Positive = 1800
    """Seconds without a report after which a trial is ended."""

    @model_validator(mode="before")
    @classmethod
    def _elastic(cls, data: Any) -> Any:
        if not isinstance(data, dict) or (data.get("min") is None and data.get("max") is None):
            return data
        low, high = data.get("min"), data.get("max")
        if not (isinstance(low, int) and isinstance(high, int) and low < high):
            raise ValueError(f"workers.min < workers.max must hold, but min={low} and max={high}")
        if data.get("count", high) != high:
            raise ValueError(
                f"workers.count is workers.max where both are set, but count={data['count']} and "
                f"max={high}; leave count out"
            )
        return {**data, "count": high}

    @property
    def fewest(self) -> int:
        """Workers without which a run cannot go on."""
        return self.count if self.min is None else self.min


class TrackingConfig(Section):
    """MLflow and S3."""

    enabled: bool = True
    """Log to MLflow and S3; off: metrics and artifacts stay in the run folder."""
    uri: Location | None = None
    """MLflow server; null: ``MLFLOW_TRACKING_URI``, else the local stack."""
    experiment: str = "vfsearch"
    """MLflow experiment."""
    artifacts: Location | None = None
    """``s3://bucket/prefix``; null: the local stack's bucket."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """S3 addresses: ``endpoint/bucket`` (path) or ``bucket.endpoint`` (virtual)."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption asked for with each object; null: the bucket's default."""
    kms_key: str | None = None
    """Key of ``aws:kms`` (id, ARN or alias); null: the account's default key."""
    system_seconds: NonNegative = 10.0
    """Seconds between two samples of CPU, memory and GPUs; 0: none."""
    recovery: Literal["auto"] | bool = "auto"
    """Keep study and checkpoints of a running sweep on S3 too; ``auto``: on a cluster."""

    @model_validator(mode="after")
    def _key_of_kms(self) -> Self:
        if self.kms_key is not None and self.encryption != "aws:kms":
            raise ValueError(
                "kms_key needs encryption=aws:kms, but "
                f"kms_key={self.kms_key} and encryption={self.encryption}"
            )
        return self


class RunConfig(Section):
    """One training run."""

    seed: Whole = 0
    """Seed of initialisation, sampling and augmentation."""
    corpus: CorpusConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    reweighting: ReweightingConfig = ReweightingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.training.batch % self.workers.count:
            raise ValueError(
                "training.batch must be a multiple of workers.count, but "
                f"batch={self.training.batch} and count={self.workers.count}"
            )
        share, part = self.training.batch // self.workers.count, self.training.micro_batch
        if part is not None and (part < 2 or share % part):
            # BatchNorm normalises over a part: each must have two rows, and all equally many.
            raise ValueError(
                "training.micro_batch must be 2 or more and divide a worker's share of the batch, "
                f"but is {part} and the share is {share}"
            )
        if self.workers.min is not None and self.most_pairs_per_pass < 4:
            # With fewer workers a share is split: BatchNorm wants two rows in each part.
            raise ValueError(
                "elastic workers need 4 pairs or more per pass, but training.batch="
                f"{self.training.batch}, workers.max={self.workers.count} and "
                f"training.micro_batch={part} leave {self.most_pairs_per_pass}"
            )
        return self

    @property
    def most_pairs_per_pass(self) -> int:
        """Pairs that a worker takes through the encoders at once, at any number of workers."""
        return self.training.micro_batch or self.training.batch // self.workers.count

    @model_validator(mode="after")
    def _features_are_fixed(self) -> Self:
        if self.corpus.features is None:
            return self
        wrong = [
            f"model.{what}.frozen must be true"
            for what, encoder in (("face", self.model.face), ("voice", self.model.voice))
            if not encoder.frozen
        ]
        if self.training.augment:
            wrong.append("training.augment must be false")
        if wrong:
            raise ValueError(
                "corpus.features holds what fixed encoders made of whole files, so "
                + " and ".join(wrong)
            )
        return self


S = TypeVar("S", bound=Section)
Lines = dict[tuple[str | int, ...], int]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: ``1e-4`` is a number, not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read one YAML mapping and the line of each of its keys.

    Returns:
        The mapping, and ``{("loss", "margin"): 12, ...}`` with lines counted from 1.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, no mapping, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text ({error.reason})"]) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError([f"{where}: is not YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(data, dict) or node is None:
        raise ConfigError([f"{path}: must hold a mapping of settings, not {type(data).__name__}"])
    lines: Lines = {}
    repeated = _note_lines(node, (), lines)
    if repeated:
        raise ConfigError([f"{path}:{line}: {key}: is given twice" for key, line in repeated])
    return data, lines


def _note_lines(node: yaml.Node, prefix: tuple[str | int, ...], lines: Lines) -> list[Any]:
    repeated: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*prefix, key.value)
            if here in lines:
                repeated.append((".".join(map(str, here)), key.start_mark.line + 1))
            lines[here] = key.start_mark.line + 1
            repeated += _note_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*prefix, index)] = value.start_mark.line + 1
            repeated += _note_lines(value, (*prefix, index), lines)
    return repeated


def validate(model: type[S], data: Mapping[str, Any], source: str, lines: Lines) -> S:
    """Build a section, or raise one ``ConfigError`` that lists every problem with its line."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, source, lines)) from None


def explain(
    error: ValidationError, source: str, lines: Lines, prefix: tuple[str | int, ...] = ()
) -> list[str]:
    """Say each problem of a section that stands at ``prefix`` in the file, with its line."""
    entries = error.errors(include_url=False)
    return [
        _problem((*prefix, *entry["loc"]), entry, source, lines)
        for entry in entries
        # A list of which no entry is sound is not too short as well.
        if entry["type"] != "too_short" or not _has_inner(entry["loc"], entries)
    ]


def _has_inner(place: tuple[str | int, ...], entries: Sequence[Any]) -> bool:
    size = len(place)
    return any(len(e["loc"]) > size and e["loc"][:size] == place for e in entries)


def _problem(key: tuple[str | int, ...], entry: Any, source: str, lines: Lines) -> str:
    kind = entry["type"]
    if kind == "union_tag_invalid":
        key = (*key, entry["ctx"]["discriminator"].strip("'"))
    found: tuple[str | int, ...] = ()
    name: list[str] = []
    for part in key:
        here = (*found, part) in lines
        found = (*found, part) if here else found
        # What is not in the file is missing there, or only the kind of what is.
        if here or part == key[-1]:
            name.append(str(part))
    where = f"{source}:{lines[found]}" if found in lines else source
    head = f"{where}: {'.'.join(name) or 'the file'}"
    if kind == "missing":
        return f"{head}: is required"
    if kind == "extra_forbidden":
        return f"{head}: is no setting; see the reference in docs/configuration.md"
    if kind == "value_error":
        return f"{head}: {entry['msg'].removeprefix('Value error, ')}"
    if kind == "union_tag_invalid":
        tags = entry["ctx"]["expected_tags"].replace("'", "")
        return f"{head}: {entry['ctx']['tag']!r} is wrong, it should be one of {tags}"
    message = re.sub(r"^\w+ should ", "", entry["msg"])
    return f"{head}: {entry['input']!r} is wrong, it should {message}"


def set_key(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings, making the ones that are missing."""
    *parents, last = dotted.split(".")
    for part in parents:
        child = data.get(part)
        if not isinstance(child, dict):
            child = data[part] = {}
        data = child
    data[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``loss.margin=5.4`` into key and YAML value."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {text!r}: must be KEY=VALUE, like loss.margin=5.4"])
    try:
        return key.strip(), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError([f"--set {text!r}: the value is not YAML"]) from None


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML file and apply ``KEY=VALUE`` overrides.

    Raises:
        ConfigError: with every problem of file and overrides at once.
    """
    data, lines = read_yaml(path)
    for override in overrides:
        set_key(data, *parse_override(override))
    return validate(RunConfig, data, str(path), lines)


def flat(section: Section) -> dict[str, Any]:
    """Dotted keys and plain values of a section, for parameters of a tracked run."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else key, child)
        else:
            out[prefix] = value

    walk("", section.model_dump(mode="json"))
    return out
