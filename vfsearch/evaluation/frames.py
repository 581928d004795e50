"""Frames of the retrieval film: a probe voice beside the faces that it finds."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vfsearch.evaluation.media import Image as Pixels
from vfsearch.evaluation.media import Samples, loudness, read_face
from vfsearch.evaluation.neighbours import Hit, Retrieval

WIDTH, HEIGHT = 1280, 720
TILE = 150
COLUMNS = 5
BARS = 52
# The page's dark palette: a film is watched full screen.
PAGE, CARD, LINE = "#101216", "#191c22", "#2c313a"
INK, SOFT, ACCENT, QUIET = "#eceef2", "#a5acb8", "#86aefb", "#3a4763"
MATCH, OTHER = "#ff6b7d", "#52c98c"
WAVE = (60, 268, 340, 388)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib ships this face, so text looks the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def still(found: Retrieval, number: int, count: int, title: str, faces: Path) -> Image.Image:
    """Everything of one probe's picture that does not move.

    Args:
        found: The probe, a voice, with its nearest faces.
        number: Which probe this is, from 1.
        count: How many probes the film has.
        title: Headline of the film.
        faces: Image root.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), PAGE)
    draw = ImageDraw.Draw(image)
    draw.text((40, 34), _fit(title, 44), INK, _font(30, bold=True))
    draw.text((40, 78), "The voice is heard, its nearest faces show", SOFT, _font(17))
    draw.rounded_rectangle((40, 150, 360, 560), 16, CARD, LINE)
    draw.text((60, 172), f"PROBE {number} OF {count}", SOFT, _font(14, bold=True))
    draw.text((60, 200), _fit(found.identity, 18), INK, _font(26, bold=True))
    lines = ["no match in the gallery"]
    if found.first_match is not None:
        lines = [f"first match at rank {found.first_match:,}"]
    matches = sum(hit.match for hit in found.hits)
    lines.append(f"{matches} of {len(found.hits)} shown are matches")
    for row, line in enumerate(lines):
        draw.text((60, 420 + 30 * row), line, SOFT, _font(17))
    _legend(draw, 400, 640)
    for place, hit in enumerate(found.hits[: 2 * COLUMNS]):
        x = 400 + place % COLUMNS * (TILE + 22)
        y = 150 + place // COLUMNS * (TILE + 82)
        _tile(image, draw, hit, faces, x, y)
    return image


def heard(image: Image.Image, sound: Samples, share: float) -> Pixels:
    """The picture with the voice's shape filled up to ``share`` of its length."""
    frame = image.copy()
    draw = ImageDraw.Draw(frame)
    left, top, right, bottom = WAVE
    step = (right - left) / BARS
    middle = (top + bottom) / 2
    for bar, height in enumerate(loudness(sound, BARS).tolist()):
        x = left + bar * step
        half = max(height * (bottom - top) / 2, 1.5)
        colour = ACCENT if bar < share * BARS else QUIET
        draw.rounded_rectangle((x, middle - half, x + step - 2.2, middle + half), 1.5, colour)
    return np.asarray(frame, np.uint8)


def _tile(
    image: Image.Image, draw: ImageDraw.ImageDraw, hit: Hit, faces: Path, x: int, y: int
) -> None:
    face = Image.fromarray(read_face(faces / hit.path, 2 * TILE))
    side = min(face.size)
    left, top = (face.width - side) // 2, (face.height - side) // 2
    face = face.crop((left, top, left + side, top + side)).resize((TILE, TILE))
    image.paste(face, (x, y))
    colour = MATCH if hit.match else OTHER
    _frame(draw, (x - 4, y - 4, x + TILE + 3, y + TILE + 3), colour, dashed=not hit.match)
    draw.text((x, y + TILE + 10), f"#{hit.rank}", SOFT, _font(14))
    score = f"{hit.similarity:.3f}".replace("-", "−")
    draw.text((x + TILE, y + TILE + 10), score, INK, _font(15, bold=True), anchor="ra")
    label = "✓ match" if hit.match else "✕ mismatch"
    draw.text((x, y + TILE + 32), label, colour, _font(15, bold=True))


def _frame(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str, *, dashed: bool
) -> None:
    left, top, right, bottom = box
    if not dashed:
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline=colour, width=6)
        return
    dash, gap = 11, 7
    for start in range(left, right, dash + gap):
        end = min(start + dash, right)
        draw.rectangle((start, top, end, top + 3), colour)
        draw.rectangle((start, bottom - 3, end, bottom), colour)
    for start in range(top, bottom, dash + gap):
        end = min(start + dash, bottom)
        draw.rectangle((left, start, left + 3, end), colour)
        draw.rectangle((right - 3, start, right, end), colour)


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    _frame(draw, (x, y, x + 26, y + 26), MATCH, dashed=False)
    draw.text((x + 40, y + 3), "✓ match: the same identity", MATCH, _font(16, bold=True))
    _frame(draw, (x + 330, y, x + 356, y + 26), OTHER, dashed=True)
    draw.text((x + 370, y + 3), "✕ mismatch: another identity", OTHER, _font(16, bold=True))
    draw.text((40, y + 3), "cosine similarity under each face", SOFT, _font(16))


def _fit(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
