"""Lists, metrics and intervals at the paper's size: reading, generating, scoring, bootstrapping."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.record import Row, record
from vfsearch.corpus.layout import read_identities
from vfsearch.corpus.queries import identities_of, read_list, write_list
from vfsearch.corpus.query_generation import Instances, generate
from vfsearch.evaluation.bootstrap import draw, replicates
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.measure import measure, resolve

LISTS = Path(__file__).parents[1] / "tests" / "data" / "lists"


@contextmanager
def timed(rows: list[Row], what: str, goal: str) -> Iterator[None]:
    """A row of wall time, and one of processor time for machines that are shared."""
    started, begun = perf_counter(), process_time()
    yield
    rows.append({"what": what, "value": perf_counter() - started, "unit": "s", "goal": goal})
    spent = process_time() - begun
    rows.append({"what": f"{what}: processor time", "value": spent, "unit": "s", "goal": "-"})


def main() -> None:
    rows: list[Row] = []
    identities = read_identities(LISTS / "vox1_test.csv")
    for name in ("verify_v2f_test", "match_v2f_2_val"):
        with timed(rows, f"read {name}", "< 1"):
            read_list(LISTS / f"{name}.txt.gz")
    retrieval = read_list(LISTS / "reterival_v2f_test.txt.gz")
    instances = Instances(
        voice_paths=retrieval.probe_paths,
        voice_identity=identities_of(retrieval.probe_paths, identities, "voice"),
        face_paths=retrieval.candidate_paths,
        face_identity=identities_of(retrieval.candidate_paths, identities, "face"),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        timed(rows, "generate and write every list of the paper", "< 60"),
    ):
        made = generate(
            instances,
            identities,
            split="test",
            n=range(2, 11),
            strata=("U", "G", "N", "GN"),
            seed=0,
        )
        for queries in made.lists:
            write_list(queries, Path(folder))
    random = np.random.default_rng(0)
    owner = np.concatenate([instances.voice_identity, instances.face_identity])
    latent = random.normal(size=(len(identities), 128)) * 0.3
    embeddings = Embeddings(
        paths=[*instances.voice_paths, *instances.face_paths],
        matrix=(latent[owner] + random.normal(size=(len(owner), 128))).astype(np.float32),
    )
    measure(resolve(made.lists[1], identities), embeddings).metrics()  # compiles
    verify = read_list(LISTS / "verify_v2f_test.txt.gz")
    with timed(rows, "verification, 65,550 pairs", "< 2"):
        measure(resolve(verify, identities), embeddings).metrics()
    for size in (2, 10):
        match = next(q for q in made.lists if q.name == f"match_v2f_{size}_test")
        many = replace(
            match, probes=np.tile(match.probes, 10), candidates=np.tile(match.candidates, (10, 1))
        )
        with timed(rows, f"1:{size} matching, 655,500 rows", "< 2"):
            measure(resolve(many, identities), embeddings).metrics()
    measured = [
        measure(resolve(queries, identities), embeddings, influence=True) for queries in made.lists
    ]
    replicates(measured[1], draw(measured[1].resolved, 1, 0))  # compiles
    with timed(rows, f"2,000 replicates of the paper's {len(measured)} lists", "< 60"):
        for each in measured:
            replicates(each, draw(each.resolved, 2000, 0))
    record("evaluation", rows)


if __name__ == "__main__":
    main()
