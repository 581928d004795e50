"""Models are compared on one split only."""

import pytest

from vfsearch.errors import UsageError
from vfsearch.registry.comparison import same_split


def test_models_on_different_splits_are_refused() -> None:
    same_split({})
    same_split({"a": "1" * 64, "b": "1" * 64})
    with pytest.raises(UsageError, match=r"a on 111111111111, b on 222222222222; name one corpus"):
        same_split({"a": "1" * 64, "b": "2" * 64})
