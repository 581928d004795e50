"""``vfsearch stack``: MLflow and S3, on this machine (loopback only) or a team's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from vfsearch.tracking.backup import Place

app = typer.Typer(
    no_args_is_help=True,
    help="MLflow and S3: on this machine (up, down, status), a team's bucket (init), copies.",
)

SETTINGS = Path("tracking")

Endpoint = Annotated[
    str | None,
    typer.Option(envvar="AWS_ENDPOINT_URL", help="S3-compatible server; default: AWS."),
]
Region = Annotated[str | None, typer.Option(envvar="AWS_REGION", help="Region of the bucket.")]
Database = Annotated[
    str | None,
    typer.Option(
        help="A team's stack instead of the local one: postgresql://user@host/name, without "
        "password (PGPASSWORD or ~/.pgpass); with --bucket."
    ),
]
Bucket = Annotated[str | None, typer.Option(help="Bucket of a team's stack.")]


@app.command(epilog="Example: vfsearch stack up")
def up() -> None:
    """Start what is not running and wait until it answers."""
    from vfsearch.cli.show import console
    from vfsearch.config import home
    from vfsearch.tracking import stack

    with console.status("looking at the stack") as line:
        info = stack.up(home(), progress=line.update)
    console.print(f"MLflow   {info.tracking_uri}")
    console.print(f"S3       {info.s3_endpoint}  bucket {info.bucket}")
    console.print(f"keys     {info.credentials_file}", soft_wrap=True)
    console.print("stop it with: vfsearch stack down (nothing is lost)")


@app.command(epilog="Example: vfsearch stack down")
def down() -> None:
    """Stop both servers; data, ports and keys are kept."""
    from vfsearch.cli.show import console
    from vfsearch.config import home
    from vfsearch.tracking import stack

    before = stack.down(home())
    stopped = [service.name for service in before.services if service.running]
    console.print(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")


@app.command(epilog="Example: vfsearch stack status   (exit code 1 unless both answer)")
def status() -> None:
    """Show both servers; exit code 0 only if both run and answer."""
    from vfsearch.cli.show import console, size, table
    from vfsearch.config import home
    from vfsearch.tracking import stack

    seen = stack.status(home())
    if not seen.services:
        console.print(f"no stack under {home()}; start one with: vfsearch stack up", soft_wrap=True)
        raise typer.Exit(1)
    rows = [
        (
            service.name,
            ("answers" if service.answering else "hangs") if service.running else "stopped",
            service.url,
            service.pid,
            size(service.memory) if service.memory else "",
        )
        for service in seen.services
    ]
    console.print(table("", ["service", "state", "url", ">pid", ">memory"], rows))
    raise typer.Exit(0 if seen.up else 1)


@app.command(epilog='Example: vfsearch stack env   (in a shell: eval "$(vfsearch stack env)")')
def env() -> None:
    """Print the variables with which MLflow, boto3 and pyarrow find the local stack; no secrets."""
    import shlex

    from vfsearch.config import home
    from vfsearch.errors import StackError
    from vfsearch.tracking import stack

    info = stack.status(home()).info
    if info is None:
        raise StackError("the local stack is not running; start it: vfsearch stack up")
    for name, value in info.environment().items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command(
    epilog="Example: vfsearch stack init --bucket team-models --writer "
    "arn:aws:iam::123456789012:role/trainer --apply"
)
def init(
    bucket: Annotated[str, typer.Option(help="Bucket; made if it does not exist.")],
    endpoint: Endpoint = None,
    region: Region = None,
    writer: Annotated[
        list[str] | None, typer.Option(help="ARN of who trains and promotes; may be repeated.")
    ] = None,
    reader: Annotated[
        list[str] | None, typer.Option(help="ARN of who only reads, as the MLflow server does.")
    ] = None,
    encryption: Annotated[
        Literal["AES256", "aws:kms"], typer.Option(help="Default encryption of objects.")
    ] = "AES256",
    kms_key: Annotated[str | None, typer.Option(help="Key of aws:kms.")] = None,
    require_tls: Annotated[
        bool | None,
        typer.Option(
            help="Refuse requests without TLS; default: only on AWS, since a server behind a TLS "
            "proxy sees plain HTTP."
        ),
    ] = None,
    settings: Annotated[
        Path, typer.Option(help="Folder of bucket-policy.json and lifecycle.json.")
    ] = SETTINGS,
    apply: Annotated[bool, typer.Option("--apply", help="Change it; without: only show.")] = False,
) -> None:
    """Set a bucket up: no public access, encryption, versions, lifecycle, rights; idempotent.

    Keys of an administrator are taken from the usual AWS configuration. Rules and statements of
    others are kept.
    """
    from vfsearch.cli.show import console, table
    from vfsearch.errors import UsageError
    from vfsearch.tracking.bucket import Wanted, set_up
    from vfsearch.tracking.bucket_settings import load_lifecycle, load_policy
    from vfsearch.tracking.storage import Storage

    plain = (endpoint or "").startswith("http://")
    if require_tls and plain:
        raise UsageError(f"--require-tls would shut out this client too: {endpoint} is plain HTTP")
    if kms_key is not None and encryption != "aws:kms":
        raise UsageError("--kms-key needs --encryption aws:kms")
    tls = endpoint is None if require_tls is None else require_tls
    wanted = Wanted(
        lifecycle=load_lifecycle(settings),
        policy=load_policy(settings, bucket, writers=writer or [], readers=reader or [], tls=tls),
        encryption=encryption,
        kms_key=kms_key,
    )
    storage = Storage(endpoint=endpoint, region=region, addressing="path" if endpoint else "auto")
    with console.status(f"looking at s3://{bucket}"):
        steps = set_up(storage, bucket, wanted, apply=apply)
    rows = [(step.setting, step.state, step.text) for step in steps]
    console.print(table(f"s3://{bucket}", ["setting", "state", "now -> wanted"], rows))
    if not writer and not reader:
        console.print("no --writer or --reader was named: nobody is given rights by the policy")
    if any(step.state == "would change" for step in steps):
        console.print("nothing was changed; to change it, add --apply")


@app.command(epilog="Example: vfsearch stack backup --out /backups/vfsearch")
def backup(
    out: Annotated[Path, typer.Option(help="Folder of backups; made if it does not exist.")],
    database: Database = None,
    bucket: Bucket = None,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Copy database and bucket while they are in use; only what is new since the last time."""
    from vfsearch.cli.show import console, size
    from vfsearch.config import home
    from vfsearch.tracking.backup import backup as copy
    from vfsearch.tracking.stack_copy import backup_local

    team = _team(database, bucket, endpoint, region)
    with console.status("backing up") as line:
        done = copy(team, out, line.update) if team else backup_local(home(), out, line.update)
    console.print(
        f"snapshot {done.snapshot}: database and {done.objects} objects ({size(done.bytes)}), "
        f"{done.moved} of them new; restore it with: vfsearch stack restore {out}",
        soft_wrap=True,
    )


