"""The ledger of packed trials: a Tune trial is then a pack, and its members are the study's trials.

Every member is a trial of the sweep's own `Ledger`, under the pack's identifier and its number, so
asking, reports, pruning, times and retries are those of trials that run alone. Tune sees one trial
per pack that reports once per round; what the pack does next goes straight to its mailbox.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vfsearch.search.definition import SweepConfig
from vfsearch.search.ledger import Ledger
from vfsearch.search.mailbox import Order
from vfsearch.search.parameters import CategoricalParameter
from vfsearch.search.space import resolve
from vfsearch.training.pack.settings import MAY_DIFFER, why_not

PACKING = "vfsearch.search.pack_performer:TrainPack"
"""Who performs the order of a pack."""
ROUND = "pack"
"""Fact of a report under which a pack says what happened in a round."""
_ALWAYS = 1_000_000
"""A pack itself is begun again as often as it takes: its members count their own restarts."""


def why_alone(config: SweepConfig) -> str | None:
    """Why the trials of a sweep cannot train in packs; None if they can."""
    if config.seeds_per_trial > 1:
        return f"seeds_per_trial is {config.seeds_per_trial}"
    keys: set[str] = set()
    for name, parameter in config.parameters.items():
        bundles = parameter.bundles if isinstance(parameter, CategoricalParameter) else {}
        keys |= {key for bundle in bundles.values() for key in bundle} if bundles else {name}
    apart = sorted(
        key
        for key in keys
        if not any(key == may or key.startswith(f"{may}.") for may in MAY_DIFFER)
    )
    if apart:
        return f"{', '.join(apart)} cannot differ within a pack"
    return why_not(resolve(config, {}, 0))


def members(config: SweepConfig) -> int:
    """Trials of a sweep that train in one process."""
    return 1 if config.pack == 1 or why_alone(config) is not None else config.pack


@dataclass(kw_only=True)
class _Pack:
    orders: dict[int, Order] = field(default_factory=dict)
    """Of the members, by number."""
    retries: dict[int, int] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    """Members that the pack does not know yet."""


@dataclass(kw_only=True)
class PackBook:
    """Stands before a ledger; used by Tune's event loop alone."""

    ledger: Ledger
    size: int
    """Members of a pack."""
    slots: int
    """Packs at once."""
    max_retries: int
    """Restarts of a member after its pack was lost."""
    answer: Callable[[str, int, str], None]
    """Sends a text to the report with this ticket of a mailbox with this name."""
    _packs: dict[str, _Pack] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether no further pack will be given out."""
        return self.ledger.over

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._packs) >= self.slots

    @property
    def interrupted(self) -> bool:
        """Whether the sweep was interrupted."""
        return self.ledger.interrupted

    @property
    def error(self) -> BaseException | None:
        """What the study raised."""
        return self.ledger.error

    @error.setter
    def error(self, error: BaseException | None) -> None:
        self.ledger.error = error

    def interrupt(self) -> None:
        """Give out no more."""
        self.ledger.interrupt()

    def next(self, tune_id: str) -> dict[str, Any] | None:
        """Give out a pack with its first member; the others join when it begins."""
        pack = _Pack()
        config = self._take(tune_id, pack)
        if config is None:
            return None
        self._packs[tune_id] = pack
        first = next(iter(pack.orders.values()))
        order = replace(first, performer=PACKING, extra={"max_retries": _ALWAYS})
        return config | {"order": json.dumps(vars(order))}

    def result(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        """Book a round of a pack and tell it what to do; a pack ends by itself."""
        pack = self._packs[tune_id]
        told = json.loads(json.loads(result["facts"])[ROUND])
        if told["begins"]:
            self._begin_again(tune_id, pack)
        for gone in told["left"]:
            self._end(tune_id, pack, gone["number"], gone)
        stop = []
        for report in told["reports"]:
            number = report["number"]
            booked = {**report, "retries": pack.retries[number]}
            if self.ledger.result(_member(tune_id, number), booked):
                stop.append(number)
        while len(pack.orders) - len(stop) < self.size and not self.ledger.over:
            if self._take(tune_id, pack) is None:
                break
        join = [vars(pack.orders[number]) for number in pack.fresh]
        pack.fresh.clear()
        self.answer(result["mailbox"], result["ticket"], json.dumps({"stop": stop, "join": join}))
        return False

    def ended(self, tune_id: str, result: Mapping[str, Any] | None, *, lost: bool) -> None:
        """Book the end of a pack; members that it left behind have failed with it."""
        pack = self._packs.pop(tune_id, None)
        for number in list(pack.orders) if pack else []:
            self.ledger.ended(_member(tune_id, number), result, lost=lost)

    def _take(self, tune_id: str, pack: _Pack) -> dict[str, Any] | None:
        # The ledger names a trial by whoever asks for it: a name that can be told from its number.
        place = f"{tune_id}/next"
        config = self.ledger.next(place)
        if config is None:
            return None
        order = Order(**json.loads(config["order"]))
        self.ledger.rename(place, _member(tune_id, order.number))
        pack.orders[order.number] = order
        pack.retries[order.number] = 0
        pack.fresh.append(order.number)
        return config

    def _begin_again(self, tune_id: str, pack: _Pack) -> None:
        """Give a new process the members of the one before; each has used up one retry."""
        for number in [number for number in pack.orders if number not in pack.fresh]:
            pack.retries[number] += 1
            if pack.retries[number] <= self.max_retries:
                pack.fresh.append(number)
                continue
            times = f"its pack was lost {pack.retries[number]} times (workers.max_retries)"
            self._end(tune_id, pack, number, {"kind": "failed", "reason": times})

    def _end(self, tune_id: str, pack: _Pack, number: int, how: Mapping[str, Any]) -> None:
        if pack.orders.pop(number, None) is None:
            return
        booked = {**how, "retries": pack.retries.pop(number)}
        self.ledger.ended(_member(tune_id, number), booked, lost=False)


def _member(tune_id: str, number: int) -> str:
    return f"{tune_id}/{number}"
