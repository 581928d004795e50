"""Strata of negatives: all identities (U), same gender (G), same nationality (N), both (GN)."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int64

Stratum = Literal["U", "G", "N", "GN"]


class Person(Protocol):
    """What query lists need to know of an identity (``corpus.layout.Identity`` has it)."""

    @property
    def voice_id(self) -> str:
        """Folder of the identity's voices (VoxCeleb1_ID)."""

    @property
    def face_id(self) -> str:
        """Folder of the identity's faces (VGGFace1_ID)."""

    @property
    def gender(self) -> str:
        """``m`` or ``f``."""

    @property
    def nationality(self) -> str:
        """As the CSV spells it."""


def stratum_keys(
    identities: Sequence[Person], stratum: Stratum
) -> Int64[np.ndarray, " identities"]:
    """A number per identity; identities of one number are each other's negatives."""
    labels = [stratum_label(person, stratum) for person in identities]
    table = {label: row for row, label in enumerate(dict.fromkeys(labels))}
    return np.array([table[label] for label in labels], dtype=np.int64)


def stratum_label(person: Person, stratum: Stratum) -> str:
    """The group of an identity in words, like ``gender f, nationality UK``."""
    parts = []
    if "G" in stratum:
        parts.append(f"gender {person.gender}")
    if "N" in stratum:
        parts.append(f"nationality {person.nationality}")
    return ", ".join(parts) or "all identities"
