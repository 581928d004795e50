"""A sweep's figures in Prometheus' format, beside Ray's own on the head node's metrics port.

Ray prefixes the names: ``ray_vfsearch_trials{sweep="paper",state="complete"} 12``.
"""

from collections import Counter
from collections.abc import Mapping

from vfsearch.search.ledger import Watcher
from vfsearch.search.records import Asked, Ended
from vfsearch.search.resources import Packing


class Gauges:
    """Counts what happens in this driver's part of a sweep (a `Watcher` before another)."""

    def __init__(self, sweep: str, metric: str, packed: Packing, watcher: Watcher) -> None:
        """Make the gauges; Ray is connected."""
        from ray.util import metrics

        self._watcher, self._metric, self._packed = watcher, metric, packed
        self._states: Counter[str] = Counter()
        tags = ("sweep", "state")
        self._trials = metrics.Gauge("vfsearch_trials", "Trials by state.", tag_keys=tags)
        self._epochs = metrics.Counter("vfsearch_epochs", "Epochs reported.", tag_keys=("sweep",))
        self._last = metrics.Gauge(
            "vfsearch_objective",
            "First objective at the last epoch of a running trial.",
            tag_keys=("sweep", "trial"),
        )
        self._busy = metrics.Gauge(
            "vfsearch_gpus_busy", "GPUs that trials hold.", tag_keys=("sweep",)
        )
        for each in (self._trials, self._epochs, self._last, self._busy):
            each.set_default_tags({"sweep": sweep})

    def started(self, asked: Asked) -> None:
        """One more runs."""
        self._count("running", +1)
        self._watcher.started(asked)

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """One more epoch."""
        self._epochs.inc()
        if self._metric in metrics:
            self._last.set(metrics[self._metric], tags={"trial": f"t{number:03d}"})
        self._watcher.epoch(number, epoch, metrics)

    def ended(self, ended: Ended) -> None:
        """One less runs."""
        self._count("running", -1)
        self._count(ended.state.lower(), +1)
        self._watcher.ended(ended)

    def _count(self, state: str, change: int) -> None:
        # A trial that an earlier driver left and that ends at once was never started here.
        self._states[state] = max(self._states[state] + change, 0)
        self._trials.set(self._states[state], tags={"state": state})
        self._busy.set(self._states["running"] * self._packed.gpus_per_trial)
