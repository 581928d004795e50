"""The data path: decoding into the store, opening VoxCeleb1's, reading batches, sharing memory.

Goals are about wall time on a machine of one's own; processor time stands beside it, for machines
that are shared.
"""

import multiprocessing as mp
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np
import psutil
import soundfile

from benchmarks.record import Row, record
from vfsearch.config import CorpusConfig
from vfsearch.corpus.batches import BatchStream
from vfsearch.corpus.layout import Identity, format_identities, scan_split, split_hash
from vfsearch.corpus.store import open_store, store_folder
from vfsearch.corpus.store_build import EXCLUDED, FACES, INDEX, VOICES, build
from vfsearch.corpus.synth import Recipe, synthesise

SIDE = 112
TRIES = 3
READERS = 8
PAPER = {"identities": 924, "videos": 18, "takes": 7, "faces": 116}
"""113,652 voices and 107,184 faces."""
MOST_LINKS = 50_000
"""Names of one file: file systems allow some 65,000."""


def people(count: int) -> list[Identity]:
    return [
        Identity(
            voice_id=f"id{row:05d}", face_id=f"P_{row}", gender="mf"[row % 2], nationality="UK"
        )
        for row in range(count)
    ]


def real_corpus(root: Path, copies: int = 20) -> CorpusConfig:
    """24 synthetic identities with four voices and faces each, under ``copies`` names each."""
    made = root / "made"
    synthesise(made, Recipe(identities=24, voices=4, faces=4, seed=1, split=(0.34, 0.33, 0.33)))
    for copy in range(copies):
        for kind, pattern in (("wav", "*/*.wav"), ("faces", "*.jpg")):
            for number, folder in enumerate(sorted((made / kind).iterdir())):
                row = copy * 24 + number
                target = root / kind / (f"id{row:05d}" if kind == "wav" else f"P_{row}")
                for file in folder.glob(pattern):
                    name = target / file.relative_to(folder)
                    name.parent.mkdir(parents=True, exist_ok=True)
                    name.hardlink_to(file)
    who = people(24 * copies)
    (root / "vox1_train.csv").write_bytes(format_identities(who, "train").encode())
    return CorpusConfig(root=root, face_size=SIDE, store=root / "store")


def read_voice(path: str) -> int:
    return len(soundfile.read(path, dtype="int16")[0])


def read_face(path: str) -> int:
    return int(image(path).shape[0])


def read_sized_face(path: str) -> int:
    return int(cv2.resize(image(path), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).shape[0])


def image(path: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)


def seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def decoding(config: CorpusConfig) -> list[Row]:
    """The store against nothing but the decoders, in threads or processes, whichever is faster."""
    split = scan_split(config, "train")
    voices = [str(config.root / "wav" / item.path) for item in split.voices]
    faces = [str(config.root / "faces" / item.path) for item in split.faces]
    cores = len(os.sched_getaffinity(0))
    cv2.setNumThreads(1)

    def bare(pool: Executor, face: Callable[[str], int]) -> Callable[[], None]:
        def work() -> None:
            for function, paths in ((read_voice, voices), (face, faces)):
                list(pool.map(function, paths, chunksize=32))

        return work

    wall = dict.fromkeys(("decoders", "and resizing", "store", "writing"), np.inf)
    cpu = dict(wall)
    with ThreadPoolExecutor(cores) as threads, ProcessPoolExecutor(cores) as processes:
        for attempt in range(TRIES):
            where = config.model_copy(update={"store": config.root / f"store{attempt}"})
            folder = store_folder(where, split, split_hash(split))
            folder.parent.mkdir()
            for name, work in (
                ("decoders", bare(threads, read_face)),
                ("and resizing", bare(threads, read_sized_face)),
                ("store", partial(build, where, split, folder, lambda _done, _all: None)),
            ):
                started = process_time()
                wall[name] = min(wall[name], seconds(work))
                cpu[name] = min(cpu[name], process_time() - started)
            # Processes may be faster than threads; their processor time is not this process's.
            for name, face in (("decoders", read_face), ("and resizing", read_sized_face)):
                wall[name] = min(wall[name], seconds(bare(processes, face)))
            content = [(folder / name).read_bytes() for name in (VOICES, FACES)]
            wall["writing"] = min(wall["writing"], seconds(partial(write, config.root, content)))
    files = len(voices) + len(faces)
    what = f"{files:,} files (4-10 s, 160 px) decoded by soundfile and OpenCV alone"

    def share(name: str, goal: str, of: dict[str, float], how: str) -> Row:
        told = "decoding" if name == "decoders" else "decoding and resizing to 112 px"
        what = f"speed of building the store, of bare {told} ({how})"
        return {"what": what, "value": of[name] / of["store"], "unit": "x", "goal": goal}

    return [
        {"what": what, "value": files / wall["decoders"], "unit": "files/s", "goal": "-"},
        share("and resizing", ">= 0.9", wall, "wall"),
        share("decoders", "-", wall, "wall"),
        share("and resizing", "-", cpu, "processor"),
        share("decoders", "-", cpu, "processor"),
        {
            "what": "share of the store's time that writing its bytes alone takes",
            "value": wall["writing"] / wall["store"],
            "unit": "x",
            "goal": "-",
        },
    ]


def write(root: Path, content: list[bytes]) -> None:
    for number, part in enumerate(content):
        with (root / f"plain{number}").open("wb") as file:
            file.write(part)
            file.flush()
            os.fsync(file.fileno())


