"""Trains one elastic run while nodes leave, join and are lost: ``FOLDER NODES``.

``FOLDER/config.json`` is the run, ``FOLDER/run`` its folder; ``FOLDER/done.json`` tells what was
done to the nodes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.ray_fixtures import end_node, join
from support.watched_trial import worlds
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.config import RunConfig
from vfsearch.search.single import run_single

PERFORMER = "support.watched_trial:WatchedTrial"


def until(there: Callable[[], bool]) -> None:
    Retrying(
        retry=retry_if_result(lambda done: not done), wait=wait_fixed(0.1),
        stop=stop_after_delay(400),
    )(there)  # fmt: skip


def drain(address: str, name: str) -> None:
    """What a spot notice is turned into."""
    import ray

    node = next(n["NodeID"] for n in ray.nodes() if n["Alive"] and name in n["Resources"])
    command = [
        str(Path(sys.executable).parent / "ray"), "drain-node", f"--address={address}",
        f"--node-id={node}", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot",
        "--deadline-remaining-seconds=600",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def main(folder: Path, nodes: Path) -> None:
    out = folder / "run"
    found = {key: os.environ[key] for key in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    third: list[subprocess.Popen[bytes]] = []
    done: list[str] = []

    def note(what: str) -> None:
        done.append(what)
        (folder / "done.json").write_text(json.dumps(done))

    def watch(epoch: int, _metrics: dict[str, float]) -> None:
        """Called between an epoch and the answer that lets the training go on."""
        world = worlds(out)[-1]
        if not done and epoch >= 3:
            drain(found["RAY_ADDRESS"], "second")
            note("notice")
        elif done == ["notice"] and world == 1 and epoch >= 5:
            third.append(join(found, nodes, "third"))
            until(lambda: worlds(out)[-1] == 2)  # Ray Train starts them anew, with two
            note("grown")
        elif done == ["notice", "grown"] and world == 2 and epoch >= 7:
            end_node(third[0])
            note("lost")

    config = RunConfig.model_validate(json.loads((folder / "config.json").read_text()))
    try:
        run_single(config, out, name="elastic", progress=watch, performer=PERFORMER)
    finally:
        for node in third:
            end_node(node)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
