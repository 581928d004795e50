"""Retrieval at the paper's size: all metrics against the bare matrix product of the same tiles."""

import resource
from time import perf_counter

import numpy as np
import torch

from benchmarks.record import Row, record
from vfsearch.evaluation.retrieval import GPU_TILE_BYTES, TILE_BYTES, Gallery, retrieve

PROBES, ITEMS, DIM, IDENTITIES = 21_850, 20_076, 128, 189
REPEATS = 5


def bare(probes: torch.Tensor, gallery: torch.Tensor, budget: int) -> float:
    rows = budget // (4 * len(gallery))
    buffer = torch.empty((rows, len(gallery)), device=probes.device)
    started = perf_counter()
    for start in range(0, len(probes), rows):
        tile = probes[start : start + rows]
        torch.mm(tile, gallery.T, out=buffer[: len(tile)])
    if probes.is_cuda:
        torch.cuda.synchronize()
    return perf_counter() - started


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    budget = TILE_BYTES if device == "cpu" else GPU_TILE_BYTES
    random = np.random.default_rng(0)
    owner = [np.sort(random.integers(0, IDENTITIES, count)) for count in (PROBES, ITEMS)]
    latent = random.normal(size=(IDENTITIES, DIM))
    probes, items = (
        torch.nn.functional.normalize(
            torch.from_numpy(latent[ids] * 0.3 + random.normal(size=(len(ids), DIM))).float()
        ).numpy()
        for ids in owner
    )
    left, right = (torch.from_numpy(part).to(device) for part in (probes, items))

    def everything(influence: bool = False) -> float:
        started = perf_counter()
        gallery = Gallery.of(items, owner[1], IDENTITIES)
        retrieve(probes, owner[0], gallery, influence=influence, device=device)
        return perf_counter() - started

    everything()
    # Turn by turn, so that a busy machine slows both; the best of each counts.
    times = [(bare(left, right, budget), everything(), everything(True)) for _ in range(REPEATS)]
    product, metrics, influence = (min(column) for column in zip(*times, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows: list[Row] = [
        {"what": "matrix product alone", "value": product, "unit": "s", "goal": "-"},
        {"what": "all metrics", "value": metrics, "unit": "s", "goal": "-"},
        {"what": "ratio", "value": metrics / product, "unit": "x", "goal": "<= 2"},
        {"what": "ratio with the gallery's influence (intervals)", "value": influence / product,
         "unit": "x", "goal": "-"},
        {"what": "peak resident memory of the process", "value": peak, "unit": "GiB",
         "goal": "< 1"},
    ]  # fmt: skip
    del left, right, probes, items
    rows.append(large(random))
    record(f"retrieval-{device}", rows)


def large(random: np.random.Generator) -> Row:
    """The same process' peak after a gallery ten times as large; its embeddings are 98 MiB."""
    count = 10 * ITEMS
    gallery = Gallery.of(
        random.standard_normal((count, DIM), dtype=np.float32),
        np.sort(random.integers(0, IDENTITIES, count)),
        IDENTITIES,
    )
    probes = random.standard_normal((500, DIM), dtype=np.float32)
    retrieve(probes, random.integers(0, IDENTITIES, 500), gallery, influence=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    what = f"peak after a gallery of {count:,} faces"
    return {"what": what, "value": peak, "unit": "GiB", "goal": "< 1"}


if __name__ == "__main__":
    main()