@app.command(epilog="Example: vfsearch stack restore /backups/vfsearch")
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of backups.")],
    snapshot: Annotated[
        str | None, typer.Option(help="One of its snapshots; default: the newest.")
    ] = None,
    database: Database = None,
    bucket: Bucket = None,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Bring an empty stack to a backup; a stack with runs, models or objects is refused."""
    from vfsearch.cli.show import console, size
    from vfsearch.config import home
    from vfsearch.tracking.restore import restore as bring
    from vfsearch.tracking.stack_copy import restore_local

    team = _team(database, bucket, endpoint, region)
    with console.status("restoring") as line:
        done = (
            bring(team, folder, snapshot, line.update)
            if team
            else restore_local(home(), folder, snapshot, line.update)
        )
    console.print(
        f"restored snapshot {done.snapshot}: database and {done.objects} objects "
        f"({size(done.bytes)})"
    )


def _team(
    database: str | None, bucket: str | None, endpoint: str | None, region: str | None
) -> "Place | None":
    from vfsearch.errors import UsageError
    from vfsearch.tracking.backup import Place
    from vfsearch.tracking.database import Postgres
    from vfsearch.tracking.storage import Storage

    if (database is None) != (bucket is None):
        raise UsageError("--database and --bucket belong together: both for a team's stack")
    if database is None or bucket is None:
        return None
    storage = Storage(endpoint=endpoint, region=region, addressing="path" if endpoint else "auto")
    return Place(database=Postgres(database), storage=storage, bucket=bucket)
