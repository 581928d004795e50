"""Every setting of a training run: typed, validated, one place per default.

A run is described by one YAML file (see ``configs/``); ``load_run`` reads it, applies ``--set``
overrides and reports every problem of the file at once, each with its line, key and value.
"""

from vfsearch.config.base import (
    Count,
    Fraction,
    Location,
    NonNegative,
    Positive,
    Section,
    Whole,
    home,
)
from vfsearch.config.model import CorpusConfig, FaceConfig, ModelConfig, VoiceConfig
from vfsearch.config.platform import EvaluationConfig, TrackingConfig, WorkersConfig
from vfsearch.config.reading import (
    Lines,
    explain,
    flat,
    load_run,
    parse_override,
    read_yaml,
    set_key,
    validate,
)
from vfsearch.config.run import RunConfig
from vfsearch.config.training import (
    ClassifierConfig,
    LossConfig,
    OptimizerConfig,
    ReweightingConfig,
    StagesConfig,
    TrainingConfig,
)

__all__ = [
    "ClassifierConfig",
    "CorpusConfig",
    "Count",
    "EvaluationConfig",
    "FaceConfig",
    "Fraction",
    "Lines",
    "Location",
    "LossConfig",
    "ModelConfig",
    "NonNegative",
    "OptimizerConfig",
    "Positive",
    "ReweightingConfig",
    "RunConfig",
    "Section",
    "StagesConfig",
    "TrackingConfig",
    "TrainingConfig",
    "VoiceConfig",
    "Whole",
    "WorkersConfig",
    "explain",
    "flat",
    "home",
    "load_run",
    "parse_override",
    "read_yaml",
    "set_key",
    "validate",
]
