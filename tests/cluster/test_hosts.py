"""The way of a user over two real hosts: up, submit, what is watched from afar, a fault, down."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.cluster_hosts import Lab, same_as, submit, trials

pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]

CONNECT = (
    "import ray; ray.init(address='{address}:6379', log_to_driver=False); "
    "print('CONNECTED', len(ray.nodes()))"
)
KV = (
    "from ray._raylet import GcsClient; "
    "print('READ', GcsClient(address='{address}:6379').internal_kv_keys(b'', b'', 20))"
)


def test_the_cluster_refuses_who_has_no_token(lab: Lab) -> None:
    """From another machine, and on the head itself; with the right token it answers."""
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    asks = KV.format(address=lab.head.address)
    for host in (lab.launcher, lab.head):
        for environment in ({"RAY_AUTH_MODE": "disabled"}, wrong):
            answer = host.run("python", "-c", asks, env=environment)
            assert answer.returncode != 0
            assert "InvalidAuthToken" in answer.stdout
    assert "READ" in lab.on(lab.head, f'python -c "{asks}"')
    driver = CONNECT.format(address=lab.head.address)
    refused = lab.head.run("python", "-c", driver, env=wrong)
    assert refused.returncode != 0
    assert "CONNECTED" not in refused.stdout


def test_dashboard_and_job_api_are_on_loopback_and_want_the_token(lab: Lab) -> None:
    curl = "curl -s -m 10 -o /dev/null -w '%{http_code}' "
    outside = lab.launcher.run("bash", "-c", f"{curl} http://{lab.head.address}:8265/api/jobs/")
    assert outside.stdout == "000", "refused before a byte was exchanged"
    address = "http://127.0.0.1:8265/api/jobs/"
    assert lab.on(lab.head, f"{curl} {address}") == "401"
    bearer = '-H "Authorization: Bearer $(cat ~/.ray/auth_token)"'
    assert lab.on(lab.head, f"{curl} {bearer} {address}") == "200"


def test_the_token_is_in_no_file_but_its_own(lab: Lab) -> None:
    token = (lab.launcher.home / ".ray" / "auth_token").read_text()
    for host in (lab.head, lab.hosts["worker"]):
        copy = host.home / ".ray" / "auth_token"
        assert copy.read_text() == token
        assert copy.stat().st_mode & 0o777 == 0o600
        found = host.run("grep", "-rl", token, "/root", "/tmp/ray")
        assert found.stdout.split() == ["/root/.ray/auth_token"]
        assert token not in host.run("ps", "axeww", "-o", "args").stdout
    checkout = lab.launcher.home / "vfsearch" / "cluster"
    assert token not in "".join(path.read_text() for path in checkout.glob("*.yaml"))


@pytest.fixture(scope="module")
def plain(lab: Lab) -> list[dict[str, Any]]:
    """The undisturbed sweep's trials."""
    sweep = submit(lab, "plain", "--trials", "2")
    sweep.finish()
    return trials(lab, "plain")


def test_a_sweep_spans_both_hosts(lab: Lab, plain: list[dict[str, Any]]) -> None:
    assert [row["state"] for row in plain] == ["COMPLETE", "COMPLETE"]
    for host in (lab.head, lab.hosts["worker"]):
        fetched = list((host.home / ".vfsearch" / "corpora").glob("*/files/vox1_train.csv"))
        assert len(fetched) == 1, f"{host.name} fetched the corpus once"
        assert list((host.home / ".vfsearch" / "corpora").glob("*/store/train-*/index.npz"))
    assert not (lab.head.home / ".vfsearch" / "sweeps" / "plain" / "engine").exists()


def test_every_run_arrived_at_mlflow_and_s3(lab: Lab, plain: list[dict[str, Any]]) -> None:
    text = lab.user(
        "python",
        "-c",
        "import json, mlflow\n"
        "c = mlflow.MlflowClient()\n"
        "e = c.get_experiment_by_name('vfsearch')\n"
        "runs = [r for r in c.search_runs([e.experiment_id]) if r.info.run_name.startswith('t0')"
        " and r.data.tags.get('vfsearch.sweep') == 'plain']\n"
        "print('RUNS', json.dumps([[r.info.run_name, r.info.status, "
        "len(c.get_metric_history(r.info.run_id, 'val/match_v2f_1to2')), "
        "[f.path for f in c.list_artifacts(r.info.run_id, 'checkpoints/best')]] for r in runs]))",
    )
    runs = sorted(json.loads(text.partition("RUNS ")[2]))
    assert [run[:3] for run in runs] == [["t000", "FINISHED", 12], ["t001", "FINISHED", 12]]
    for run in runs:
        assert "checkpoints/best/model.safetensors" in run[3]


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


def test_down_leaves_no_process(lab: Lab, plain: list[dict[str, Any]]) -> None:
    lab.user("ray", "down", "cluster/local.yaml", "-y")
    left = lab.head.run("ps", "ax", "-o", "args").stdout
    assert "ray::" not in left
    assert "gcs_server" not in left
    assert Path(lab.head.home / ".vfsearch" / "sweeps" / "plain" / "study.db").exists()