def reading(config: CorpusConfig) -> list[Row]:
    """Pairs of 112 px faces and 2.5 s voices in batches of 64, on one core."""
    store = open_store(config, "train")
    stream = BatchStream(store, batch=64, seconds=(2.5, 2.5), seed=0)
    for _ in range(2 * stream.steps_per_pass):
        next(stream)
    best = spent = np.inf
    steps = 300
    for _ in range(TRIES):
        started = process_time()
        best = min(best, seconds(lambda: [next(stream) for _ in range(steps)]))
        spent = min(spent, process_time() - started)
    what = "face-voice pairs (112 px, 2.5 s) read from the store by one process"
    return [
        {"what": what, "value": 64 * steps / best, "unit": "pairs/s", "goal": ">= 20,000"},
        {
            "what": "the same, a second of its processor time",
            "value": 64 * steps / spent,
            "unit": "pairs/s",
            "goal": "-",
        },
    ]


def reader(config: CorpusConfig, seed: int, barrier: Barrier, told: "mp.Queue[int]") -> None:
    """Grow by what a trial keeps of the store: its index, its buffers and the pages it touched."""
    process = psutil.Process()
    np.zeros(2**20).sum()
    before = process.memory_full_info().pss
    barrier.wait()
    store = open_store(config, "train")
    stream = BatchStream(store, batch=64, seconds=(2.5, 2.5), seed=seed)
    for _ in range(4 * stream.steps_per_pass):
        next(stream)
    # A trial reads the whole split in time, whichever windows the batches above took.
    int(store.faces[:, ::16].sum()) + int(store.samples[::1024].sum())
    barrier.wait()
    told.put(process.memory_full_info().pss - before)
    barrier.wait()


def grown(config: CorpusConfig, readers: int) -> int:
    context = mp.get_context("spawn")
    barrier, told = context.Barrier(readers), context.Queue()
    started = [
        context.Process(target=reader, args=(config, seed, barrier, told))
        for seed in range(readers)
    ]
    for process in started:
        process.start()
    total = sum(told.get(timeout=300) for _ in started)
    for process in started:
        process.join()
    return total


def sharing(config: CorpusConfig) -> list[Row]:
    """Proportional set sizes: a page that n processes map counts 1/n in each."""
    one, many = grown(config, 1), grown(config, READERS)
    return [
        {"what": "memory that one reader adds", "value": one / 2**20, "unit": "MiB", "goal": "-"},
        {
            "what": f"memory that {READERS} readers add, of one",
            "value": many / one,
            "unit": "x",
            "goal": "< 1.3",
        },
    ]


@contextmanager
def paper_corpus(root: Path) -> Iterator[tuple[CorpusConfig, int]]:
    """Files of VoxCeleb1's number (names of a few), and a sparse store of its size."""
    root.mkdir()
    names = 0

    def name(path: Path) -> None:
        nonlocal names
        source = root / f"source{names // MOST_LINKS}"
        source.touch()
        path.hardlink_to(source)
        names += 1

    who = people(PAPER["identities"])
    for row, one in enumerate(who):
        for video in range(PAPER["videos"]):
            folder = root / "wav" / one.voice_id / f"video{video:02d}"
            folder.mkdir(parents=True)
            for take in range(PAPER["takes"] - (video % 6 == 0)):
                name(folder / f"{take:05d}.wav")
        folder = root / "faces" / one.face_id
        folder.mkdir(parents=True)
        for face in range(PAPER["faces"]):
            name(folder / f"{row:04d}_{face:03d}.jpg")
    (root / "vox1_train.csv").write_bytes(format_identities(who, "train").encode())
    config = CorpusConfig(root=root, face_size=SIDE, store=root / "store")
    split = scan_split(config, "train")
    folder = store_folder(config, split, split_hash(split))
    folder.mkdir(parents=True)
    lengths = np.full(len(split.voices), 8 * 16_000, np.int64)
    np.savez(
        folder / INDEX,
        voice_rows=np.arange(len(split.voices)),
        face_rows=np.arange(len(split.faces)),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )
    (folder / EXCLUDED).write_text("[]")
    sizes = {VOICES: 2 * int(lengths.sum()), FACES: len(split.faces) * SIDE * SIDE * 3}
    for file, size in sizes.items():
        (folder / file).touch()
        os.truncate(folder / file, size)
    yield config, sum(sizes.values())


def opening(root: Path) -> list[Row]:
    with paper_corpus(root) as (config, size):
        process = psutil.Process()
        before = process.memory_info().rss
        times, spent = [], []
        for _ in range(TRIES):
            started, begun = perf_counter(), process_time()
            store = open_store(config, "train")
            times.append(perf_counter() - started)
            spent.append(process_time() - begun)
        assert len(store.voice_paths) > 113_000
        taken = process.memory_info().rss - before
    return [
        {
            "what": f"opening a store of {len(store.voice_paths):,} voices and "
            f"{len(store.face_paths):,} faces",
            "value": min(times),
            "unit": "s",
            "goal": "< 2",
        },
        {"what": "its processor time", "value": min(spent), "unit": "s", "goal": "-"},
        {
            "what": f"memory it takes, of {size / 2**30:.0f} GiB of decoded files",
            "value": taken / 2**20,
            "unit": "MiB",
            "goal": "-",
        },
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vfsearch-data-") as folder:
        root = Path(folder)
        config = real_corpus(root / "real")
        rows = [*decoding(config), *reading(config), *sharing(config), *opening(root / "paper")]
    record("data", rows)


if __name__ == "__main__":
    main()
