"""``vfsearch stack``: MLflow and S3 on this machine, loopback only."""

import typer

app = typer.Typer(no_args_is_help=True, help="MLflow and S3 on this machine, loopback only.")


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
