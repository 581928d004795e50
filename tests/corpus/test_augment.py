"""Augmentation of faces: exact where it can be, bounded where it is drawn."""

import math

import torch

from vfsearch.corpus.augment import FaceAugmentation, augment_faces, draw_augmentation


def how(
    mirror: float = 1, angle: float = 0, shift: tuple[float, float] = (0, 0)
) -> FaceAugmentation:
    return FaceAugmentation(
        mirror=torch.tensor([float(mirror)]),
        angle=torch.tensor([angle]),
        shift=torch.tensor([shift], dtype=torch.float32),
    )


FACE = torch.randint(0, 256, (1, 112, 112, 3), dtype=torch.uint8)


def test_without_rotation_the_values_are_exact() -> None:
    assert torch.equal(augment_faces(FACE, how()), FACE)
    assert torch.equal(augment_faces(FACE, how(mirror=-1)), FACE.flip(2))
    moved = augment_faces(FACE, how(shift=(1, 0)))
    assert torch.equal(moved[:, :, 7:], FACE[:, :, :-7])
    assert (moved[:, :, :7] == 127).all()
    down = augment_faces(FACE, how(shift=(0, 1)))
    assert torch.equal(down[:, 7:], FACE[:, :-7])


def test_rotation_fills_the_corners_and_keeps_the_centre() -> None:
    white = torch.full_like(FACE, 255)
    turned = augment_faces(white, how(angle=math.radians(15)))
    assert (turned[0, 0, 0] == 127).all()
    assert (turned[0, 40:72, 40:72] == 255).all()


def test_draws_follow_seed_and_step_and_their_ranges() -> None:
    drawn = draw_augmentation(4000, seed=1, step=7)
    again = draw_augmentation(4000, seed=1, step=7)
    assert torch.equal(drawn.angle, again.angle)
    assert not torch.equal(drawn.angle, draw_augmentation(4000, seed=1, step=8).angle)
    assert drawn.angle.abs().max() <= math.radians(15)
    assert 0.45 < (drawn.angle == 0).float().mean() < 0.55
    assert 0.45 < (drawn.mirror < 0).float().mean() < 0.55
    assert torch.equal(drawn.rows(10, 20).shift, drawn.shift[10:20])
