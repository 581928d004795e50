"""Commands run in this process, as a user's shell would see them."""

import sys

import pytest

from vfsearch.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    sys.argv = ["vfsearch", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def complains(result: tuple[int, str, str], code: int, *words: str) -> None:
    """One message on standard error, this exit code, no traceback."""
    assert result[0] == code, result
    assert "Traceback" not in result[2]
    assert result[2].count("vfsearch: error:") == 1
    for word in words:
        assert word in result[2], result[2]
