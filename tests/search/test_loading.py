"""Sweep files: every problem at once, each with its line."""

from pathlib import Path

import pytest

from vfsearch.errors import ConfigError
from vfsearch.search.loading import load_sweep

GOOD = """\
name: small
base:
  corpus: {root: corpus}
parameters:
  loss.margin: {type: float, low: 1.0, high: 8.0}
  optimizer.lr: {type: float, low: 1e-3, high: 1e-1, log: true}
objectives: [{metric: val/match_v2f_1to2, direction: maximize}]
budget: {trials: 4}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, overrides)
    return [problem.replace(str(path), "x.yaml") for problem in caught.value.problems]


def test_a_good_file_loads_and_defaults_are_in_place(tmp_path: Path) -> None:
    config = load_sweep(write(tmp_path, GOOD))
    assert config.sampler.name == "tpe"
    assert config.pruner.name == "none"
    assert config.base.evaluation.select == "val/match_v2f_1to2"


def test_the_first_objective_selects_checkpoints_unless_the_base_does(tmp_path: Path) -> None:
    text = GOOD.replace("val/match_v2f_1to2", "val/auc_v2f")
    assert load_sweep(write(tmp_path, text)).base.evaluation.select == "val/auc_v2f"
    given = text.replace("base:\n", "base:\n  evaluation: {select: val/map_v2f}\n")
    assert load_sweep(write(tmp_path, given)).base.evaluation.select == "val/map_v2f"


def test_a_wrong_range_is_said_in_one_sentence(tmp_path: Path) -> None:
    text = GOOD.replace("low: 1.0, high: 8.0", "low: 8.0, high: 1.0")
    assert problems(tmp_path, text) == [
        "x.yaml:5: low < high must hold, but loss.margin has low=8.0, high=1.0"
    ]


def test_every_problem_of_the_file_comes_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
name: bad name!
base:
  corpus: {root: corpus}
  loss: {marjin: 3}
fixed:
  optimizer.momentun: 0.5
  training.batch: many
parameters:
  loss.margn: {type: float, low: 1.0, high: 8.0}
  optimizer.lr: {type: float, low: 0.0, high: 0.1, log: true}
  loss.explicit: {type: real, low: 0, high: 1}
  model.dropout: {type: float, low: 0.0, high: 1.5}
  reweighting.temperature: {type: float, low: 1, high: 2, when: {reweighting.shedule: soft}}
constraints:
  - loss.explicit < 3
objectives:
  - {metric: val/match_v2f_1to2, direction: up}
sampler: {name: tpee}
pruner: {name: asha, reduction_factor: 1}
budget: {dollars: 5}
storage: mysql://host/db
surprise: 1
"""
    found = problems(tmp_path, text)
    for line, part in [
        (1, "name"),
        (4, "marjin"),
        (6, "optimizer.momentun is no setting of a run (did you mean optimizer.momentum?)"),
        (9, "loss.margn is no setting of a run (did you mean loss.margin?)"),
        (10, "0 < low must hold on a logarithmic scale, but optimizer.lr has low=0.0"),
        (11, "type must be float, int or categorical"),
        (13, "reweighting.shedule, which is no other parameter"),
        (15, "use <= or >="),
        (17, "direction"),
        (18, "sampler"),
        (19, "reduction_factor"),
        (20, "dollars=5.0 needs dollars_per_gpu_hour"),
        (21, "storage must be a URL"),
        (22, "surprise"),
    ]:
        assert any(f"x.yaml:{line}" in text and part in text for text in found), (line, part, found)


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        (
            "low: 1.0, high: 8.0",
            "low: 0.5, high: 8.0",
            5,
            "loss.margin reaches 0.5: input should be greater",
        ),
        ("trials: 4", "wall_time: soon", 8, "must be a duration like"),
        ("trials: 4", "improvement_after: 3", 8, "one of trials, wall_time, gpu_hours or dollars"),
        ("name: small", "name: small\nconstraints: [loss.margim <= 3]", 2, "did you mean loss.mar"),
        ("name: small", "name: small\nconstraints: [corpus.root <= 3]", 2, "only numbers"),
        ("name: small", "name: small\nconstraints: [loss.margin >= 9]", 2, "random points"),
        ("name: small", "name: small\nstart: [{loss.margin: 9.0}]", 2, "outside of loss.margin"),
        ("name: small", "name: small\nstart: [{loss.lr: 9.0}]", 2, "loss.lr is no parameter"),
        ("name: small", "name: small\nfixed: {loss.margin: 2.0}", 2, "cannot be fixed"),
        ("name: small", "name: small\nfixed: {training.batch: 1}", 2, "training.batch: 1 is wrong"),
        ("name: small", "name: small\nwarm_start: [{study: a}]", 2, "study and url"),
        ("name: small", "name: small\nwarm_start: [{sweep: a, mlflow: b}]", 2, "exactly one of"),
        ("high: 8.0}", "high: 8.0, step: 3.0}", 5, "high - low must be a multiple of step"),
        ("high: 8.0}", "high: .inf}", 5, "high"),
        ("loss.margin:", "seed:", 5, "set by the sweep itself"),
        (
            "name: small",
            "name: small\npruner: {name: hyperband, max_resource: 1, grace: 2}",
            2,
            "grace <= max_resource",
        ),
    ],
)
def test_one_problem_one_message(tmp_path: Path, old: str, new: str, line: int, part: str) -> None:
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert f"x.yaml:{line}" in found[0]
    assert part in found[0]


