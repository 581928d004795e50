"""The shipped policy on models that learned more or less: the way from files to champion."""

from pathlib import Path

import pytest
import torch
from support.registry_models import Models, run_config, upload_run

from vfsearch.config import CorpusConfig, StagesConfig
from vfsearch.registry.policy import load_policy
from vfsearch.registry.promotion import promote
from vfsearch.registry.versions import find_registry, open_registry
from vfsearch.tracking.connection import Connection
from vfsearch.training.loop import EpochReport, train

SHIPPED = Path(__file__).parents[2] / "tracking" / "promotion.yaml"


class GoOn:
    """Lets every run end."""

    def report(self, report: EpochReport) -> bool:
        return True


def trained(corpus: CorpusConfig, out: Path, steps: int) -> Path:
    config = run_config(corpus)
    stages = StagesConfig(warm_up=steps, weight_learning=0, learning_milestones=())
    config = config.model_copy(
        update={
            "loss": config.loss.model_copy(update={"implicit": 0.0, "margin": 1.0}),
            "optimizer": config.optimizer.model_copy(update={"lr": 0.05}),
            "training": config.training.model_copy(
                update={"augment": False, "stages": stages, "epoch_steps": steps}
            ),
        }
    )
    return train(config, out, GoOn(), device=torch.device("cpu")).best.resolve()


@pytest.mark.slow
def test_the_shipped_policy_promotes_what_has_learned_and_nothing_else(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, tmp_path: Path, name: str
) -> None:
    policy = load_policy(SHIPPED)
    ignorant = promote(connection, models.run(connection, 1), tiny_corpus, policy, model_name=name)
    assert ignorant.outcome == "refused"
    registry = find_registry(connection, name)
    assert registry is not None
    assert registry.records() == ()
    assert ignorant.decision is not None
    assert {reason.rule for reason in ignorant.decision.failed} == {"minimum"}

    able = upload_run(connection, trained(tiny_corpus, tmp_path / "able", 120))
    made = promote(connection, able, tiny_corpus, policy, model_name=name)
    assert made.outcome == "promoted"
    assert made.evidence is not None
    for metric in ("match_v2f_1to2", "match_f2v_1to2"):
        figure = made.evidence.candidate.figures[metric]
        assert figure.chance == 0.5
        assert 0.5 < figure.low < figure.value <= figure.high <= 1

    hasty = upload_run(connection, trained(tiny_corpus, tmp_path / "hasty", 20))
    worse = promote(connection, hasty, tiny_corpus, policy, model_name=name)
    assert worse.outcome in ("refused", "challenger")
    assert worse.evidence is not None
    assert worse.evidence.differences["match_v2f_1to2"].value < 0
    registry = open_registry(connection, name, create=False)
    champion = registry.by_alias("champion")
    assert champion is not None
    assert champion.version == made.version
