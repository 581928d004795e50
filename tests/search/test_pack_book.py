"""Sweeps of packs against the same sweeps of single trials: one study, one truth (no Ray here)."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.feature_case import feature_config, feature_stores
from support.sweeps import sweep
from support.tiny_run import Recorder

from vfsearch.config import RunConfig
from vfsearch.search.definition import SweepConfig
from vfsearch.search.ledger import Ledger
from vfsearch.search.mailbox import Order
from vfsearch.search.pack_book import ROUND, PackBook, members, why_alone
from vfsearch.search.pack_performer import SweepDirector
from vfsearch.search.records import Asked
from vfsearch.search.run_record import RunRecord
from vfsearch.search.study import open_study
from vfsearch.training.loop import train
from vfsearch.training.pack import member
from vfsearch.training.pack.loop import train_pack

CPU = torch.device("cpu")
STORES = feature_stores()
METRIC = "val/match_v2f_1to2"


class Silent:
    def started(self, asked: Asked) -> None: ...

    def epoch(self, number: int, epoch: int, metrics: Any) -> None: ...

    def ended(self, ended: Any) -> None: ...


class LostError(Exception):
    """The process of the pack is gone."""


def packed(**changes: Any) -> SweepConfig:
    settings: dict[str, Any] = {
        "base": feature_config().model_dump(mode="json"),
        "parameters": {
            "loss.margin": {"type": "float", "low": 1.0, "high": 16.0, "log": True},
            "optimizer.lr": {"type": "float", "low": 0.01, "high": 0.1, "log": True},
        },
        "pruner": {"name": "median", "startup_trials": 2, "grace": 2},
        "budget": {"trials": 7},
        "pack": 3,
    }
    return sweep(**{**settings, **changes})


@contextmanager
def book(config: SweepConfig, out: Path, *, resume: bool = False) -> Iterator[tuple[PackBook, Any]]:
    def dispatch(asked: Asked) -> dict[str, Any]:
        order = Order(
            number=asked.number,
            config=asked.config.model_dump(mode="json"),
            out=str(out / str(asked.number)),
            extra={},
        )
        return {"order": json.dumps(asdict(order)), "shape": "", "storage": ""}

    answers: list[str] = []
    with open_study(config, create=not resume, resume=resume) as study:
        ledger = Ledger(
            study=study,
            slots=1,
            gpus=0.0,
            dispatch=dispatch,
            facts=lambda _: {},
            watcher=Silent(),
        )
        made = PackBook(
            ledger=ledger,
            size=members(config),
            slots=1,
            max_retries=1,
            answer=lambda _mailbox, _ticket, text: answers.append(text),
        )

        def reply(_epoch: int, _metrics: Any, facts: dict[str, str]) -> str:
            made.result("tune", {"facts": json.dumps(facts), "ticket": 0, "mailbox": ""})
            return answers.pop()

        yield made, reply


def process(reply: Any, die_in: int | None = None) -> None:
    """One life of the pack's process."""
    rounds = 0

    def mortal(epoch: int, metrics: Any, facts: dict[str, str]) -> str:
        nonlocal rounds
        rounds += 1
        if rounds == die_in:
            raise LostError
        answer: str = reply(epoch, metrics, facts)
        return answer

    records: dict[int, RunRecord] = {}
    with ThreadPoolExecutor(1) as later:
        train_pack(SweepDirector(mortal, STORES, records, later), device=CPU, stores=STORES)


def trials(made: PackBook) -> list[Any]:
    return made.ledger.study.study.get_trials(deepcopy=False)


def as_alone(made: PackBook, out: Path) -> None:
    """Every trial that ended has the values of its run alone, and the files."""
    for trial in trials(made):
        config = RunConfig.model_validate_json(
            json.dumps(made.ledger.study._asked(trial).config.model_dump(mode="json"))
        )
        stop = trial.last_step if trial.state.name == "PRUNED" else 0
        expected = train(
            config, out / f"alone-{trial.number}", Recorder(stop_at=stop), device=CPU, stores=STORES
        )
        curve = [row[METRIC] for row in expected.history]
        assert list(trial.intermediate_values.values()) == pytest.approx(curve, abs=1e-5)
        folder = out / str(trial.number)
        assert (folder / "checkpoints" / "best").resolve().name == expected.best.resolve().name
        assert {path.name for path in folder.iterdir()} >= {
            "checkpoints",
            "config.yaml",
            "metrics.json",
            "ranks.parquet",
            "run.png",
            "steps.csv",
        }