def test_a_parameter_of_the_wrong_kind_is_told_for_each_end(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace("loss.margin:", "corpus.root:"))
    assert [text.split(": ")[1] for text in found] == [
        "corpus.root reaches 1.0",
        "corpus.root reaches 8.0",
    ]


def test_conditions_in_a_circle_are_found(tmp_path: Path) -> None:
    text = GOOD.replace(
        "  loss.margin: {type: float, low: 1.0, high: 8.0}\n",
        "  model.face.encoder: {type: categorical, choices: [ir50, small], "
        "when: {model.voice.encoder: small}}\n"
        "  model.voice.encoder: {type: categorical, choices: [thin_resnet34, small], "
        "when: {model.face.encoder: small}}\n",
    )
    found = problems(tmp_path, text)
    assert len(found) == 2
    assert all("depends on itself" in text for text in found)


def test_bundles_are_checked_as_wholes(tmp_path: Path) -> None:
    bundle = (
        "  alignment: {type: categorical, choices: "
        "{none: {loss.implicit: 0.0, loss.explicit: 0.0}, odd: {loss.implicid: 1.0}}}\n"
    )
    found = problems(tmp_path, GOOD.replace("parameters:\n", f"parameters:\n{bundle}"))
    assert len(found) == 1
    assert "loss.implicid is no setting of a run (did you mean loss.implicit?)" in found[0]
    good = bundle.replace("implicid", "implicit")
    found = problems(tmp_path, GOOD.replace("parameters:\n", f"parameters:\n{good}"))
    assert len(found) == 1
    assert "alignment=none" in found[0]
    assert "at least one must be positive" in found[0]


def test_a_choice_that_is_no_scalar_asks_for_a_name(tmp_path: Path) -> None:
    text = GOOD.replace(
        "  loss.margin: {type: float, low: 1.0, high: 8.0}",
        "  training.audio_seconds: {type: categorical, choices: [[2.0, 3.0], [4.0, 5.0]]}",
    )
    found = problems(tmp_path, text)
    assert len(found) == 2
    assert all("x.yaml:5" in problem and "needs a name" in problem for problem in found)


def test_a_base_file_is_read_relative_to_the_sweep_and_checked_with_its_own_lines(
    tmp_path: Path,
) -> None:
    (tmp_path / "run.yaml").write_text("corpus: {root: there}\nloss:\n  margin: 2.5\n")
    text = GOOD.replace("base:\n  corpus: {root: corpus}\n", "config: run.yaml\n").replace(
        "loss.margin:", "classifier.norm_bound:"
    )
    config = load_sweep(write(tmp_path, text))
    assert (str(config.base.corpus.root), config.base.loss.margin) == ("there", 2.5)
    (tmp_path / "run.yaml").write_text("corpus: {root: there}\nloss:\n  margin: 0.5\n")
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert "run.yaml:3" in found[0]
    assert "missing.yaml" in problems(tmp_path, text.replace("run.yaml", "missing.yaml"))[0]


