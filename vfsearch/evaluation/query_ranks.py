"""The rank that every single query gave to what it looks for: the raw material of any analysis."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64

from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.measure import Resolved, measure
from vfsearch.evaluation.scores import pair_scores


def ranks(
    scores: Float32[np.ndarray, "queries gallery"],
) -> Float64[np.ndarray, " queries"]:
    """Rank of the positive (column 0) in its gallery, from 1; ties share their mean rank."""
    positive = scores[:, :1]
    above = (scores > positive).sum(axis=1)
    tied = (scores == positive).sum(axis=1)
    out: Float64[np.ndarray, " queries"] = above + (tied + 1) / 2
    return out


def rank_table(lists: Sequence[Resolved], embeddings: Embeddings) -> pa.Table:
    """One row per query: list, query (line of the list, from 0), probe, rank, score, positive.

    ``rank`` is that of the positive in its gallery (of the first positive in a retrieval), from 1,
    ties shared; null for verification, whose pairs have a ``score`` (cosine) and ``positive``.

    Raises:
        QueryError: paths of a list without embedding.
    """
    return pa.concat_tables([_rows(resolved, embeddings) for resolved in lists])


def write_ranks(table: pa.Table, path: Path, *, epoch: int) -> None:
    """Write the table as Parquet, with the epoch it belongs to; whole or not at all."""
    noted = table.replace_schema_metadata({"epoch": str(epoch)})
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(noted, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _rows(resolved: Resolved, embeddings: Embeddings) -> pa.Table:
    queries = resolved.queries
    count = len(queries)
    nothing = pa.nulls(count, pa.float64())
    rank: pa.Array = nothing
    score: pa.Array = nothing
    positive: pa.Array = pa.nulls(count, pa.bool_())
    if queries.kind == "match":
        probes = embeddings.rows(queries.probe_paths, queries.name)[queries.probes]
        candidates = embeddings.rows(queries.candidate_paths, queries.name)[queries.candidates]
        rank = pa.array(ranks(pair_scores(embeddings.unit, probes, candidates)))
    else:
        outcome = measure(resolved, embeddings).outcome
        if queries.kind == "retrieval":
            rank = pa.array(outcome[:, -1])
        else:
            score, positive = pa.array(outcome[:, 0]), pa.array(resolved.positive)
    paths = pa.array(list(queries.probe_paths), pa.string())
    return pa.table(
        {
            "list": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [queries.name]),
            "query": pa.array(np.arange(count, dtype=np.int32)),
            "probe": pa.DictionaryArray.from_arrays(queries.probes, paths),
            "rank": rank,
            "score": score,
            "positive": positive,
        }
    )
