"""What every node of a cluster that `ray up` starts is set up with."""

from collections.abc import Mapping
from typing import Any

from vfsearch.cluster.values import ClusterValues

TOKEN = "~/.ray/auth_token"
"""Ray's token, 0600, on the launching machine and on every node at the same place."""
DIST = "cluster/dist"
"""What `vfsearch cluster prepare` leaves for the nodes: wheel, lock, set-up script."""
PORT = 6379
METRICS = 8090
"""Port of every node for Prometheus; Ray's and ours, without a token."""

_FIXED = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nodes of one's own are all known from the start: Ray's newer autoscaler never starts them.
    "RAY_enable_autoscaler_v2": "0",
}
_TLS = {
    "RAY_USE_TLS": "1",
    "RAY_TLS_SERVER_CERT": "$HOME/vfsearch/tls/node.crt",
    "RAY_TLS_SERVER_KEY": "$HOME/vfsearch/tls/node.key",
    "RAY_TLS_CA_CERT": "$HOME/vfsearch/tls/ca.crt",
}


def variables(values: ClusterValues, extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of every process on a node."""
    # `extra` last: the provider knows which autoscaler it needs.
    home = {"VFSEARCH_HOME": "$HOME/.vfsearch"}
    return {**home, **values.variables, **_FIXED, **(_TLS if values.tls else {}), **extra}


def grows_by(count: int, *, cpus: int, gpus: int) -> str:
    """What the autoscaler may add, as `vfsearch.search.cluster.Expected` reads it."""
    return f"{count} x CPU={cpus},GPU={gpus}"


def setup_commands(values: ClusterValues, extra: Mapping[str, str]) -> list[str]:
    """Set a node up; every command can be repeated."""
    lines = [f'export {name}="{value}"' for name, value in variables(values, extra).items()]
    lines.append(f'export PATH="{_bin(values)}:$PATH"')
    quoted = " ".join(f"'{line}'" for line in lines)
    return [
        f"chmod 700 ~/.ray && chmod 600 {TOKEN}",
        "[ ! -f ~/.aws/credentials ] || chmod 600 ~/.aws/credentials",
        f"printf '%s\\n' {quoted} > ~/vfsearch/node.sh",
        f"bash ~/vfsearch/dist/node-setup.sh {values.environment}",
    ]


def _bin(values: ClusterValues) -> str:
    return values.environment.replace("~/", "$HOME/", 1) + "/bin"


def start_head(options: str) -> list[str]:
    """Start Ray's head; dashboard and job API answer on loopback only."""
    return [
        ". ~/vfsearch/node.sh; ray stop",
        f". ~/vfsearch/node.sh; ulimit -n 65536; ray start --head --port={PORT} "
        f"--metrics-export-port={METRICS} --dashboard-host=127.0.0.1 "
        "--autoscaling-config=~/ray_bootstrap_config.yaml "
        f"--disable-usage-stats {options}".rstrip(),
    ]


def start_worker(options: str, *, spot: bool = False) -> list[str]:
    """Start Ray on a worker; ``spot``: and what waits for the notice that it is taken away."""
    waits = ". ~/vfsearch/node.sh; setsid nohup vfsearch cluster drain --on-notice "
    return [
        ". ~/vfsearch/node.sh; ray stop",
        ". ~/vfsearch/node.sh; ulimit -n 65536; "
        f"ray start --address=$RAY_HEAD_IP:{PORT} --metrics-export-port={METRICS} "
        f"--disable-usage-stats {options}".rstrip(),
        *([f"{waits}> ~/vfsearch/notice.log 2>&1 < /dev/null &"] if spot else []),
    ]


def mounts() -> dict[str, Any]:
    """Files that every node gets from the launching machine."""
    return {
        TOKEN: TOKEN,
        "~/vfsearch/dist": DIST,
        "~/vfsearch/search_spaces": "search_spaces",
    }
