"""Compiled kernels that leave the interpreter's lock, and threads that run them on row ranges."""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import ParamSpec, TypeVar, cast

import numba
import torch

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for the machine's instruction set; kept on disk, so only the first process pays."""
    # error_model numpy: no branch per division. No fastmath: ties must stay exact.
    # unwrap: under test, shape checks are put around functions, which no compiler understands.
    plain = inspect.unwrap(function)
    wrapped = numba.njit(cache=True, nogil=True, error_model="numpy")(plain)
    return cast(Callable[P, R], wrapped)


def over_rows(rows: int, work: Callable[[int, int], None]) -> None:
    """Run ``work(start, stop)`` on equal ranges of rows, one per torch thread."""
    threads = min(torch.get_num_threads(), rows)
    if threads <= 1:
        if rows:
            work(0, rows)
        return
    bounds = [rows * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, start, stop) for start, stop in pairwise(bounds)]:
            done.result()
