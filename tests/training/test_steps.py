"""Per-step records survive kills, and the bound is that of the whole training split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_run import Recorder, tiny_config, tiny_store, tiny_stores

from vfsearch.config import EvaluationConfig
from vfsearch.evaluation.embed import evaluating
from vfsearch.evaluation.training_bound import TrainingBound, pair_up
from vfsearch.loss.bound import BoundMeter
from vfsearch.model.alignment import AlignmentModel, build_model
from vfsearch.training.loop import train
from vfsearch.training.objective import TERMS
from vfsearch.training.steps import NAME, StepFile

CPU = torch.device("cpu")


def tiny_model(identities: int) -> AlignmentModel:
    torch.manual_seed(5)
    return build_model(tiny_config().model, identities)


def test_every_step_is_kept_and_reported(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tiny_config(), tmp_path, recorder, device=CPU, stores=tiny_stores())
    told = [row.step for report in recorder.reports for row in report.steps]
    assert told == list(range(12))
    assert (tmp_path / NAME).read_text().splitlines()[0] == ",".join(["step", *TERMS])
    for report in recorder.reports:
        assert report.metrics["train/loss"] == pytest.approx(
            np.mean([row["loss"] for row in report.steps])
        )
        for row in report.steps:
            # The supplement's claim: positives and negatives pull equally, whatever the margin.
            assert row["positive_mass"] == pytest.approx(row["negative_mass"], rel=1e-4)
    # Reported once more after a restart, from the file.
    again = Recorder()
    train(tiny_config(), tmp_path, again, device=CPU, stores=tiny_stores())
    assert again.reports[0].steps == recorder.reports[-1].steps


def test_steps_of_a_lost_epoch_are_dropped(tmp_path: Path) -> None:
    file = StepFile(tmp_path)
    file.resume(0)
    file.append(0, [[float(term) for term in range(len(TERMS))]] * 5)
    with (tmp_path / NAME).open("a") as torn:
        torn.write("5,0.1,0.2")  # a kill in the middle of a write
    StepFile(tmp_path).resume(3)
    assert [row.step for row in file.rows(0, 100)] == [0, 1, 2]
    file.append(3, [[0.1] * len(TERMS)])
    assert file.rows(3, 4)[0]["loss"] == 0.1


@settings(deadline=None)
@given(
    voices=st.lists(st.integers(0, 4), max_size=12), faces=st.lists(st.integers(0, 4), max_size=12)
)
def test_every_file_of_an_identity_with_both_is_paired(voices: list[int], faces: list[int]) -> None:
    voice, face = np.array(voices, np.int64), np.array(faces, np.int64)
    pairs = pair_up(voice, face)
    assert (voice[pairs[:, 0]] == face[pairs[:, 1]]).all()
    both = set(voices) & set(faces)
    assert set(pairs[:, 0]) == {row for row, who in enumerate(voices) if who in both}
    assert set(pairs[:, 1]) == {row for row, who in enumerate(faces) if who in both}
    expected = sum(max(voices.count(who), faces.count(who)) for who in both)
    assert len(pairs) == expected


@pytest.mark.parametrize("limit", [1, 2, None])
def test_the_bound_is_that_of_the_training_split(limit: int | None) -> None:
    store = tiny_store("train", 12, seed=1)
    model = tiny_model(12)
    omega = model.classifier.weight
    weights = torch.rand(12, generator=torch.Generator().manual_seed(1))
    config = EvaluationConfig(audio_seconds=1.0, batch=7, bound_pairs=limit)
    found = TrainingBound(store, config)(model, omega, weights, device=CPU)
    meter = BoundMeter(omega, weights)
    with evaluating(model), torch.no_grad():
        for row in range(len(store.face_identity)):
            if limit is None or row % 3 < limit:
                meter.add(
                    model.embed_faces(torch.from_numpy(store.faces[row : row + 1])),
                    model.embed_voices(torch.from_numpy(store.voice(row)[None])),
                    torch.tensor([row // 3]),
                )
    wanted = meter.measure()
    assert found["bound/implicit"] == pytest.approx(wanted.loss, rel=1e-5)
    assert found["bound/implicit_lower"] == pytest.approx(wanted.lower, rel=1e-5)
    assert found["bound/gap"] >= 0


def test_without_pairs_nothing_is_measured() -> None:
    config = EvaluationConfig(bound_pairs=0)
    model = tiny_model(5)
    bound = TrainingBound(tiny_store("train", 5, seed=1), config)
    assert bound(model, model.classifier.weight, torch.ones(5), device=CPU) == {}
