"""Small splits with generated lists and embeddings of known signal."""

import numpy as np

from vfsearch.corpus.layout import Identity
from vfsearch.corpus.query_generation import Instances, generate
from vfsearch.evaluation.embeddings import Embeddings


def small_case(seed, identities=10, voices=4, faces=3, n=(2, 4), strata=("U", "G")):
    people = [
        Identity(
            voice_id=f"id{row}",
            face_id=f"F{row}",
            gender="mf"[row % 2],
            nationality="ab"[row % 3 > 0],
        )
        for row in range(identities)
    ]
    instances = Instances(
        voice_paths=[f"id{i}/v/{k}.wav" for i in range(identities) for k in range(voices)],
        voice_identity=np.repeat(np.arange(identities), voices),
        face_paths=[f"F{i}/{k}.jpg" for i in range(identities) for k in range(faces)],
        face_identity=np.repeat(np.arange(identities), faces),
    )
    made = generate(instances, people, split="test", n=n, strata=strata, seed=seed)
    return people, made.lists, instances


def embeddings_of(instances, *, signal, seed, dim=16) -> Embeddings:
    random = np.random.default_rng(seed)
    identity = np.concatenate([instances.voice_identity, instances.face_identity])
    latent = np.random.default_rng(99).normal(size=(identity.max() + 1, dim))
    matrix = signal * latent[identity] + random.normal(size=(len(identity), dim))
    return Embeddings(
        paths=[*instances.voice_paths, *instances.face_paths], matrix=matrix.astype(np.float32)
    )
