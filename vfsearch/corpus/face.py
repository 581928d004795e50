"""A rendered face: what an identity looks like, and one photograph of it.

The linear head of ``assets/head_model.npz`` gives the shape, procedural albedo the skin, hair,
brows, beard and irises. Latents, each strongly visible: width of the head, age, length of the
face. All else is nuisance.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vfsearch.corpus.render import Head, Look, View, render

SIDE = 160
"""Pixels."""
LATENTS = ("width", "age", "length")
_ASSET = Path(__file__).parent / "assets" / "head_model.npz"
# Displacements per unit of the latent, in the head model's own units.
_WIDTH = {
    "head-scale-horiz-incr": 0.34,
    "head-fat-incr": 0.30,
    "weight": 0.12,
    "cheek-volume-incr": 0.25,
    "chin-width-incr": 0.25,
}
_LENGTH = {
    "head-scale-vert-incr": 0.22,
    "chin-height-incr": 0.40,
    "mouth-trans-up": -0.25,
    "eye-trans-up": 0.20,
    "nose-scale-vert-incr": 0.30,
}
_AGE = 0.075
_LATENT_AXES = {"gender", "age", *_WIDTH, *_LENGTH}
_SKINS = np.array([[88, 56, 40], [222, 180, 145], [236, 196, 174.0]])
_HAIRS = np.array([[24, 18, 16], [60, 40, 28], [96, 66, 40], [172, 132, 84], [120, 60, 35.0]])
_IRISES = np.array([[60, 40, 25], [70, 105, 140], [85, 110, 75.0]])
_GREY = np.array([182, 180, 176.0])


@dataclass(frozen=True, kw_only=True)
class Person:
    """One identity's face."""

    shape: Float[np.ndarray, " directions"]
    look: Look


@cache
def head() -> Head:
    """The head model, read once per process."""
    return Head.load(_ASSET)


def person(latents: Float[np.ndarray, " 3"], female: bool, random: np.random.Generator) -> Person:
    """The face of an identity with these latents; the rest is drawn."""
    width, age, length = (float(np.clip(latent, -2.6, 2.6)) for latent in latents)
    model = head()
    ancestry = random.dirichlet([0.6] * 3)
    shape = np.zeros(len(model.names))
    for row, name in enumerate(model.names):
        if name not in _LATENT_AXES and not name.startswith("expr:"):
            shape[row] = np.clip(random.normal(0, 0.12), -0.5, 0.5)
    settings = {
        "gender": (0.42 if female else -0.42) + random.normal(0, 0.03),
        "age": _AGE * age,
        "muscle": random.normal(0, 0.08),
        "african": 0.6 * (ancestry[0] - 1 / 3),
        "asian": 0.6 * (ancestry[1] - 1 / 3),
    }
    settings |= {name: unit * width for name, unit in _WIDTH.items()}
    settings |= {name: unit * length for name, unit in _LENGTH.items()}
    for name, value in settings.items():
        shape[model.names.index(name)] = value
    skin = (ancestry @ _SKINS) * random.normal(1, 0.04)
    fair = ancestry[2] > 0.45
    # Greying follows age smoothly, so that age is visible over its whole range.
    grey = 1 / (1 + np.exp(-1.6 * age))
    hair = _HAIRS[random.integers(0, len(_HAIRS))] if fair else _HAIRS[random.integers(0, 2)]
    return Person(
        shape=shape,
        look=Look(
            skin=skin,
            lips=skin * np.array([0.86, 0.62, 0.62]) + (np.array([30, 0, 8]) if female else 0),
            hair=(1 - grey) * hair + grey * _GREY,
            iris=_IRISES[random.integers(0, 3) if fair else 0],
            hairline=random.normal(0, 0.2),
            brow=random.uniform(0.7, 1.0) if female else random.uniform(1.1, 1.6),
            beard=0.0 if female else float(np.clip(random.normal(0.35, 0.2), 0, 0.8)),
        ),
    )


def photograph(who: Person, random: np.random.Generator) -> UInt8[np.ndarray, "160 160 3"]:
    """One picture, RGB: another pose, expression, light and background."""
    model = head()
    shape = who.shape.copy()
    for name in ("expr:jawOpen", "expr:mouthSmile", "expr:browInnerUp"):
        shape[model.names.index(name)] = max(0.0, random.uniform(-0.4, 0.4)) * 0.8
    view = View(
        yaw=random.normal(0, 0.20),
        pitch=random.normal(0, 0.07),
        roll=random.normal(0, 0.05),
        light=np.array([random.normal(0, 0.5), -0.8, random.normal(0.4, 0.3)]),
        ambient=random.uniform(0.3, 0.5),
        background=random.uniform(30, 200, 3),
        scale=random.uniform(0.95, 1.05),
        side=SIDE,
    )
    return render(model, model.vertices(shape), who.look, view, random)
