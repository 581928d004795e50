"""A sweep on the Ray cluster that this machine is the head of: what ``ray submit`` runs.

    ray submit CLUSTER.yaml cluster/sweep.py search_spaces/paper.yaml --trials 64

Takes what ``vfsearch sweep`` takes and calls what it calls; ``--resume`` continues a sweep whose
head or driver was lost.
"""

import sys

from vfsearch.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["sweep", "--address", "auto"]
    main()
