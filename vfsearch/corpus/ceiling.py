"""The Bayes ceiling of a synthetic corpus: the exact log-likelihood ratio on its latents.

Everything in a voice or a face beyond its latents and its observed gender comes from separate
random streams, so by the data-processing inequality no score computed from the files can beat
this one (METHOD.md, 'The corpus that this project can ship').
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool, Float

from vfsearch.errors import CorpusError

FILE = "truth.npz"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Latents from which the files of each identity were made."""

    voice_ids: Sequence[str]
    face_ids: Sequence[str]
    voice_latents: Float[np.ndarray, "identities K"]
    face_latents: Float[np.ndarray, "identities K"]
    voice_gender: Bool[np.ndarray, " identities"]
    """Gender that the voice shows (True: female), after the noise."""
    face_gender: Bool[np.ndarray, " identities"]
    """Gender that the face shows."""
    rho: Float[np.ndarray, " K"]
    """Canonical correlation of each pair of latents."""
    gender_noise: float
    """Probability that a modality shows the other gender."""

    @classmethod
    def load(cls, corpus: Path) -> Self | None:
        """The truth of a corpus folder; None for a corpus of real recordings.

        Raises:
            CorpusError: the file is damaged.
        """
        path = corpus / FILE
        if not path.exists():
            return None
        try:
            # numpy leaves a damaged archive open unless it is handed an open file.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                return cls(
                    voice_ids=[str(name) for name in data["voice_ids"]],
                    face_ids=[str(name) for name in data["face_ids"]],
                    voice_latents=data["voice_latents"],
                    face_latents=data["face_latents"],
                    voice_gender=data["voice_gender"],
                    face_gender=data["face_gender"],
                    rho=data["rho"],
                    gender_noise=float(data["gender_noise"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CorpusError(f"{path}: is no truth file of a corpus ({error})") from None

    def save(self, corpus: Path) -> None:
        """Write ``truth.npz`` (fixed bytes for fixed content)."""
        np.savez(
            corpus / FILE,
            voice_ids=np.array(self.voice_ids),
            face_ids=np.array(self.face_ids),
            voice_latents=self.voice_latents,
            face_latents=self.face_latents,
            voice_gender=self.voice_gender,
            face_gender=self.face_gender,
            rho=self.rho,
            gender_noise=np.float64(self.gender_noise),
        )

    def scores(self) -> Float[np.ndarray, "voices faces"]:
        """Log-likelihood ratio of 'same identity' for every voice (row) and face (column)."""
        return bayes_scores(
            self.voice_latents,
            self.face_latents,
            self.voice_gender,
            self.face_gender,
            self.rho,
            self.gender_noise,
        )


def bayes_scores(
    voice_latents: Float[np.ndarray, "voices K"],
    face_latents: Float[np.ndarray, "faces K"],
    voice_gender: Bool[np.ndarray, " voices"],
    face_gender: Bool[np.ndarray, " faces"],
    rho: Float[np.ndarray, " K"],
    gender_noise: float,
) -> Float[np.ndarray, "voices faces"]:
    """Exact log-likelihood ratio of 'same identity' against 'independent', in nats.

    Per latent with correlation ρ: −½ log(1 − ρ²) + (ρ v f − ½ ρ² (v² + f²)) / (1 − ρ²). Genders
    agree with probability q = (1 − p)² + p² for one identity and ½ otherwise.
    """
    rest = 1 - rho**2
    scores: Float[np.ndarray, "voices faces"]
    scores = (voice_latents * (rho / rest)) @ face_latents.T
    scores -= 0.5 * ((voice_latents**2) @ (rho**2 / rest))[:, None]
    scores -= 0.5 * ((face_latents**2) @ (rho**2 / rest))[None, :]
    scores -= 0.5 * np.log(rest).sum()
    agree = (1 - gender_noise) ** 2 + gender_noise**2
    same, different = np.log(2 * agree), np.log(max(2 * (1 - agree), 1e-12))
    scores += np.where(voice_gender[:, None] == face_gender[None, :], same, different)
    return scores
