"""A sweep on the Ray cluster that this machine is the head of: what ``ray submit`` runs.

    ray submit cluster/local.yaml cluster/sweep.py -- search_spaces/paper.yaml --trials 64

Takes what ``vfsearch sweep`` takes and calls what it calls, detached: the sweep goes on when the
terminal is closed. ``--resume`` continues a sweep whose head or driver was lost.
"""

import os
import sys
from pathlib import Path

from vfsearch.cli import main

if __name__ == "__main__":
    spaces = Path.home() / "vfsearch"  # where the launcher puts search_spaces/
    if spaces.is_dir():
        os.chdir(spaces)
    sys.argv[1:1] = ["sweep", "--address", "auto", "--detach"]
    main()