def test_overrides_reach_base_sweep_and_parameters(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    config = load_sweep(
        path,
        ["corpus.root=/data", "budget.trials=40", "parameters.loss.margin.high=16", "name=other"],
    )
    assert str(config.base.corpus.root) == "/data"
    assert config.budget.trials == 40
    assert config.parameters["loss.margin"].ends == (1.0, 16.0)
    assert config.name == "other"
    found = problems(tmp_path, GOOD, "loss.margin=3", "nonsense", "loss.marjin=3")
    assert len(found) == 3
    assert any("loss.margin is searched" in problem for problem in found)
    assert any("KEY=VALUE" in problem for problem in found)
    assert any("marjin" in problem for problem in found)


def test_cmaes_with_two_objectives_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace(
        "direction: maximize}]", "direction: maximize}, {metric: val/eer_v2f, direction: minimize}]"
    )
    found = problems(tmp_path, text + "sampler: {name: cmaes}\n")
    assert len(found) == 1
    assert "cmaes optimises one objective" in found[0]


def test_a_grid_too_large_is_refused_before_it_is_built(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + "sampler: {name: grid, points: 1000}\n")
    assert len(found) == 1
    assert "a grid of 1000000 points" in found[0]


def test_problems_come_in_the_order_of_the_lines_and_wrong_entries_hide_no_others(
    tmp_path: Path,
) -> None:
    text = """\
name: small
base:
  corpus: {root: corpus}
parameters:
  loss.margin: {type: float, low: 8.0, high: 1.0}
  reweighting.temperature: {type: float, low: -1, high: 1, log: true, when: {loss.margn: 3}}
  model.face.encoder: {type: categorical, choices: [ir50, resnet]}
  model.dropout: {type: float, low: 0.0, high: 0.5, when: {loss.margin: 2.0}}
constraints:
  - classifier.norm_bound < 50
  - time/evaluation <= 60
start:
  - {loss.margin: 99, optimizer.lrr: 1}
sampler:
  name: tpee
pruner:
  name: asha
  graze: 3
objectives:
  - metric: val/match_v2f_1to3
    direction: maximise
budget: {trials: 4}
"""
    found = problems(tmp_path, text)
    assert found == [
        "x.yaml:5: low < high must hold, but loss.margin has low=8.0, high=1.0",
        "x.yaml:6: 0 < low must hold on a logarithmic scale, but reweighting.temperature has "
        "low=-1.0",
        "x.yaml:6: reweighting.temperature depends on loss.margn, which is no other parameter "
        "(did you mean loss.margin?)",
        "x.yaml:7: model.face.encoder reaches 'resnet': input should be 'ir50', 'ir_se50', "
        "'small', 'statistics' or 'discriminants'",
        "x.yaml:10: constraints.0: 'classifier.norm_bound < 50': '< 50' cannot be read "
        "(use <= or >=)",
        "x.yaml:11: time/evaluation is neither a setting nor a metric (like "
        "time/evaluation_seconds) (did you mean time/evaluation_seconds?)",
        "x.yaml:13: optimizer.lrr is no parameter",
        "x.yaml:15: sampler.name: 'tpee' is wrong, it should be one of tpe, gp, cmaes, nsga2, "
        "random, grid, qmc",
        "x.yaml:18: pruner.graze: is no setting; see the reference in docs/configuration.md",
        "x.yaml:20: val/match_v2f_1to3 is no metric of base.evaluation (did you mean "
        "val/match_v2f_1to5?)",
        "x.yaml:21: objectives.0.direction: 'maximise' is wrong, it should be 'maximize' or "
        "'minimize'",
    ]


def test_a_metric_that_no_epoch_has_is_refused_before_a_trial_pays_for_it(tmp_path: Path) -> None:
    for metric, hint in [
        ("val/match_v2f_1to3", "val/match_v2f_1to"),
        ("val/auc_v2f_GN", "val/auc_v2f_G"),
        ("auc_v2f", "val/auc_v2f"),
    ]:
        found = problems(tmp_path, GOOD.replace("val/match_v2f_1to2", metric))
        assert len(found) == 1
        assert f"x.yaml:7: {metric} is no metric" in found[0]
        assert f"did you mean {hint}" in found[0]
    target = "budget: {trials: 4, target: {metric: val/map_v2v, value: 1}}"
    found = problems(tmp_path, GOOD.replace("budget: {trials: 4}", target))
    assert len(found) == 1
    assert "x.yaml:8: val/map_v2v is no metric" in found[0]
