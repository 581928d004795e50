"""The command line: every command parses, calls and prints; the work is done elsewhere.

Exit codes: 0 done; 2 wrong arguments or configuration; 3 corpus or query lists; 4 checkpoint;
5 tracking or local servers; 6 sweep; 7 promotion refused; 9 cluster; 130 interrupted; 1 anything
else.
"""

import errno
import sys

import typer

from vfsearch.cli import (
    cluster,
    corpus,
    demo,
    driver,
    evaluation,
    promotion,
    queries,
    race,
    space,
    stack,
    sweep,
    training,
)
from vfsearch.errors import VfsearchError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Distributed hyperparameter search for voice-face association learning.",
)
app.add_typer(corpus.app, name="corpus")
app.add_typer(queries.app, name="queries")
app.add_typer(space.app, name="space")
app.add_typer(stack.app, name="stack")
app.add_typer(cluster.app, name="cluster")
for module in (training, sweep, driver, race, evaluation, promotion, demo):
    module.register(app)

_WRITING = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def main() -> None:
    """Run a command and turn a user's error into one message and an exit code."""
    try:
        app()
    except VfsearchError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in _WRITING or error.filename is None:
            raise
        _fail(f"{error.filename}: cannot be written or read ({error.strerror})", 1)
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept", 130)


def _fail(message: str, code: int) -> None:
    typer.echo(f"vfsearch: error: {message}", err=True)
    sys.exit(code)
