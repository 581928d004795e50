"""A real cluster on test hosts: what its user does on the launching machine, and the services."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.hosts import REPOSITORY, Host
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

S3_PORT, MLFLOW_PORT = 9000, 5000
KEYS = {"aws_access_key_id": "VFTEST", "aws_secret_access_key": "vf-test-secret"}
CHECKOUT = "/root/vfsearch"


@dataclass
class Lab:
    """Hosts launcher, head, worker and services; the cluster of head and worker."""

    hosts: dict[str, Host]
    folder: Path

    @property
    def launcher(self) -> Host:
        return self.hosts["launcher"]

    @property
    def head(self) -> Host:
        return self.hosts["head"]

    @property
    def services(self) -> Host:
        return self.hosts["services"]

    @property
    def s3(self) -> str:
        return f"http://{self.services.address}:{S3_PORT}"

    @property
    def mlflow(self) -> str:
        """MLflow has an address of its own, so that each can be cut off alone."""
        return f"http://{self.mlflow_address}:{MLFLOW_PORT}"

    @property
    def mlflow_address(self) -> str:
        return self.services.address.rpartition(".")[0] + ".100"

    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.mlflow,
            "AWS_ENDPOINT_URL": self.s3,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def user(self, *words: str, timeout: float = 240) -> str:
        """Run on the launching machine, in the checkout; fails with the output."""
        done = self.attempt(*words, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def attempt(self, *words: str, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
        script = f'cd {CHECKOUT} && exec "$@"'
        return self.launcher.run(
            "bash", "-c", script, "-", *words, env=self.environment(), timeout=timeout
        )

    def on(self, host: Host, script: str, timeout: float = 120) -> str:
        """Run a shell script on a node, in the environment that its set-up made."""
        full = f". ~/vfsearch/node.sh && {script}"
        done = host.run("bash", "-c", full, timeout=timeout)
        assert done.returncode == 0, f"{host.name}: {script}\n{done.stdout}"
        return done.stdout


def start_services(lab: Lab) -> None:
    """S3 and MLflow on the services host, reached over the network."""
    services = lab.services
    services.net(f"ip addr add {lab.mlflow_address}/24 dev eth0")
    _credentials(services)
    _credentials(lab.launcher)
    (services.home / "s3").mkdir()
    ports = {name: S3_PORT + at for at, name in enumerate(("s3", "master", "filer", "volume"))}
    services.start(
        "weed",
        "mini",
        "-dir=/root/s3",
        "-bucket=vfsearch",
        f"-ip={services.address}",
        f"-ip.bind={services.address}",
        "-disableHttp",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        f"-admin.port={S3_PORT + 4}",
        log=services.root / "s3.log",
        env={name.upper(): value for name, value in KEYS.items()} | {"GOMEMLIMIT": "200MiB"},
    )
    services.start(
        "mlflow",
        "server",
        f"--host={lab.mlflow_address}",
        f"--port={MLFLOW_PORT}",
        f"--allowed-hosts={lab.mlflow_address}:{MLFLOW_PORT}",
        "--workers=1",
        "--backend-store-uri=sqlite:////root/mlflow.db",
        "--default-artifact-root=s3://vfsearch/mlflow",
        log=services.root / "mlflow.log",
        env={**lab.environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )


def wait_for_services(lab: Lab) -> None:
    def answers() -> bool:
        ready = f"curl -sf {lab.mlflow}/health && curl -s -o /dev/null {lab.s3}/"
        return lab.services.net(f"{ready} >/dev/null", check=False) == 0

    Retrying(
        retry=retry_if_result(lambda done: not done),
        wait=wait_fixed(0.3),
        stop=stop_after_delay(120),
    )(answers)


def _credentials(host: Host) -> None:
    folder = host.home / ".aws"
    folder.mkdir(exist_ok=True)
    text = "[default]\n" + "".join(f"{name} = {value}\n" for name, value in KEYS.items())
    (folder / "credentials").write_text(text)
    (folder / "credentials").chmod(0o600)


def check_out(lab: Lab, **values: Any) -> None:
    """Clone, write the values of this cluster, render, prepare: what a user does once."""
    environment = sys.prefix
    lock = subprocess.run(
        ["git", "-C", str(REPOSITORY), "show", "HEAD:requirements.lock"],
        check=True,
        capture_output=True,
    ).stdout
    digest = hashlib.sha256(lock).hexdigest()
    for host in lab.hosts.values():
        # The environment that the hosts share was made from this lock.
        host.run("bash", "-c", f"echo {digest} > {sys.prefix}/.lock-sha256")
    git = ("git", "-c", "safe.directory=*")
    done = lab.launcher.run(*git, "clone", "-q", str(REPOSITORY), CHECKOUT)
    assert done.returncode == 0, done.stdout
    workers = [h.address for h in lab.hosts.values() if h.name.startswith("worker")]
    settings = {
        "name": "vftest",
        "environment": environment,
        "variables": {**lab.environment(), "OMP_NUM_THREADS": "1"},
        "local": {
            "head": lab.head.address,
            "workers": workers,
            "ssh_user": "root",
            "ssh_key": "~/.ssh/vf_key",
            "cpus": 1,
            "gpus": 0,
            "object_store_mib": 100,
            "credentials": "~/.aws/credentials",
        },
        **values,
    }
    path = lab.launcher.home / "vfsearch" / "cluster" / "values.yaml"
    path.write_text(yaml.safe_dump(settings))
    lab.user("vfsearch", "cluster", "render")
    lab.user("vfsearch", "cluster", "prepare")


def tiny_space(name: str, *, epochs: int, trials: int = 2) -> dict[str, Any]:
    """A sweep of real training, as small as it gets: 2 workers, so one on each of two hosts."""
    return {
        "name": name,
        "base": {
            "corpus": {"root": "s3://vfsearch/corpora/tiny", "face_size": 32},
            "model": {
                "face": {"encoder": "small"},
                "voice": {"encoder": "small"},
                "embedding_dim": 16,
                "dropout": 0.1,
            },
            "reweighting": {"every": 2},
            "training": {
                "batch": 8,
                "epoch_steps": 2,
                "stages": {"warm_up": 2, "weight_learning": 2 * epochs - 2},
                "audio_seconds": [0.5, 0.75],
                "augment": False,
            },
            "evaluation": {
                "galleries": [2],
                "strata": ["U"],
                "audio_seconds": 1.0,
                "instances": 2,
            },
            "workers": {"count": 2, "report_timeout": 300},
        },
        "parameters": {"loss.margin": {"type": "float", "low": 1.0, "high": 16.0, "log": True}},
        "objectives": [{"metric": "val/match_v2f_1to2", "direction": "maximize"}],
        "sampler": {"name": "random", "seed": 7},
        "budget": {"trials": trials},
    }


@dataclass
class Submitted:
    """A sweep that was submitted from the launching machine and goes on there."""

    lab: Lab
    name: str
    process: subprocess.Popen[str]
    log: Path

    def wait_for_epoch(self, wanted: int, trial: int = 0, *, timeout: float = 240) -> None:
        """Wait until the first trials's checkpoint of that epoch is on its node."""
        place = f".vfsearch/sweeps/{self.name}/trials/t{trial:03d}/checkpoints"

        def there() -> bool:
            assert self.process.poll() is None, f"ended: {self.output()}"
            return any(
                path.name.startswith("epoch-") and int(path.name[6:]) >= wanted
                for host in self.lab.hosts.values()
                for path in (host.home / place).glob("epoch-*")
            )

        Retrying(
            retry=retry_if_result(lambda done: not done),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(timeout),
        )(there)

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-5000:]

    def finish(self, timeout: float = 800) -> None:
        """Wait for the end of the sweep; it must have succeeded."""
        assert self.process.wait(timeout) == 0, self.output()


