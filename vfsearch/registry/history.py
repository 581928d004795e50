"""Who was champion, when and why: a chain of numbered records in the bucket.

MLflow moves an alias without asking what it was, so two promotions at the same time would both
succeed there. Here a promotion *is* the creation of the next record, with a conditional PUT that
only one of two rivals can win; the alias in MLflow follows the chain and never leads it. There is
no lock that could be left behind, and no clock that has to be right.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from vfsearch.errors import PromotionRefused, TrackingError

Event = Literal["promoted", "rolled back"]


class Records(Protocol):
    """The bucket, as far as the chain needs it."""

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that does not exist yet; ``False`` if it does."""

    def read(self, key: str) -> bytes:
        """The object's bytes."""

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so, sorted."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One change of the champion."""

    serial: int
    event: Event
    version: str
    """Registry version that is champion from here on."""
    previous: str | None
    """The one before, if any."""
    run_id: str
    dataset: str | None
    """Test split and query lists on which it was promoted."""
    by: str
    at: str
    """UTC, ISO 8601."""
    why: str
    decision: str | None
    """Key of the decision with every number and reason."""


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Chain:
    """The records of one registered model."""

    records: Records
    name: str

    def load(self) -> tuple[Record, ...]:
        """All records, oldest first.

        Raises:
            TrackingError: one is missing or malformed.
        """
        found = []
        for serial, key in enumerate(self.records.keys(self._folder()), start=1):
            if key != self._key(serial):
                raise TrackingError(
                    f"the promotion history of {self.name} has {key} where {self._key(serial)} "
                    "must be; restore the bucket from its backup"
                )
            found.append(self._parse(key, self.records.read(key)))
        return tuple(found)

    def append(self, record: Record) -> None:
        """Make the record the newest one, if nobody else made one of that number.

        Raises:
            PromotionRefused: somebody else did; the message says who, and what is champion now.
        """
        key = self._key(record.serial)
        body = json.dumps(asdict(record), indent=1).encode()
        if self.records.create(key, body):
            return
        winner = self._parse(key, self.records.read(key))
        if winner == record:
            return  # our own write, of which the answer was lost
        raise PromotionRefused(
            f"another promotion won while this one was evaluating: {self.name} version "
            f"{winner.version} (run {winner.run_id}) was {winner.event} by {winner.by} at "
            f"{winner.at}; nothing was changed here, promote again to compare with it"
        )

    def _parse(self, key: str, body: bytes) -> Record:
        try:
            return _RECORD.validate_json(body)
        except ValidationError as error:
            raise TrackingError(
                f"{key} is no promotion record: {error.errors()[0]['msg']}; "
                "restore the bucket from its backup"
            ) from None

    def _folder(self) -> str:
        return f"registry/{self.name}/history/"

    def _key(self, serial: int) -> str:
        return f"{self._folder()}{serial:06d}.json"


def champion(records: Sequence[Record]) -> Record | None:
    """The record that made the present champion."""
    return records[-1] if records else None


def line(records: Sequence[Record]) -> tuple[Record, ...]:
    """The promotions that led to the present champion, those rolled back left out."""
    stack: list[Record] = []
    for record in records:
        if record.event == "rolled back":
            stack.pop()
        else:
            stack.append(record)
    return tuple(stack)
