"""The record of a run on disk: complete after a restart too, and no business of the next run's."""

from dataclasses import replace
from pathlib import Path

import torch
from support.tiny_run import Recorder, tiny_config, tiny_stores

from vfsearch.search.run_record import RunRecord
from vfsearch.training.loop import train


def test_what_is_done_beside_the_next_run_draws_no_random_numbers(tmp_path: Path) -> None:
    """Its dropout draws from the generator of the whole process."""
    config, out, reports = tiny_config(), tmp_path / "out", Recorder()
    outcome = train(config, out, reports, device=torch.device("cpu"), stores=tiny_stores())
    record = RunRecord(config, out, None, seeds=[config.seed], workers=[], world=1)
    # As after a restart behind the best epoch: nobody has kept what that one embedded.
    record.epoch(replace(reports.reports[-1], best=False))
    record.ended(outcome)
    before = torch.get_rng_state()
    record.complete(outcome, 1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert (out / "ranks.parquet").stat().st_size > 0
    assert (out / "run.png").stat().st_size > 0