def submit(lab: Lab, name: str, *flags: str) -> Submitted:
    """``ray submit`` of a space that `mount_space` made known, in the background."""
    log = lab.folder / f"submit-{name}.log"
    words = ["ray", "submit", "cluster/local.yaml", "cluster/sweep.py", "--"]
    script = f'cd {CHECKOUT} && exec "$@"'
    process = lab.launcher.start(
        *("bash", "-c", script, "-", *words, f"search_spaces/{name}.yaml", *flags),
        log=log,
        env=lab.environment(),
    )
    return Submitted(lab=lab, name=name, process=process, log=log)


def write_space(lab: Lab, space: dict[str, Any]) -> None:
    """Put a space into the checkout, before ``ray up`` takes it along."""
    folder = lab.launcher.home / "vfsearch" / "search_spaces"
    (folder / f"{space['name']}.yaml").write_text(yaml.safe_dump(space))


def trials(lab: Lab, name: str) -> list[dict[str, Any]]:
    """Every trial, as the head's study has it."""
    text = lab.on(lab.head, f"vfsearch trials {name} --json")
    rows: list[dict[str, Any]] = json.loads(text)["trials"]
    return rows


def same_as(plain: list[dict[str, Any]], disturbed: list[dict[str, Any]]) -> None:
    """Same parameters, epochs and values, to the last digit."""
    keys = ("number", "state", "params", "values", "epochs", "best_epoch")
    known = [key for key in keys if key in plain[0]]
    assert {"params", "values"} <= set(known)
    assert [{k: row[k] for k in known} for row in disturbed] == [
        {k: row[k] for k in known} for row in plain
    ]
