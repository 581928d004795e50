"""``vfsearch cluster``: files, wheel and token of a cluster; sweeps on its head node."""

from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Ray clusters: their files, and sweeps on them.")

ClusterFile = Annotated[Path, typer.Argument(help="Cluster file, like cluster/local.yaml.")]
SweepName = Annotated[str, typer.Argument(help="Name of the sweep.")]


@app.command(epilog="Example: vfsearch cluster render   (after a change of cluster/values.yaml)")
def render(
    values: Annotated[Path, typer.Option(help="The values.")] = Path("cluster/values.yaml"),
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("cluster"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; 2 if stale.")] = False,
) -> None:
    """Render local.yaml, aws.yaml, aws-foundation.yaml, kuberay.yaml and Dockerfile."""
    from vfsearch.cli.show import console
    from vfsearch.cluster.render import stale, write
    from vfsearch.cluster.values import load_values

    loaded = load_values(values)
    if check:
        old = stale(loaded, out)
        console.print(f"stale: {', '.join(old)}" if old else "every file is as the values say")
        raise typer.Exit(2 if old else 0)
    changed = write(loaded, out)
    console.print(f"written: {', '.join(changed)}" if changed else "nothing has changed")


@app.command(epilog="Example: vfsearch cluster prepare && ray up cluster/local.yaml -y")
def prepare() -> None:
    """Build the commit's wheel for the nodes and make the token, before ``ray up``."""
    from vfsearch.cli.show import console
    from vfsearch.cluster.prepare import prepare as run

    done = run(Path.cwd())
    console.print(f"wheel  {done.wheel.name}", soft_wrap=True)
    console.print(f"token  {done.token} ({'new' if done.new_token else 'kept'})", soft_wrap=True)
    if done.uncommitted:
        shown = ", ".join(done.uncommitted[:5]) + (", ..." if len(done.uncommitted) > 5 else "")
        console.print(f"not in the wheel, for they are not committed: {shown}", soft_wrap=True)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Example: vfsearch cluster submit cluster/local.yaml search_spaces/paper.yaml "
    "--trials 64",
)
def submit(context: typer.Context, cluster: ClusterFile) -> None:
    """Start a sweep on the head node and follow it; leaving does not end it."""
    from vfsearch.cluster.remote import submit as run

    raise typer.Exit(run(cluster, Path("cluster/sweep.py"), context.args))


@app.command(epilog="Example: vfsearch cluster status cluster/local.yaml paper")
def status(cluster: ClusterFile, sweep: SweepName) -> None:
    """What `vfsearch status` says on the head node."""
    _on_head(cluster, "status", sweep)


@app.command(epilog="Example: vfsearch cluster logs cluster/local.yaml paper --follow")
def logs(
    cluster: ClusterFile,
    sweep: SweepName,
    follow: Annotated[bool, typer.Option("--follow", help="Until the sweep ends.")] = False,
) -> None:
    """What `vfsearch logs` says on the head node."""
    _on_head(cluster, "logs", sweep, *(["--follow"] if follow else []))


@app.command(epilog="Example: vfsearch cluster stop cluster/local.yaml paper")
def stop(cluster: ClusterFile, sweep: SweepName) -> None:
    """End the sweep's driver in order; a submit with --resume continues it."""
    _on_head(cluster, "stop", sweep)


@app.command(epilog="Example: vfsearch cluster ui cluster/local.yaml")
def ui(
    cluster: ClusterFile,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8265,
) -> None:
    """Reach Ray's dashboard through ssh, until interrupted (it asks for the token)."""
    from vfsearch.cli.show import console
    from vfsearch.cluster.remote import dashboard

    console.print(f"http://127.0.0.1:{port}   (the token is in ~/.ray/auth_token)")
    raise typer.Exit(dashboard(cluster, port))


@app.command(epilog="Example: vfsearch cluster drain --seconds 100   (on the node that leaves)")
def drain(
    seconds: Annotated[float, typer.Option(help="Until this node is taken away.")] = 100.0,
    on_notice: Annotated[
        bool, typer.Option("--on-notice", help="Wait for EC2's spot notice, which tells the time.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has left, or time is up.")] = False,
) -> None:
    """Tell Ray that this node leaves: its trials save their epochs and go on elsewhere."""
    from vfsearch.cli.show import console
    from vfsearch.cluster import notice

    begun = monotonic()
    if on_notice:
        seconds = notice.drain_on_notice()
    else:
        notice.drain(seconds, "vfsearch cluster drain")
    console.print(f"this node is drained; it is taken away in {seconds:.0f} s")
    if wait:
        notice.wait_until_left(seconds - (monotonic() - begun))


def _on_head(cluster: Path, *command: str) -> None:
    from vfsearch.cluster.remote import on_head

    raise typer.Exit(on_head(cluster, command))
