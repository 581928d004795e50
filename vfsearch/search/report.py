"""The report of a sweep: one self-contained page for people, from the study alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution

from vfsearch.evaluation import page
from vfsearch.search.analysis import objectives_of, sweep_of, trials_table
from vfsearch.search.charts import METHOD, chart_data
from vfsearch.search.comparable import check
from vfsearch.search.costs import hours_of, saving_of
from vfsearch.search.definition import SweepConfig
from vfsearch.search.replay import replay_all
from vfsearch.search.report_tables import (
    Price,
    board,
    cost_table,
    headline,
    replay_table,
    trial_table,
)


@dataclass(frozen=True, kw_only=True)
class ReportExtras:
    """What a report shows that the study does not hold."""

    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """95 % interval by trial, where there is a better one than the trial's own."""
    verdict: str = ""
    """What the comparison of the finalists says ('not distinguishable' included)."""
    gpus_per_trial: float | None = None
    """GPUs that one trial holds, 0: it ran on CPUs; None: as the trials noted."""
    dollars_per_gpu_hour: float | None = None
    """Price; None: the budget's of the sweep."""
    wall_seconds: float | None = None
    """Wall time over all drivers; None: from the first start to the last end."""


def write_report(study: optuna.Study, out: Path, extras: ReportExtras | None = None) -> Path:
    """Write the page of a sweep; also for studies that vfsearch did not make, or without trials.

    Args:
        study: The sweep's study; only read.
        out: The HTML file.
        extras: What else is known.

    Raises:
        UsageError: the file cannot be written.
        IncomparableError: its trials were not measured alike.
    """
    check(study)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per replayed decision otherwise
    extras = extras or ReportExtras()
    config, objectives = sweep_of(study), objectives_of(study)
    rows, distributions = trials_table(study), _distributions(study)
    hours, saving = hours_of(rows), saving_of(rows)
    dollars = extras.dollars_per_gpu_hour
    if dollars is None and config is not None:
        dollars = config.budget.dollars_per_gpu_hour
    gpus = extras.gpus_per_trial
    if gpus is None:
        gpus = max((row.gpus for row in rows), default=0.0)
    price = Price(gpus=gpus, dollars=dollars)
    names = list(distributions)
    own = {row.number: row.interval for row in rows if row.interval is not None}
    intervals = own | dict(extras.intervals)
    replays = replay_all(rows, config, objectives[0].direction)
    text = page.render(
        "report.html",
        package="vfsearch.search.page",
        styles=["report.css"],
        scripts=["core.js", "progress.js", "parallel.js", "space.js"],
        title=f"Sweep {study.study_name}",
        description=config.description if config is not None else "",
        method=_method(config),
        objectives=objectives,
        tiles=headline(rows, objectives[0], intervals, hours, saving, price, extras.wall_seconds),
        board=board(rows, objectives, names, intervals),
        verdict=extras.verdict,
        trials=trial_table(rows, objectives, names),
        saving=saving,
        price=price,
        hours=hours,
        costs=cost_table(hours, price),
        replays=replay_table(rows, objectives[0], replays, saving, price),
        retries=sum(row.restarts for row in rows),
        data=chart_data(rows, objectives, distributions),
    )
    return page.write(out, text)


def _distributions(study: optuna.Study) -> dict[str, BaseDistribution]:
    """Every parameter of the study, the method's first, with its (widest known) distribution."""
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    first = [name for name in METHOD if name in found]
    return {name: found[name] for name in (*first, *(n for n in found if n not in first))}


def _method(config: SweepConfig | None) -> str:
    if config is None:
        return ""
    stop = "no early stopping" if config.pruner.name == "none" else f"{config.pruner.name} stops"
    count = len(config.parameters)
    return f"{count} parameters, {config.sampler.name} proposes, {stop}"
