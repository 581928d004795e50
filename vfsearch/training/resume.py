"""Taking up a run where its last checkpoint left it."""

from pathlib import Path

from vfsearch.training import checkpoint as files
from vfsearch.training.distributed import agree, broadcast_bytes
from vfsearch.training.run import Run


def resume(run: Run, root: Path) -> files.CheckpointState | None:
    """Take up ``last`` below ``root``, if there is one; on every rank.

    Rank 0 reads it and sends it: other nodes may not share its disk.

    Raises:
        CheckpointError: it is damaged or of another run.
    """
    last, world, device = root / "last", run.world, run.device
    exists = agree(world.rank == 0 and last.exists(), world, device)
    if not exists:
        return None
    contents: dict[str, bytes] = {}
    for name in files.FILES:
        mine = files.read_file(last, name) if world.rank == 0 else None
        contents[name] = broadcast_bytes(mine, world, device) or b""
    state = files.parse_state(contents[files.STATE], last / files.STATE)
    run.restore(
        state,
        files.parse_tensors(contents[files.MODEL], last / files.MODEL),
        files.parse_tensors(contents[files.TRAINING], last / files.TRAINING),
    )
    if world.rank == 0:
        files.repair_links(root, state)
    return state
