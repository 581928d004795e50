"""What a running sweep shows: one line per trial that runs, one printed per trial that ended."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from vfsearch.cli.show import console, number, seconds

if TYPE_CHECKING:
    from vfsearch.search.definition import SweepConfig
    from vfsearch.search.records import Asked, Ended


class Screen:
    """A watcher of a sweep (see ``vfsearch.search.ledger.Watcher``)."""

    def __init__(self, config: "SweepConfig", live: Live) -> None:
        """Draw into ``live``; without a terminal only ended trials are printed."""
        self._config, self._live = config, live
        self._metric = config.objectives[0].metric
        self._sign = 1 if config.objectives[0].direction == "maximize" else -1
        self._running: dict[int, dict[str, object]] = {}
        self._started = time.monotonic()
        self._ended = 0
        self._best: tuple[float, int] | None = None
        self._draw()

    def started(self, asked: "Asked") -> None:
        """A trial begins or continues."""
        self._running[asked.number] = {
            "params": ", ".join(f"{key}={brief(value)}" for key, value in asked.params.items()),
            "epoch": asked.epoch,
            "value": None,
            "since": time.monotonic(),
        }
        self._draw()

    def epoch(self, number_: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has reported an epoch."""
        row = self._running.setdefault(number_, {"params": "", "since": time.monotonic()})
        value = metrics.get(self._metric)
        row |= {"epoch": epoch, "value": value}
        if value is not None and (self._best is None or self._sign * value > self._best[0]):
            self._best = (self._sign * value, number_)
        self._draw()

    def ended(self, ended: "Ended") -> None:
        """A trial has ended: print its line."""
        row = self._running.pop(ended.number, {})
        self._ended += 1
        value = ended.values[0] if ended.values else row.get("value")
        took = time.monotonic() - float(str(row.get("since", time.monotonic())))
        console.print(
            f"t{ended.number:03d}  {ended.state:<8}  {self._metric} "
            f"{number(value) if isinstance(value, float) else '-':>6}  "
            f"epoch {row.get('epoch', '-'):>3}  {seconds(took):>8}  {row.get('params', '')}"
            + (f"  ({ended.reason})" if ended.state == "FAIL" else ""),
            soft_wrap=True,
        )
        self._draw()

    def _draw(self) -> None:
        total = self._config.budget.trials
        best = (
            f", best {number(self._sign * self._best[0])} (t{self._best[1]:03d})"
            if self._best
            else ""
        )
        head = (
            f"sweep {self._config.name}: {self._ended}"
            + (f" of {total}" if total else "")
            + f" trials ended, {seconds(time.monotonic() - self._started)}{best}"
        )
        grid = Table.grid(padding=(0, 2))
        grid.add_row(head)
        for trial, row in sorted(self._running.items()):
            value = row.get("value")
            shown = number(value) if isinstance(value, float) else "starting"
            grid.add_row(f"  t{trial:03d} epoch {row.get('epoch', 0)}: {shown}   {row['params']}")
        self._live.update(grid)


@contextmanager
def screen(config: "SweepConfig") -> Iterator[Screen]:
    """Show a sweep while it runs."""
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield Screen(config, live)


def brief(value: object) -> str:
    """A parameter's value in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
