"""The registered model, loaded by MLflow from this very file ("models from code").

Input: one row per voice or face. ``modality`` is ``voice`` or ``face``; the file is in ``content``
(its bytes; base64 in JSON) or named by ``path`` (only in one's own process, never on a server).
Parameter ``task``: ``embed`` gives one unit embedding per row; ``score`` gives the cosine of every
voice with every face, or, with a column ``pair``, of those that carry the same label.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from vfsearch.registry.embedder import FileEmbedder, Source


class VoiceFaceModel(PythonModel):
    """Embeds voices and faces, or scores pairs of them; needs neither Ray nor Optuna."""

    def load_context(self, context: Any) -> None:
        """Load the checkpoint (safetensors and JSON) among the model's artifacts."""
        self._embedder = FileEmbedder.load(Path(context.artifacts["checkpoint"]))

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow demands the name
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Embeddings, or scores.

        Returns:
            ``embed``: columns ``modality`` and ``embedding``, rows as in the input. ``score``:
            columns ``voice`` and ``face``, numbers of input rows, and ``score`` in [-1, 1].

        Raises:
            ValueError: a row without file, a file that cannot be decoded, an unknown task.
        """
        task = (params or {}).get("task", "embed")
        if task not in ("embed", "score"):
            raise ValueError(f"task must be 'embed' or 'score', not {task!r}")
        rows = model_input.reset_index(drop=True)
        # The scoring server's application is loaded in its worker processes and nowhere else.
        serving = "mlflow.pyfunc.scoring_server.app" in sys.modules
        sources = [_source(number, row, serving) for number, row in rows.iterrows()]
        embedded = self._embedder.embed(sources)
        if task == "embed":
            return pd.DataFrame(
                {
                    "modality": [source.modality for source in sources],
                    "embedding": [vector.tolist() for vector in embedded],
                }
            )
        voices = [i for i, source in enumerate(sources) if source.modality == "voice"]
        faces = [i for i, source in enumerate(sources) if source.modality == "face"]
        if not voices or not faces:
            raise ValueError(
                f"task 'score' needs voices and faces, not {len(voices)} and {len(faces)}"
            )
        scores = embedded[voices].astype(float) @ embedded[faces].astype(float).T
        labels = rows["pair"].tolist() if "pair" in rows else [None] * len(rows)
        return pd.DataFrame(
            [
                {"voice": voice, "face": face, "score": float(scores[i, j])}
                for i, voice in enumerate(voices)
                for j, face in enumerate(faces)
                if "pair" not in rows or labels[voice] == labels[face]
            ],
            columns=["voice", "face", "score"],
        )


def _source(number: Any, row: "pd.Series[Any]", serving: bool) -> Source:
    modality = row["modality"]
    if modality not in ("voice", "face"):
        raise ValueError(f"row {number}: modality must be 'voice' or 'face', not {modality!r}")
    content, path = row.get("content"), row.get("path")
    if isinstance(content, bytes) and content:
        return Source(modality=modality, name=f"row {number}", data=content)
    if isinstance(path, str) and path:
        if serving:
            raise ValueError(
                f"row {number}: a server reads no files of its own; send the file in 'content'"
            )
        return Source(modality=modality, name=path, data=Path(path).read_bytes())
    raise ValueError(f"row {number}: 'content' or 'path' must hold the {modality}")


set_model(VoiceFaceModel())
