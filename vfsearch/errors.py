"""The family of errors that a user can meet.

Each carries one message (what, where, what would be right) and the exit code with which the
command line ends. Nothing here is a bug of the program: a bug keeps its traceback.
"""

from collections.abc import Sequence


class VfsearchError(Exception):
    """An error that the user can mend; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(VfsearchError):
    """A configuration or search-space file is wrong; every problem of the file is listed."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "" if count == 1 else f"{count} problems:\n  "
        super().__init__(head + "\n  ".join(self.problems))


class UsageError(VfsearchError):
    """Arguments that do not fit together, or a name that does not exist."""

    exit_code = 2


class CorpusError(VfsearchError):
    """Files, splits or CSVs of the corpus do not allow what was asked."""

    exit_code = 3


class UnusableSplitError(CorpusError):
    """A split loses identities; ``excluded`` holds path and reason of every unusable file."""

    def __init__(self, message: str, excluded: Sequence[tuple[str, str]]) -> None:
        self.excluded = tuple(excluded)
        super().__init__(message)


class QueryError(VfsearchError):
    """A query list or the embeddings for it are incomplete or malformed."""

    exit_code = 3


class CheckpointError(VfsearchError):
    """A checkpoint is missing, damaged or not of a safe format."""

    exit_code = 4


class TrainingDiverged(VfsearchError):  # noqa: N818 - an outcome of the settings
    """The loss or a parameter is no longer finite; names the step and the last losses."""

    exit_code = 8


class TrackingError(VfsearchError):
    """The tracking server or the artifact store cannot be reached or refuses."""

    exit_code = 5


class StackError(VfsearchError):
    """The local servers cannot be started or stopped."""

    exit_code = 5


class SweepError(VfsearchError):
    """A sweep cannot run, or ended without a usable trial."""

    exit_code = 6


class PromotionRefused(VfsearchError):  # noqa: N818 - a decision, not a malfunction
    """The promotion policy says no; the message holds the reasons."""

    exit_code = 7


class ClusterError(VfsearchError):
    """A cluster cannot be prepared, reached or told what to do."""

    exit_code = 9
