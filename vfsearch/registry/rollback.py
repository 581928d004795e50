"""Back to the champion before, and who was champion when."""

from vfsearch.errors import PromotionRefused, TrackingError
from vfsearch.registry.history import Record, line
from vfsearch.registry.promotion import now, user
from vfsearch.registry.versions import MODEL, open_registry
from vfsearch.tracking.connection import Connection


def rollback(
    connection: Connection,
    *,
    model_name: str = MODEL,
    by: str | None = None,
    why: str = "rolled back by hand",
) -> Record:
    """Make the champion before the present one champion again; returns the new record.

    A second rollback goes one further back. Nothing is deleted.

    Raises:
        PromotionRefused: there is no champion before, or a promotion came in between.
        TrackingError: a server cannot be reached, or the version was deleted from the registry.
    """
    registry = open_registry(connection, model_name, create=False)
    by = by or user()
    records = registry.settle()
    before = line(records)
    if len(before) < 2:
        held = f"version {before[-1].version} is the first one" if before else "there never was one"
        raise PromotionRefused(f"{model_name}: no champion to go back to: {held}")
    present, target = before[-1], before[-2]
    if registry.version(target.version) is None:
        raise TrackingError(
            f"{model_name}: version {target.version}, the champion before, was deleted from the "
            "registry; promote another run instead"
        )
    record = Record(
        serial=len(records) + 1,
        event="rolled back",
        version=target.version,
        previous=present.version,
        run_id=target.run_id,
        dataset=target.dataset,
        by=by,
        at=now(),
        why=why,
        decision=target.decision,
    )
    registry.chain.append(record)
    registry.settle()
    return record


def history(connection: Connection, *, model_name: str = MODEL) -> tuple[Record, ...]:
    """Every change of the champion, oldest first.

    Raises:
        TrackingError: there is no such model, or its history is damaged.
    """
    return open_registry(connection, model_name, create=False).records()
