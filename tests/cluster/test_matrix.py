"""What can happen to a cluster, one disturbance per sweep (``make test-cluster``).

Nothing may be lost, every trial ends, and the result is that of the undisturbed sweep, to the last
digit: the world size is the same.
"""

import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from support.cluster_hosts import Lab, same_as, submit, trials
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1200)]

ALIVE = (
    "python -c \"import ray; ray.init(address='auto', log_to_driver=False); "
    "print('ALIVE', sum(n['Alive'] for n in ray.nodes()))\""
)
CUT = 60.0
"""Seconds without S3: longer than every single try of its clients."""


@pytest.fixture(scope="module")
def plain(lab: Lab) -> list[dict[str, Any]]:
    lab.user("ray", "up", "cluster/local.yaml", "-y", "--no-config-cache", timeout=600)
    submit(lab, "plain", "--trials", "2", "--resume").finish(600)
    return trials(lab, "plain")


@pytest.fixture(scope="module", autouse=True)
def _down_at_the_end(lab: Lab) -> Iterator[None]:
    yield
    lab.attempt("ray", "down", "cluster/local.yaml", "-y")


def test_it_can_be_watched_from_the_launching_machine(
    lab: Lab, plain: list[dict[str, Any]]
) -> None:
    logs = lab.user("vfsearch", "cluster", "logs", "cluster/local.yaml", "plain", "--follow")
    assert len(re.findall(r"t00\d  COMPLETE", logs)) == 2
    status = lab.user("vfsearch", "cluster", "status", "cluster/local.yaml", "plain")
    assert "2 complete" in status
    stopped = lab.user("vfsearch", "cluster", "stop", "cluster/local.yaml", "plain")
    assert "was not running" in stopped


def test_a_node_that_runs_other_code_is_named(lab: Lab, plain: list[dict[str, Any]]) -> None:
    worker = lab.hosts["worker"]
    where = worker.run("python", "-c", "import vfsearch.errors as e; print(e.__file__)").stdout
    worker.run("bash", "-c", f"echo '# changed on this node' >> {where.strip()}")
    try:
        sweep = submit(lab, "plain", "--trials", "2", "--resume")
        assert sweep.process.wait(240) != 0
        assert re.search(rf"{worker.address} runs vfsearch 0\.1\.0\+g", sweep.output())
        assert f"{lab.head.address} runs" not in sweep.output()
    finally:
        worker.run("sed", "-i", "$ d", where.strip())


def test_a_killed_worker_host_costs_time_and_nothing_else(
    lab: Lab, plain: list[dict[str, Any]]
) -> None:
    worker = lab.hosts["worker"]
    sweep = submit(lab, "killed", "--trials", "2")
    sweep.wait_for_epoch(3)
    worker.kill()
    worker.up()  # Ray's autoscaler finds it again by ssh, as after a reboot
    sweep.finish()
    same_as(plain, trials(lab, "killed"))


def wait_for_nodes(lab: Lab, count: int) -> None:
    Retrying(
        retry=retry_if_result(lambda text: f"ALIVE {count}" not in text),
        wait=wait_fixed(2),
        stop=stop_after_delay(300),
    )(lambda: lab.on(lab.head, ALIVE))


def test_a_worker_host_is_unplugged_in_mid_epoch_and_plugged_in_again(
    lab: Lab, plain: list[dict[str, Any]]
) -> None:
    worker = lab.hosts["worker"]
    sweep = submit(lab, "unplugged", "--trials", "2")
    sweep.wait_for_epoch(3)
    worker.link("down")
    try:
        wait_for_nodes(lab, 1)  # Ray has given it up
    finally:
        worker.link("up")
    sweep.finish(900)
    same_as(plain, trials(lab, "unplugged"))


def test_a_worker_host_leaves_with_notice(lab: Lab, plain: list[dict[str, Any]]) -> None:
    """As a spot instance does: its epochs are on S3 before it goes, and no retry is spent."""
    worker = lab.hosts["worker"]
    sweep = submit(lab, "notice", "--trials", "2")
    sweep.wait_for_epoch(3)
    lab.on(worker, "vfsearch cluster drain --seconds 240 --wait", timeout=300)
    worker.kill()
    worker.up()
    sweep.finish(900)
    again = trials(lab, "notice")
    same_as(plain, again)
    assert [row["retries"] for row in again] == [0, 0]


def test_the_head_is_killed_with_its_disk_and_the_sweep_resumed(
    lab: Lab, plain: list[dict[str, Any]]
) -> None:
    head = lab.head
    sweep = submit(lab, "lost", "--trials", "2")
    sweep.wait_for_epoch(4)
    head.kill()
    shutil.rmtree(head.home / ".vfsearch")
    sweep.process.wait(120)
    head.up()
    lab.user("ray", "up", "cluster/local.yaml", "-y", "--no-config-cache", timeout=600)
    submit(lab, "lost", "--trials", "2", "--resume").finish(900)
    again = trials(lab, "lost")
    same_as(plain, again)
    assert (head.home / ".vfsearch" / "sweeps" / "lost" / "study.db").exists()


def test_that_s3_is_away_for_a_minute_nobody_notices(lab: Lab, plain: list[dict[str, Any]]) -> None:
    servers = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "weed"]
    mine = [p for p in servers if f"-ip={lab.services.address}" in p.cmdline()]
    sweep = submit(lab, "cut", "--trials", "2")
    sweep.wait_for_epoch(2)
    for server in mine:
        server.suspend()
    try:
        time.sleep(CUT)  # the disturbance itself, not a synchronisation
    finally:
        for server in mine:
            server.resume()
    sweep.finish(900)
    same_as(plain, trials(lab, "cut"))
    assert "0 runs sent" in lab.on(lab.head, "vfsearch sync --sweep cut"), "nothing was left behind"


def test_a_network_that_loses_a_fifth_and_is_slow(lab: Lab, plain: list[dict[str, Any]]) -> None:
    worker = lab.hosts["worker"]
    if worker.net("tc qdisc add dev eth0 root netem loss 20% delay 100ms", check=False):
        pytest.skip("this kernel has no netem (CONFIG_NET_SCH_NETEM)")
    try:
        sweep = submit(lab, "slow", "--trials", "2")
        sweep.finish(1000)
    finally:
        worker.net("tc qdisc del dev eth0 root")
    same_as(plain, trials(lab, "slow"))
