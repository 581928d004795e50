"""The nodes of the cluster: which are alive, which leave, and one function on each."""

from collections.abc import Callable
from typing import Any


def on_every_node(function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """Start it on each; needs no CPU there.

    Returns:
        By address of the node, what `ray.get` waits for.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def start(node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(function).options(
            num_cpus=0, scheduling_strategy=there, max_retries=0, retry_exceptions=False
        )
        return task.remote(*arguments)

    return {node["NodeManagerAddress"]: start(node["NodeID"]) for node in alive_nodes()}


def alive_nodes() -> list[dict[str, Any]]:
    """What `ray.nodes` tells of those that are alive."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def draining() -> set[str]:
    """Ids of the nodes that will be taken away, as ``ray drain-node`` told Ray."""
    # No public interface tells it; Ray Train's own watcher asks the same.
    from ray._private.state import state

    return set(state.get_draining_nodes())
