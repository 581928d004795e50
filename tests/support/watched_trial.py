"""Real training that notes how many workers begin it."""

import json
from pathlib import Path
from typing import Any

from vfsearch.search.mailbox import Task
from vfsearch.search.performer import TrainTrial
from vfsearch.search.serve import Reply
from vfsearch.training.distributed import World

STARTS = "starts.jsonl"


class WatchedTrial(TrainTrial):
    """A `TrainTrial` whose rank 0 writes a line per start."""

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        world = World.current()
        if world.rank == 0:
            out = Path(task.order.out)
            out.mkdir(parents=True, exist_ok=True)
            with (out / STARTS).open("a") as file:
                file.write(json.dumps({"world": world.size, "attempt": task.attempt}) + "\n")
        return super().perform(task, reply)


def worlds(out: Path) -> list[int]:
    """Numbers of workers of the starts so far."""
    if not (out / STARTS).exists():
        return []
    lines = (out / STARTS).read_text().splitlines()
    return [json.loads(line)["world"] for line in lines]
