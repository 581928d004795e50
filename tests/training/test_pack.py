"""Packs: every member is its run alone, whatever happens to the others."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.feature_case import feature_config, feature_stores
from support.tiny_run import Recorder

from vfsearch.config import RunConfig
from vfsearch.errors import CheckpointError, ConfigError, TrainingDiverged
from vfsearch.training.loop import EpochReport, Outcome, Stores, train
from vfsearch.training.pack import member as member_module
from vfsearch.training.pack.loop import Left, Orders, train_pack
from vfsearch.training.pack.member import Entry
from vfsearch.training.pack.settings import differences, why_not

CPU = torch.device("cpu")
STORES = feature_stores()


class Script:
    """Joins runs at given rounds, stops them at given epochs, may lose its process in a round."""

    def __init__(
        self,
        joins: dict[int, Sequence[Entry]],
        stop_at: dict[int, int] | None = None,
        die_in: int | None = None,
    ) -> None:
        self._joins, self._stop_at, self._die_in = dict(joins), stop_at or {}, die_in
        self._round = -1
        self.epochs: dict[int, list[EpochReport]] = {}
        self.ended: dict[int, Left] = {}

    def direct(self, reports: dict[int, EpochReport], left: Sequence[Left]) -> Orders:
        self._round += 1
        if self._round == self._die_in:
            raise KeyboardInterrupt
        for number, report in reports.items():
            self.epochs.setdefault(number, []).append(report)
        self.ended |= {gone.number: gone for gone in left}
        stop = {n for n, report in reports.items() if report.epoch == self._stop_at.get(n)}
        join = self._joins.pop(self._round, ())
        if not reports and not left and not join and self._joins:  # nobody is here: begin at once
            join = self._joins.pop(min(self._joins))
        return Orders(stop=frozenset(stop), join=tuple(join))


def alone(config: RunConfig, out: Path, stores: Stores = STORES, stop_at: int = 0) -> Outcome:
    return train(config, out, Recorder(stop_at=stop_at), device=CPU, stores=stores)


def untimed(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def same_run(mine: Outcome, its: Outcome) -> None:
    """Metrics, checkpoints and per-step terms are equal to 1e-5."""
    assert (mine.epoch, mine.step, mine.stopped) == (its.epoch, its.step, its.stopped)
    assert mine.best_epoch == its.best_epoch
    for row, expected in zip(untimed(mine.history), untimed(its.history), strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for name in ("last", "best"):
        ours, theirs = getattr(mine, name).resolve(), getattr(its, name).resolve()
        assert ours.name == theirs.name
        for file in ("model.safetensors", "training.safetensors"):
            left, right = load_file(ours / file), load_file(theirs / file)
            assert left.keys() == right.keys()
            for key in left:
                torch.testing.assert_close(left[key], right[key], rtol=1e-5, atol=1e-5, msg=key)
    for terms, expected_terms in zip(terms_of(mine), terms_of(its), strict=True):
        assert terms == pytest.approx(expected_terms, rel=1e-5, abs=1e-5)


def terms_of(outcome: Outcome) -> list[list[float]]:
    lines = (outcome.last.parent.parent / "steps.csv").read_text().split()[1:]
    return [[float(value) for value in line.split(",")] for line in lines]


@st.composite
def settings_of_a_member(draw: st.DrawFn) -> dict[str, Any]:
    implicit = draw(st.sampled_from([0.0, 0.5, 1.0]))
    admit_from = draw(st.floats(0.1, 0.6))
    warm_up, learning = draw(st.integers(0, 4)), draw(st.integers(1, 7))
    return {
        "seed": draw(st.integers(0, 99)),
        "model": {"dropout": draw(st.sampled_from([0.0, 0.2, 0.5]))},
        "loss": {
            "implicit": implicit,
            "explicit": draw(st.sampled_from([0.5, 2.0] if implicit == 0 else [0.0, 0.5])),
            "margin": draw(st.floats(1.0, 32.0)),
            "weight_ce": draw(st.sampled_from(["per_sample", "batch_mean"])),
        },
        "classifier": {"norm_bound": draw(st.sampled_from([None, 0.3, 2.0]))},
        "reweighting": {
            "schedule": draw(st.sampled_from(["none", "rank", "soft"])),
            "temperature": draw(st.floats(0.1, 5.0)),
            "decay": draw(st.sampled_from([0.0, 0.9])),
            "start_loss": draw(st.sampled_from([None, 14.0])),
            "every": draw(st.integers(1, 3)),
            "admit_from": admit_from,
            "admit_step": draw(st.floats(0.0, 0.3)),
            "admit_to": draw(st.floats(admit_from, 1.0)),
            "age_factor": draw(st.sampled_from([0.9, 1.0])),
            "scale": draw(st.sampled_from(["mean_one", "unit"])),
        },
        "optimizer": {
            "lr": draw(st.floats(0.001, 0.05)),
            "momentum": draw(st.sampled_from([0.0, 0.9])),
            "weight_decay": draw(st.sampled_from([0.0, 1e-2])),
            "drop": draw(st.sampled_from([0.1, 1.0])),
        },
        "training": {
            "stages": {
                "warm_up": warm_up,
                "weight_learning": learning,
                "retrain": draw(st.integers(0, 3)),
            }
        },
    }


@settings(max_examples=6)
@given(
    members=st.lists(settings_of_a_member(), min_size=2, max_size=3),
    hidden=st.sampled_from([None, 24]),
    joins=st.data(),
)
def test_every_member_is_its_run_alone(
    members: list[dict[str, Any]], hidden: int | None, joins: st.DataObject
) -> None:
    configs = []
    for changes in members:
        changes["model"]["head_hidden"] = hidden
        configs.append(feature_config(**changes))
    rounds = [joins.draw(st.integers(0, 2)) for _ in configs]
    stops = {
        n: joins.draw(st.integers(1, 3)) for n in range(len(configs)) if joins.draw(st.booleans())
    }
    with TemporaryDirectory() as folder:
        entries = [
            Entry(number=n, config=config, out=Path(folder) / f"pack-{n}")
            for n, config in enumerate(configs)
        ]
        script = Script(
            {r: [entries[n] for n in range(len(entries)) if rounds[n] == r] for r in set(rounds)},
            stops,
        )
        train_pack(script, device=CPU, stores=STORES)
        for n, config in enumerate(configs):
            expected = alone(config, Path(folder) / f"alone-{n}", stop_at=stops.get(n, 0))
            gone = script.ended[n]
            assert gone.outcome is not None, gone.error
            same_run(gone.outcome, expected)


def test_a_lost_process_costs_only_the_epochs_since_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [feature_config(seed=seed, optimizer={"lr": 0.01 * (seed + 1)}) for seed in range(3)]
    entries = [
        Entry(number=n, config=config, out=tmp_path / f"pack-{n}")
        for n, config in enumerate(configs)
    ]
    monkeypatch.setattr(member_module, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_pack(Script({0: entries}, die_in=2), device=CPU, stores=STORES)
    monkeypatch.setattr(member_module, "SAVE_SECONDS", 1e9)
    with pytest.raises(KeyboardInterrupt):  # trains another epoch, and does not write it
        train_pack(Script({0: entries}, die_in=2), device=CPU, stores=STORES)
    script = Script({0: entries})
    train_pack(script, device=CPU, stores=STORES)

    for n, config in enumerate(configs):
        assert [report.epoch for report in script.epochs[n]] == [2, 3, 4]
        outcome = script.ended[n].outcome
        assert outcome is not None
        same_run(outcome, alone(config, tmp_path / f"alone-{n}"))


def test_a_member_that_diverges_or_cannot_begin_fails_alone(tmp_path: Path) -> None:
    configs = {
        "well": feature_config(seed=1),
        "wild": feature_config(seed=2, optimizer={"lr": 1e30}, classifier={"norm_bound": None}),
        "unknown": feature_config(seed=3, evaluation={"select": "val/nothing"}),
        "damaged": feature_config(seed=4),
    }
    entries = [
        Entry(number=n, config=config, out=tmp_path / name)
        for n, (name, config) in enumerate(configs.items())
    ]
    last = tmp_path / "damaged" / "checkpoints" / "last"
    last.mkdir(parents=True)
    script = Script({0: entries})
    train_pack(script, device=CPU, stores=STORES)

    assert isinstance(script.ended[1].error, TrainingDiverged)
    with pytest.raises(TrainingDiverged) as solo:
        alone(configs["wild"], tmp_path / "alone-wild")
    assert str(script.ended[1].error).split(" (")[0] == str(solo.value).split(" (")[0]
    assert isinstance(script.ended[2].error, ConfigError)
    assert isinstance(script.ended[3].error, CheckpointError)
    outcome = script.ended[0].outcome
    assert outcome is not None
    same_run(outcome, alone(configs["well"], tmp_path / "alone"))


def test_what_may_differ_in_a_pack_and_what_may_not() -> None:
    one = feature_config(seed=1)
    other = feature_config(seed=2, loss={"margin": 2.0}, training={"stages": {"retrain": 0}})
    assert differences(one, other) == []
    assert why_not(one) is None
    wide = feature_config(model={"embedding_dim": 32}, training={"batch": 4})
    assert differences(one, wide) == ["model.embedding_dim", "training.batch"]
    assert "workers.count is 2" in str(why_not(feature_config(workers={"count": 2})))
    assert "bf16" in str(why_not(feature_config(training={"precision": "bf16"})))
    assert "corpus.features" in str(why_not(feature_config(corpus={"features": None})))
