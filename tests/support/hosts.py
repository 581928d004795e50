"""Hosts on one machine: namespaces joined by a bridge, each with an address, files and sshd.

Nothing has a name in the system: a host is a process, and its network, its mounts and its processes
end with it, also when the test's own process is killed (the kernel tells by ``pdeathsig``).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

REPOSITORY = Path(__file__).parents[2]
INIT = Path(__file__).with_name("host_init.sh")
NETWORK = "10.77.0"
PATH = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")


def unsupported() -> str | None:
    """Why this machine cannot hold such hosts; None if it can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    needed = ("ip", "unshare", "nsenter", "setpriv", "rsync", "ssh-keygen", "/usr/sbin/sshd")
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (scripts/system-packages.sh)"
    trial = (
        "ip link add name vfa type veth peer name vfb && mount -t tmpfs none /mnt && cd /mnt && "
        "mkdir l u w m && mount -t overlay none -o lowerdir=l,upperdir=u,workdir=w m"
    )
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--mount", "bash", "-c", trial],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f"the kernel refuses namespaces: {tried.stderr.strip()}"
    return None


@dataclass
class Host:
    """One host; `up` starts it, `kill` takes its power away, files stay."""

    name: str
    number: int
    """Last part of its address, and the order in which it was made."""
    root: Path
    bridge: int
    """Process that holds the bridge's network namespace."""
    shows_repository: bool
    outer: subprocess.Popen[bytes] | None = None
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def home(self) -> Path:
        """What the host sees as /root."""
        return self.root / "home"

    def up(self) -> None:
        """Boot: namespaces, cable, sshd."""
        command = [*_TIED, "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount"]
        command += ["--uts", "--ipc", "bash", str(INIT), self.name, str(self.root), sys.prefix]
        command += [sys.base_prefix, str(REPOSITORY), "1" if self.shows_repository else "0"]
        with (self.root / "init.log").open("ab") as log:
            self.outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _wait(lambda: self.pid is not None, f"{self.name} does not boot")
        port, pid = f"p{self.number}", str(self.pid)
        card = f"address 02:00:00:00:00:{self.number:02x}"  # the same after a boot, as of a card
        in_bridge(self.bridge, f"ip link add {port} type veth peer name eth0 {card} netns {pid}")
        in_bridge(self.bridge, f"ip link set {port} master br0 up")
        self.net(
            f"ip addr add {self.address}/24 dev eth0 && ip link set eth0 up && "
            f"ip route add default via {NETWORK}.1"  # nobody is there; programs ask for the route
        )
        _wait(
            lambda: self.net("bash -c '</dev/tcp/127.0.0.1/22'", check=False) == 0,
            f"{self.name} has no sshd: {(self.root / 'init.log').read_text()}",
        )

    @property
    def pid(self) -> int | None:
        """First process of the host, as this machine sees it."""
        assert self.outer is not None
        try:
            inside = psutil.Process(self.outer.pid).children()
        except psutil.NoSuchProcess:
            return None
        return inside[0].pid if inside else None

    def net(self, command: str, *, check: bool = True) -> int:
        """Run in the host's network, with this machine's files."""
        pid = str(self.pid)
        return subprocess.run(
            ["nsenter", "-t", pid, "--net", "bash", "-c", command],
            check=check,
            stderr=None if check else subprocess.DEVNULL,
        ).returncode

    def link(self, state: str) -> None:
        """Pull the cable (``down``) or put it back (``up``), at the switch's end."""
        in_bridge(self.bridge, f"ip link set p{self.number} {state}")

    def kill(self) -> None:
        """Cut the power: every process of the host ends at once."""
        assert self.outer is not None
        if (pid := self.pid) is not None:
            psutil.Process(pid).kill()
        self.outer.kill()
        self.outer.wait()
        # The kernel takes dead namespaces down at leisure, and the cable with them.
        in_bridge(self.bridge, f"ip link del p{self.number} 2>/dev/null || true")
        for child in self.children:
            child.kill()  # nsenter stops with what it started, and stays so when that goes on
            child.wait()
        self.children.clear()

    def command(self, *words: str, env: dict[str, str] | None = None) -> list[str]:
        """The command line that runs ``words`` inside the host, in a clean environment."""
        settings = {"HOME": "/root", "USER": "root", "TERM": "xterm", "PATH": PATH}
        settings |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"} | (env or {})
        space = ["nsenter", "-t", str(self.pid), "--net", "--pid", "--mount", "--uts", "--ipc"]
        return [*space, "env", "-i", *(f"{k}={v}" for k, v in settings.items()), *words]

    def run(
        self, *words: str, env: dict[str, str] | None = None, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Run to its end; stdout and stderr together."""
        return subprocess.run(
            self.command(*words, env=env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
        )

    def start(
        self, *words: str, log: Path, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process that lives as long as the host, or until it ends."""
        with log.open("a") as out:
            child = subprocess.Popen(
                [*_TIED, *self.command(*words, env=env)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                text=True,
            )
        self.children.append(child)
        return child


def in_bridge(pid: int, command: str) -> None:
    """Run in the network that holds the bridge."""
    subprocess.run(["nsenter", "-t", str(pid), "--net", "bash", "-c", command], check=True)


@contextmanager
def hosts(folder: Path, names: Sequence[str], *, launcher: str) -> Iterator[dict[str, Host]]:
    """Hosts that can reach each other; only ``launcher`` has the ssh key and the repository."""
    bridge = subprocess.Popen(
        [*_TIED, "unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
    )
    made: dict[str, Host] = {}
    try:
        mine = Path("/proc/self/ns/net").stat().st_ino
        _wait(
            lambda: Path(f"/proc/{bridge.pid}/ns/net").stat().st_ino != mine, "no network namespace"
        )
        in_bridge(bridge.pid, "ip link add br0 type bridge && ip link set br0 up")
        key = folder / "key"
        _keygen(key)
        for number, name in enumerate(names, start=2):
            made[name] = Host(
                name=name,
                number=number,
                root=folder / name,
                bridge=bridge.pid,
                shows_repository=name == launcher,
            )
        for host in made.values():
            _furnish(host, key, made, with_key=host.name == launcher)
            host.up()
        yield made
    finally:
        for host in made.values():
            if host.outer is not None:
                host.kill()
        bridge.kill()
        bridge.wait()


def _furnish(host: Host, key: Path, all_hosts: dict[str, Host], *, with_key: bool) -> None:
    ssh = host.home / ".ssh"
    for part in (ssh, host.root / "tmp", host.root / "etc", host.root / "venv", host.root / "work"):
        part.mkdir(parents=True)
    ssh.chmod(0o700)
    (host.root / "tmp").chmod(0o1777)
    shutil.copy(key.with_suffix(".pub"), ssh / "authorized_keys")
    if with_key:
        shutil.copy(key, ssh / "vf_key")
        (ssh / "vf_key").chmod(0o600)
    _keygen(ssh / "host_key")
    (ssh / "sshd_config").write_text(
        "HostKey /root/.ssh/host_key\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nPidFile none\nStrictModes no\n"
    )
    names = "".join(f"{other.address} {other.name}\n" for other in all_hosts.values())
    (host.root / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    shadow = Path("/etc/shadow").read_text().splitlines()
    kept = [line for line in shadow if not line.startswith("root:")]
    # A locked account ("!") is refused by sshd even with a key; "*" only has no password.
    (host.root / "etc" / "shadow").write_text("\n".join(["root:*:19000::::::", *kept, ""]))
    (host.root / "etc" / "shadow").chmod(0o600)


def _keygen(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)


def _wait(ready: "object", problem: str) -> None:
    assert callable(ready)
    try:
        Retrying(
            retry=retry_if_result(lambda done: not done),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(60),
        )(ready)
    except Exception as error:
        raise AssertionError(problem) from error