def test_a_sweep_of_packs_leaves_the_study_of_single_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFSEARCH_HOME", str(tmp_path / "home"))
    with book(packed(), tmp_path) as (made, reply):
        assert made.next("tune") is not None
        assert made.full
        process(reply)
        made.ended("tune", {"kind": "completed"}, lost=False)
        assert not made.full
        assert made.over
        states = [trial.state.name for trial in trials(made)]
        assert len(states) == 7
        assert set(states) == {"COMPLETE", "PRUNED"}
        as_alone(made, tmp_path)


def test_a_lost_pack_costs_every_member_one_retry_and_a_lost_driver_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How many epochs a lost process had saved must not depend on the machine's speed.
    monkeypatch.setattr(member, "SAVE_SECONDS", math.inf)
    monkeypatch.setenv("VFSEARCH_HOME", str(tmp_path / "home"))
    config = packed(pruner={"name": "none"}, budget={"trials": 4})
    with book(config, tmp_path) as (made, reply):
        made.next("tune")
        with pytest.raises(LostError):
            process(reply, die_in=4)  # between two epochs of three members
        with pytest.raises(LostError):
            process(reply, die_in=2)
        # The driver is gone here: nobody told the study that anything ended.
    with book(config, tmp_path, resume=True) as (made, reply):
        made.next("tune")
        process(reply)
        assert [trial.state.name for trial in trials(made)] == ["COMPLETE"] * 4
        as_alone(made, tmp_path)

    config = packed(name="often", pruner={"name": "none"}, budget={"trials": 2})
    with book(config, tmp_path / "often") as (made, reply):
        made.next("tune")
        for _ in range(2):
            with pytest.raises(LostError):
                process(reply, die_in=2)
        process(reply)
        ended = trials(made)
        assert [trial.state.name for trial in ended] == ["FAIL", "FAIL"]
        assert "lost 2 times" in ended[0].user_attrs["reason"]


def test_a_diverged_member_fails_alone_and_a_failed_pack_fails_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFSEARCH_HOME", str(tmp_path / "home"))
    config = packed(
        base=feature_config(classifier={"norm_bound": None}).model_dump(mode="json"),
        parameters={"optimizer.lr": {"type": "categorical", "choices": [0.01, 1e30]}},
        sampler={"name": "grid", "seed": 0},
        pruner={"name": "none"},
    )
    with book(config, tmp_path) as (made, reply):
        made.next("tune")
        process(reply)
        found = {trial.params["optimizer.lr"]: trial for trial in trials(made)}
        assert found[0.01].state.name == "COMPLETE"
        assert found[1e30].state.name == "FAIL"
        assert "TrainingDiverged" in found[1e30].user_attrs["reason"]

    with book(packed(name="failed", budget={"trials": 2}), tmp_path / "f") as (made, reply):
        made.next("tune")
        reply(1, {}, {ROUND: json.dumps({"begins": True, "left": [], "reports": []})})
        made.ended("tune", {"kind": "failed", "reason": "OSError: disk full"}, lost=False)
        assert [trial.user_attrs["reason"] for trial in trials(made)] == ["OSError: disk full"] * 2


def test_sweeps_that_cannot_be_packed_say_why() -> None:
    assert members(packed()) == 3
    assert members(packed(pack=1)) == 1
    wide = packed(parameters={"model.embedding_dim": {"type": "int", "low": 8, "high": 16}})
    assert "model.embedding_dim cannot differ" in str(why_alone(wide))
    assert members(wide) == 1
    assert "seeds_per_trial" in str(why_alone(packed(seeds_per_trial=2)))
    fixed = packed(fixed={"workers.count": 2})
    assert "workers.count is 2" in str(why_alone(fixed))
