"""Trials are compared only if they were measured alike: same split, query lists and evaluation.

The first evaluation that a study learns of (from a trial, or from what it was warm-started with)
binds it; the key is `evaluation.identity.evaluation_key`.
"""

import optuna

from vfsearch.errors import SweepError
from vfsearch.evaluation.identity import difference
from vfsearch.search.records import EVALUATION, STUDY_EVALUATION


class IncomparableError(SweepError):
    """A trial was measured otherwise than the others."""

    def __init__(self, message: str, *, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number
        """The trial, if it is one of this sweep."""


def evaluation_of(study: optuna.Study) -> str | None:
    """The evaluation that binds a study; None before the first."""
    found: str | None = study.user_attrs.get(STUDY_EVALUATION)
    return found


def bind(study: optuna.Study, evaluation: str, what: str, *, number: int | None = None) -> None:
    """Bind a study to an evaluation; whoever calls holds the driver's lock.

    Args:
        study: The study.
        evaluation: Key of the evaluation.
        what: What was measured by it, for the message.
        number: Of the trial that it is, if it is one.

    Raises:
        IncomparableError: the study is bound to another.
    """
    bound = evaluation_of(study)
    if bound is None:
        study.set_user_attr(STUDY_EVALUATION, evaluation)
    elif bound != evaluation:
        raise IncomparableError(
            f"{what} cannot be compared with sweep {study.study_name}, for they differ in the "
            f"{difference(bound, evaluation)}; restore the corpus and the version that the sweep "
            "was begun with, or start a sweep under another --name",
            number=number,
        )


def check(study: optuna.Study) -> None:
    """See that all trials of a study were measured alike.

    Raises:
        IncomparableError: they were not.
    """
    bound = evaluation_of(study)
    for trial in study.get_trials(deepcopy=False):
        key = trial.user_attrs.get(EVALUATION)
        if bound is not None and key is not None and key != bound:
            raise IncomparableError(
                f"trial {trial.number} cannot be compared with the others of sweep "
                f"{study.study_name}, for they differ in the {difference(bound, key)}",
                number=trial.number,
            )
