"""Features of ``statistics`` reduced to what tells training identities apart."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vfsearch.corpus import features as files
from vfsearch.corpus.features import EncoderRecord, Extraction, open_features, read_index
from vfsearch.errors import CorpusError, UsageError
from vfsearch.model.discriminant import DISCRIMINANTS, fit_discriminants

FEATURES = "features"
"""Folder of the projected features in the output."""


def write_discriminants(statistics: Path, out: Path) -> Extraction:
    """Fit both modalities on the training identities; weights and projected features.

    ``out`` gets ``voice.safetensors``, ``face.safetensors`` and a folder of features as the
    encoder ``discriminants`` with these weights would extract it; it appears whole or not at all.

    Args:
        statistics: folder of features by the encoders ``statistics``, the training split among
            them.
        out: folder to make.

    Raises:
        UsageError: ``out`` is there already, or other encoders made the features.
        CorpusError: no training split, damaged features, or ``out`` cannot be written.
    """
    out, made = out.absolute(), read_index(statistics).extraction
    if out.exists():
        raise UsageError(f"{out}: is there already")
    if {made.voice.encoder, made.face.encoder} != {"statistics"}:
        raise UsageError(
            f"{statistics}: should be features by the encoders statistics, not by "
            f"{made.voice.encoder} and {made.face.encoder}"
        )
    train = open_features(statistics, "train")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / FEATURES).mkdir(parents=True)
        voice = fit_discriminants(np.asarray(train.voice_features), train.voice_identity)
        face = fit_discriminants(np.asarray(train.face_features), train.face_identity)
        records = {}
        for what, tensors in (("voice", voice), ("face", face)):
            save_file(tensors, partial / f"{what}.safetensors")
            records[what] = EncoderRecord(
                encoder="discriminants",
                weights=str(out / f"{what}.safetensors"),
                sha256=files.sha256(partial / f"{what}.safetensors"),
                dim=DISCRIMINANTS,
            )
        plan = made.model_copy(update=records)
        for name in made.splits:
            split = open_features(statistics, name)
            projected = replace(
                split,
                voice_features=_project(split.voice_features, voice),
                face_features=_project(split.face_features, face),
                extraction=plan,
            )
            files.save_split(partial / FEATURES, projected)
        files.save_index(partial / FEATURES, plan)
        partial.replace(out)
    except OSError as error:
        raise CorpusError(f"{out}: cannot be written ({error.strerror})") from None
    return plan


def _project(encoded: np.ndarray, weights: dict[str, Tensor]) -> np.ndarray:
    return np.asarray(
        ((torch.from_numpy(np.array(encoded)) - weights["mean"]) @ weights["projection"]).numpy()
    )
