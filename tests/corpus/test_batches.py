"""Batches: who is in them, the same for every number of workers, continued exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_run import tiny_store

from vfsearch.corpus.batches import Batch, BatchStream
from vfsearch.corpus.store import Store, window
from vfsearch.errors import UsageError

IDENTITIES = 11
STORE = tiny_store("train", IDENTITIES, seed=1, each=3, side=8)
SECONDS = (0.25, 1.5)  # shorter and longer than the voices of one second


def _stream(seed: int = 0, batch: int = 4, rank: int = 0, world: int = 1) -> BatchStream:
    return BatchStream(STORE, batch=batch, seconds=SECONDS, seed=seed, rank=rank, world=world)


def _equal(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in ((a.faces, b.faces), (a.voices, b.voices), (a.labels, b.labels))
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 6))
def test_a_restored_stream_continues_bit_for_bit(seed: int, before: int, after: int) -> None:
    stream = _stream(seed)
    for _ in range(before):
        next(stream)
    state = json.loads(json.dumps(stream.state()))
    wanted = [next(stream) for _ in range(after)]
    other = _stream(seed)
    next(other)
    other.restore(state)
    assert all(_equal(next(other), batch) for batch in wanted)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.integers(1, 5))
def test_the_sequence_does_not_depend_on_the_world(seed: int, world: int, steps: int) -> None:
    whole = _stream(seed, batch=8)
    ranks = [_stream(seed, batch=8, rank=rank, world=world) for rank in range(world)]
    for _ in range(steps):
        wanted, parts = next(whole), [next(rank) for rank in ranks]
        assert torch.equal(wanted.labels, torch.cat([part.labels for part in parts]))
        assert torch.equal(wanted.faces, torch.cat([part.faces for part in parts]))
        assert torch.equal(wanted.voices, torch.cat([part.voices for part in parts]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, IDENTITIES))
def test_identities_are_unique_within_a_pass(seed: int, batch: int) -> None:
    stream = _stream(seed, batch=batch)
    assert stream.steps_per_pass == IDENTITIES // batch
    for _ in range(3):
        labels = torch.cat([next(stream).labels for _ in range(stream.steps_per_pass)])
        assert len(labels.unique()) == stream.steps_per_pass * batch


def test_every_identity_and_every_file_takes_part() -> None:
    stream = _stream(batch=4)
    seen = np.zeros(IDENTITIES, int)
    pictures: set[bytes] = set()
    for _ in range(200):
        batch = next(stream)
        seen[batch.labels.numpy()] += 1
        pictures |= {face.numpy().tobytes() for face in batch.faces}
    assert seen.min() > 0.7 * seen.mean()
    assert len(pictures) == len(STORE.faces)


def test_faces_and_voices_are_of_the_label() -> None:
    stream = _stream(batch=8)
    lengths = set()
    for _ in range(40):
        batch = next(stream)
        lengths.add(batch.voices.shape[1])
        for face, voice, label in zip(batch.faces, batch.voices, batch.labels, strict=True):
            mine = np.flatnonzero(STORE.face_identity == int(label))
            assert any(np.array_equal(face.numpy(), STORE.faces[row]) for row in mine)
            assert any(
                _is_window(voice.numpy(), STORE.voice(int(row)))
                for row in np.flatnonzero(STORE.voice_identity == int(label))
            )
    assert all(length % 4000 == 0 for length in lengths)
    assert (min(lengths), max(lengths)) == (4000, 24_000)


def _is_window(piece: np.ndarray, voice: np.ndarray) -> bool:
    if len(piece) > len(voice):
        return np.array_equal(piece, np.resize(voice, len(piece)))
    starts = np.flatnonzero(voice[: len(voice) - len(piece) + 1] == piece[0])
    return any(np.array_equal(piece, voice[s : s + len(piece)]) for s in starts)


def test_another_seed_is_another_sequence() -> None:
    assert not _equal(next(_stream(1, batch=8)), next(_stream(2, batch=8)))


@given(
    st.integers(1, 50),
    st.integers(1, 120),
    st.floats(0, 1, exclude_max=True),
)
def test_a_window_is_a_stretch_or_a_repetition(length: int, wanted: int, where: float) -> None:
    voice = np.arange(length, dtype=np.int16)
    out = np.full(wanted, -1, np.int16)
    window(voice, where, out)
    if wanted > length:
        np.testing.assert_array_equal(out, np.resize(voice, wanted))
    else:
        np.testing.assert_array_equal(out, np.arange(wanted) + out[0])
        assert 0 <= out[0] <= length - wanted


def test_windows_reach_both_ends() -> None:
    voice, out = np.arange(10, dtype=np.int16), np.empty(8, np.int16)
    starts = set()
    for where in np.linspace(0, 1, 50, endpoint=False):
        window(voice, float(where), out)
        starts.add(int(out[0]))
    assert starts == {0, 1, 2}


def test_too_few_identities_are_told_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"batch is 12.*only 11 identities"):
        _stream(batch=12)


def test_a_batch_owns_its_memory(tmp_path: Path) -> None:
    """Batches outlive the step and may be changed in place; the store may not."""
    path = tmp_path / "faces"
    np.asarray(STORE.faces).tofile(path)
    mapped = np.memmap(path, np.uint8, "r", shape=STORE.faces.shape)
    store = Store(**{**vars(STORE), "faces": mapped})
    batch = next(BatchStream(store, batch=4, seconds=SECONDS, seed=0))
    batch.faces.zero_()
    batch.voices.zero_()
    np.testing.assert_array_equal(mapped, STORE.faces)
