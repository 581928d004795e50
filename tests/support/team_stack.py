"""The deployment of ``tracking/`` without containers: the same programs, arguments and files."""

import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.tracking.processes import free_block

TRACKING = Path(__file__).parents[2] / "tracking"
PROGRAMS = Path(sys.executable).parent


@dataclass
class TeamStack:
    """PostgreSQL is a server of the tests; S3, MLflow and proxy are started from compose.yaml."""

    folder: Path
    postgres: str
    """``host=… port=… user=…``"""
    database: str = "team"
    port: int = field(default_factory=lambda: free_block(8))
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def prepare(self) -> None:
        """Secrets, and an empty database."""
        subprocess.run(
            [TRACKING / "make-secrets.sh", "localhost", "localhost", self.folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.compose = yaml.safe_load((TRACKING / "compose.yaml").read_text())["services"]
        self.make_database(self.database)

    def make_database(self, name: str) -> None:
        with psycopg.connect(f"{self.postgres} dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')

    @property
    def mlflow(self) -> str:
        return f"https://localhost:{self.port + 6}"

    @property
    def s3(self) -> str:
        return f"https://localhost:{self.port + 7}"

    @property
    def authority(self) -> Path:
        """The certificate of Caddy's own authority."""
        return self.folder / "caddy/caddy/pki/authorities/local/root.crt"

    @property
    def database_url(self) -> str:
        parts = dict(part.split("=") for part in self.postgres.split())
        return f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{self.database}"

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text()

    def start_s3(self, data: str) -> None:
        """With the arguments of the compose file, but for folders and addresses."""
        (self.folder / data).mkdir()
        ports = {"-s3.port=": 0, "-master.port=": 1, "-filer.port=": 2, "-volume.port=": 3}
        ports["-admin.port="] = 4
        arguments = []
        for argument in self.compose["s3"]["command"]:
            for name, offset in ports.items():
                if argument.startswith(name):
                    argument = f"{name}{self.port + offset}"
            argument = argument.replace("/run/secrets", str(self.folder / "secrets"))
            argument = argument.replace("-dir=/data", f"-dir={self.folder / data}")
            argument = argument.replace("-ip=s3", "-ip=127.0.0.1").replace("0.0.0.0", "127.0.0.1")
            arguments.append(argument)
        self._start("s3", [str(PROGRAMS / "weed"), *arguments], {"GOMEMLIMIT": "300MiB"})
        self.wait("s3", f"http://127.0.0.1:{self.port}/healthz")

    def start_mlflow(self) -> None:
        """By the script of the image."""
        settings: dict[str, Any] = dict(self.compose["mlflow"]["environment"])
        settings |= {
            "SECRETS": str(self.folder / "secrets"),
            "DATABASE": self.database_url.replace("://", "+psycopg://"),
            "LISTEN": f"127.0.0.1:{self.port + 5}",
            "ALLOWED_HOSTS": f"localhost:{self.port + 6},127.0.0.1:{self.port + 5}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }
        self._start("mlflow", [str(TRACKING / "mlflow" / "start.sh")], settings)
        self.wait("mlflow", f"http://127.0.0.1:{self.port + 5}/health")

    def start_proxy(self) -> None:
        settings = {
            "MLFLOW_SITE": self.mlflow,
            "MLFLOW_UPSTREAM": f"127.0.0.1:{self.port + 5}",
            "S3_SITE": self.s3,
            "S3_UPSTREAM": f"127.0.0.1:{self.port}",
            "TLS": "internal",
            "XDG_DATA_HOME": str(self.folder / "caddy"),
            "XDG_CONFIG_HOME": str(self.folder / "caddy"),
        }
        caddy = shutil.which("caddy")
        assert caddy is not None
        config = ["--config", str(TRACKING / "Caddyfile"), "--adapter", "caddyfile"]
        self._start("proxy", [caddy, "run", *config], settings)
        self.wait("proxy", f"{self.mlflow}/health")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, how)
        process.wait(60)

    def stop_all(self) -> None:
        for name in list(self.processes):
            self.stop(name)

    def _start(self, name: str, command: list[str], settings: dict[str, str]) -> None:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "MLFLOW_", "PG"))
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=inherited | settings,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, name: str, address: str) -> None:
        self._until(name, lambda: self.answer(address) == 200)

    def answer(self, address: str, **headers: str) -> int | None:
        """Status of a request without password, or ``None`` if there is no answer."""
        try:
            trusted = str(self.authority) if self.authority.exists() else None
            context = ssl.create_default_context(cafile=trusted)
            request = urllib.request.Request(address, headers=headers)
            with urllib.request.urlopen(request, timeout=10, context=context) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        def check() -> bool:
            log = (self.folder / f"{name}.log").read_text()
            assert self.processes[name].poll() is None, log[-3000:]
            return ready()

        Retrying(
            retry=retry_if_result(lambda done: not done),
            stop=stop_after_delay(200),
            wait=wait_fixed(0.2),
        )(check)
