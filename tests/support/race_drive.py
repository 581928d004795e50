"""A race in a process of its own, to be killed: ``race_drive.py SWEEP SEEDS``, a line per step."""

import sys

from vfsearch.search.race import race


def main() -> None:
    """Race the two best trials."""
    race(
        sys.argv[1],
        top=2,
        seeds=int(sys.argv[2]),
        bootstrap=200,
        progress=lambda text: print(text, flush=True),
    )


if __name__ == "__main__":
    main()
