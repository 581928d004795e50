"""The way of a user over two real hosts: up, refused without the token, submit, down."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster_hosts import Lab, submit, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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
def path(lab: Lab) -> list[dict[str, Any]]:
    """The trials of a sweep that was submitted."""
    submit(lab, "path").finish()
    return trials(lab, "path")


def test_a_sweep_spans_both_hosts(lab: Lab, path: list[dict[str, Any]]) -> None:
    assert [row["state"] for row in path] == ["COMPLETE"]
    for host in (lab.head, lab.hosts["worker"]):
        fetched = list((host.home / ".vfsearch" / "corpora").glob("*/files/vox1_train.csv"))
        assert len(fetched) == 1, f"{host.name} fetched the corpus once"
        assert list((host.home / ".vfsearch" / "corpora").glob("*/store/train-*/index.npz"))
    assert not (lab.head.home / ".vfsearch" / "sweeps" / "path" / "engine").exists()


def test_every_run_arrived_at_mlflow_and_s3(lab: Lab, path: list[dict[str, Any]]) -> None:
    text = lab.user(
        "python",
        "-c",
        "import json, mlflow\n"
        "c = mlflow.MlflowClient()\n"
        "e = c.get_experiment_by_name('vfsearch')\n"
        "runs = [r for r in c.search_runs([e.experiment_id]) if r.info.run_name.startswith('t0')"
        " and r.data.tags.get('vfsearch.sweep') == 'path']\n"
        "print('RUNS', json.dumps([[r.info.run_name, r.info.status, "
        "len(c.get_metric_history(r.info.run_id, 'val/match_v2f_1to2')), "
        "[f.path for f in c.list_artifacts(r.info.run_id, 'checkpoints/best')]] for r in runs]))",
    )
    (run,) = json.loads(text.partition("RUNS ")[2])
    assert run[:3] == ["t000", "FINISHED", 2]
    assert "checkpoints/best/model.safetensors" in run[3]


def test_down_leaves_no_process(lab: Lab, path: list[dict[str, Any]]) -> None:
    lab.user("ray", "down", "cluster/local.yaml", "-y")
    left = lab.head.run("ps", "ax", "-o", "args").stdout
    assert "ray::" not in left
    assert "gcs_server" not in left
    assert Path(lab.head.home / ".vfsearch" / "sweeps" / "path" / "study.db").exists()
