"""The chain of records, on an in-memory bucket; the real one is in test_promotion.py."""

from dataclasses import replace

import pytest

from vfsearch.errors import PromotionRefused, TrackingError
from vfsearch.registry.history import Chain, Record, line


class Memory:
    """A bucket with conditional creation."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lose_answer = False

    def create(self, key: str, body: bytes) -> bool:
        if key in self.objects:
            return False
        self.objects[key] = body
        return not self.lose_answer

    def read(self, key: str) -> bytes:
        return self.objects[key]

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))


def record(serial: int, version: str, event: str = "promoted") -> Record:
    return Record(
        serial=serial,
        event=event,  # type: ignore[arg-type]
        version=version,
        previous=None,
        run_id=f"run{version}",
        dataset="d",
        by="someone",
        at="2026-01-01T00:00:00+00:00",
        why="better",
        decision=None,
    )


def test_records_come_back_in_order() -> None:
    chain = Chain(Memory(), "vfsearch")
    assert chain.load() == ()
    made = tuple(record(serial, str(serial)) for serial in range(1, 13))
    for one in made:
        chain.append(one)
    assert chain.load() == made


def test_second_of_two_rivals_is_told_who_won() -> None:
    chain = Chain(Memory(), "vfsearch")
    chain.append(record(1, "4"))
    with pytest.raises(PromotionRefused, match=r"version 4 \(run run4\) was promoted by someone"):
        chain.append(record(1, "5"))
    assert [one.version for one in chain.load()] == ["4"]


def test_a_lost_answer_to_the_own_write_is_no_defeat() -> None:
    memory = Memory()
    memory.lose_answer = True
    chain = Chain(memory, "vfsearch")
    chain.append(record(1, "4"))
    assert [one.version for one in chain.load()] == ["4"]


def test_rolling_back_walks_down_the_line() -> None:
    one, two, three = record(1, "1"), record(2, "2"), record(3, "3")
    back = record(4, "2", "rolled back")
    assert line([one, two, three, back]) == (one, two)
    assert line([one, two, three, back, record(5, "1", "rolled back")]) == (one,)
    again = record(5, "3")
    assert line([one, two, three, back, again]) == (one, two, again)


def test_a_damaged_chain_is_refused() -> None:
    memory = Memory()
    chain = Chain(memory, "vfsearch")
    chain.append(record(1, "1"))
    chain.append(record(2, "2"))
    memory.objects["registry/vfsearch/history/000002.json"] = b"{}"
    with pytest.raises(TrackingError, match=r"000002\.json is no promotion record"):
        chain.load()
    del memory.objects["registry/vfsearch/history/000001.json"]
    with pytest.raises(TrackingError, match=r"000002\.json where .*000001\.json must be"):
        chain.load()


def test_models_of_other_names_do_not_meet() -> None:
    memory = Memory()
    Chain(memory, "vfsearch").append(record(1, "1"))
    assert Chain(memory, "vfsearch2").load() == ()
    Chain(memory, "vfsearch2").append(replace(record(1, "9"), run_id="x"))
    assert [one.version for one in Chain(memory, "vfsearch").load()] == ["1"]
