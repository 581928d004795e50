"""A small software renderer for the linear head: z-buffer, procedural albedo, one light."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int64, UInt8

SKIN, LIPS, EYE_FRONT, EYE_BACK, MOUTH, TONGUE = range(6)


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """V = mean + Σ a_k directions[k], in metres.

    x points right, y towards the back, z up; the origin is between the eyes.
    """

    mean: Float[np.ndarray, "vertices 3"]
    directions: Float[np.ndarray, "directions vertices 3"]
    names: list[str]
    triangles: Int64[np.ndarray, "triangles 3"]
    classes: UInt8[np.ndarray, " triangles"]
    eyes: Int64[np.ndarray, " eye_vertices"]
    irises: Float[np.ndarray, "2 2"]
    """Centres (x, z)."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``head_model.npz`` (its README describes the arrays)."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                mean=data["mean"].astype(np.float64),
                directions=data["directions"].astype(np.float32),
                names=[str(name) for name in data["names"]],
                triangles=data["faces"].astype(np.int64),
                classes=data["face_class"],
                eyes=data["eye_vertices"].astype(np.int64).ravel(),
                irises=data["iris_centres"].astype(np.float64),
            )

    def vertices(self, attributes: Float[np.ndarray, " directions"]) -> np.ndarray:
        """Shape of a head, [vertices, 3] metres."""
        used = np.flatnonzero(attributes)
        return self.mean + np.tensordot(attributes[used], self.directions[used], 1)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colours (RGB, 0..255) and hair of an identity."""

    skin: Float[np.ndarray, " 3"]
    lips: Float[np.ndarray, " 3"]
    hair: Float[np.ndarray, " 3"]
    iris: Float[np.ndarray, " 3"]
    hairline: float
    brow: float
    beard: float


@dataclass(frozen=True, kw_only=True)
class View:
    """Pose (radians), light and background of one picture."""

    yaw: float
    pitch: float
    roll: float
    light: Float[np.ndarray, " 3"]
    ambient: float
    background: Float[np.ndarray, " 3"]
    scale: float
    side: int


@numba.njit(cache=True, fastmath=False)
def _raster(px, py, depth, triangles, side):  # type: ignore[no-untyped-def]
    """Nearest triangle and barycentric weights of every pixel."""
    nearest = np.full((side, side), np.inf)
    hit = np.full((side, side), -1, np.int64)
    weights = np.zeros((side, side, 3))
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        x0, y0, x1, y1, x2, y2 = px[a], py[a], px[b], py[b], px[c], py[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.floor(min(x0, x1, x2))))
        right = min(side - 1, int(np.ceil(max(x0, x1, x2))))
        top = max(0, int(np.floor(min(y0, y1, y2))))
        bottom = min(side - 1, int(np.ceil(max(y0, y1, y2))))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = w0 * depth[a] + w1 * depth[b] + w2 * depth[c]
                if z < nearest[y, x]:
                    nearest[y, x] = z
                    hit[y, x] = t
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = w0, w1, w2
    return hit, weights


def render(
    head: Head, vertices: np.ndarray, look: Look, view: View, random: np.random.Generator
) -> UInt8[np.ndarray, "side side 3"]:
    """One picture, RGB."""
    posed = (vertices - vertices[head.eyes].mean(0)) @ _rotation(view).T
    side = view.side
    depth = 0.9 + posed[:, 1]  # the camera stands 0.9 m before the eyes
    focal = side / 0.23 * 0.9 * view.scale
    px = side / 2 + posed[:, 0] / depth * focal
    py = side * 0.44 - posed[:, 2] / depth * focal
    hit, weights = _raster(px, py, depth, head.triangles, side)
    seen = hit >= 0
    triangle, weight = hit[seen], weights[seen][..., None]
    corners = head.triangles[triangle]
    normal = (_normals(posed, head.triangles)[corners] * weight).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    place = (head.mean[corners] * weight).sum(1)  # on the average head: where hair and brows grow
    small = random.normal(0, 1, (side // 4 + 1, side // 4 + 1)).astype(np.float32)
    noise = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)[seen]
    albedo, hairy = _albedo(head, look, place, head.classes[triangle], noise)
    light = view.light / np.linalg.norm(view.light)
    half = light + np.array([0.0, -1.0, 0.0])
    half /= np.linalg.norm(half)
    diffuse = np.clip((normal @ light + 0.25) / 1.25, 0, 1)
    gloss = np.where(head.classes[triangle] == EYE_FRONT, 0.6, np.where(hairy > 0.5, 0.05, 0.14))
    shine = 255 * gloss * np.clip(normal @ half, 0, 1) ** 30
    image = np.empty((side, side, 3))
    image[:] = view.background
    image[seen] = albedo * (view.ambient + (1 - view.ambient) * diffuse)[:, None] + shine[:, None]
    # Soften the jagged edges a little, as a lens does, then add the sensor's noise.
    image = cv2.GaussianBlur(image, (3, 3), 0.6) + random.normal(0, 2.5, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _rotation(view: View) -> np.ndarray:
    cos, sin = np.cos([view.yaw, view.pitch, view.roll]), np.sin([view.yaw, view.pitch, view.roll])
    yaw = np.array([[cos[0], -sin[0], 0], [sin[0], cos[0], 0], [0, 0, 1]])
    pitch = np.array([[1, 0, 0], [0, cos[1], -sin[1]], [0, sin[1], cos[1]]])
    roll = np.array([[cos[2], 0, sin[2]], [0, 1, 0], [-sin[2], 0, cos[2]]])
    return np.asarray(roll @ pitch @ yaw)


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    corners = vertices[triangles]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(triangles[:, corner], flat[:, axis], len(vertices))
    return np.asarray(out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12))


def _albedo(
    head: Head, look: Look, place: np.ndarray, kind: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour of each seen point, and how much it is hair."""
    x, y, z = place.T
    skin = kind == SKIN
    colour = np.tile(look.skin, (len(place), 1)) * (1 + 0.03 * noise)[:, None]
    colour[:, 0] += 10 * np.exp(-((np.abs(x) - 0.035) ** 2 + (z + 0.035) ** 2) / 0.0006)  # cheeks

    def hair(amount: np.ndarray, darkness: float, grain: float) -> None:
        target = look.hair * darkness * (1 + grain * noise[:, None])
        colour[:] = colour * (1 - amount[:, None]) + amount[:, None] * target

    line = head.mean[:, 2].max() * (0.62 + 0.25 * look.hairline)
    line = line - 1.6 * np.clip(y + 0.01, 0, 0.08) + 0.0015 * noise + 0.010 * np.cos(x * 60)
    scalp = skin / (1 + np.exp(-np.clip((z - line) / 0.0012, -60, 60)))
    hair(scalp, 1.0, 0.12)
    if look.beard > 0:
        below = np.exp(-((np.clip(z + 0.045, 0, 1) / 0.008) ** 2))
        above = np.exp(-((np.clip(-0.125 - z, 0, 1) / 0.01) ** 2))
        hair(look.beard * below * above * (np.abs(x) < 0.075) * skin * (y < 0.06), 1.0, 0.1)
    arch = np.exp(-(((z - 0.022) / (0.0035 * look.brow)) ** 2))
    arch = arch * np.exp(-(((np.abs(x) - 0.034) / 0.017) ** 4)) * skin * (y < 0.02)
    hair(0.85 * arch, 0.8, 0.0)
    colour[kind == LIPS] = look.lips
    colour[kind == MOUTH] = [80, 28, 28]
    colour[kind == TONGUE] = [170, 80, 80]
    colour[kind == EYE_BACK] = [235, 232, 228]
    for sign, centre in zip((1, -1), head.irises, strict=True):
        eye = (kind == EYE_FRONT) & (x * sign > 0)
        radius = np.hypot(x[eye] - centre[0], z[eye] - centre[1])[:, None]
        colour[eye] = np.where(
            radius < 0.0024, [12.0, 10, 10], np.where(radius < 0.0058, look.iris, [238.0, 236, 232])
        )
    return colour, scalp
