"""The training step of the paper's model: written straightforwardly beside the project's own.

Both run turn by turn in one process; what counts is the median of the ratios. ``--batch`` and
``--rounds`` for other sizes; on a GPU also 512, with the share of its measured bf16 matrix rate.
"""

import statistics
from time import perf_counter, process_time
from typing import Annotated, Any

import numpy as np
import torch
import torchaudio
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import Row, record
from vfsearch.config import RunConfig
from vfsearch.corpus.batches import Batch
from vfsearch.corpus.layout import Identity
from vfsearch.corpus.store import Store
from vfsearch.model.alignment import AlignmentModel, build_model
from vfsearch.training.distributed import World
from vfsearch.training.run import Run

IDENTITIES, SECONDS = 924, (2.5, 3.75, 5.0)
GPU_BATCH = 512


def settings(batch: int, **training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "corpus": {"root": "unused"},
            "loss": {"margin": 5.4},
            "classifier": {"norm_bound": 10.0},
            "training": {"batch": batch, "audio_step": 1.25, "augment": False, **training},
            "workers": {"count": 1},
            "tracking": {"enabled": False},
        }
    )


def store(identities: int = IDENTITIES, *, side: int = 112, seconds: float = SECONDS[-1]) -> Store:
    """One face and one voice per identity: the step is measured, not the reading."""
    random = np.random.default_rng(0)
    owner = np.arange(identities)
    length = round(seconds * 16_000)
    voices = random.integers(-9000, 9000, (16, length), np.int16)
    return Store(
        name="train",
        identities=tuple(
            Identity(voice_id=f"v{k}", face_id=f"f{k}", gender="m", nationality="X") for k in owner
        ),
        split_hash="benchmark",
        faces=random.integers(0, 256, (identities, side, side, 3), np.uint8),
        face_identity=owner,
        face_paths=[f"f{k}" for k in owner],
        samples=voices.reshape(-1),
        voice_offsets=(owner % 16) * length,
        voice_lengths=np.full(identities, length),
        voice_identity=owner,
        voice_paths=[f"v{k}" for k in owner],
        excluded=(),
    )


class Straightforward:
    """The same model and losses in eager fp32, contiguous, as one would first write them."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(0)
        self.model: AlignmentModel = build_model(config.model, IDENTITIES).to(device).train()
        self.model.voice.features = PlainMel().to(device)  # type: ignore[assignment]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, foreach=False
        )
        self.weights = torch.ones(IDENTITIES, device=device)
        self.averages = torch.full((IDENTITIES,), 14.0, device=device)

    def step(self, batch: Batch) -> float:
        faces = batch.faces.contiguous().to(self.device)
        voices = batch.voices.to(self.device)
        labels = batch.labels.to(self.device)
        x, v = self.model.embed_faces(faces), self.model.embed_voices(voices)
        omega = self.model.classifier
        weights = self.weights[labels]
        ce_face = F.cross_entropy(omega(x), labels, reduction="none")
        ce_voice = F.cross_entropy(omega(v), labels, reduction="none")
        loss = (ce_face * weights).mean() + (ce_voice * weights).mean()
        loss = loss + 0.5 * (self.explicit(v, x, labels) + self.explicit(x, v, labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for row in omega.weight:
                norm = row.norm()
                if norm > 10.0:
                    row.mul_(10.0 / norm)
            for label, value in zip(labels.tolist(), (ce_face + ce_voice).tolist(), strict=True):
                self.averages[label] = 0.9 * self.averages[label] + 0.1 * value
        return loss.item()

    def explicit(self, anchors: Tensor, others: Tensor, labels: Tensor) -> Tensor:
        similarity = anchors @ F.normalize(others, dim=1).T
        losses = []
        for i in range(len(anchors)):
            negatives = similarity[i][labels != labels[i]]
            losses.append(torch.log(5.4 + torch.exp(negatives - similarity[i, i]).sum()))
        return (torch.stack(losses) * self.weights[labels]).mean()


class PlainMel(nn.Module):
    """The same features by torchaudio's own transform."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            16_000, n_fft=512, win_length=400, hop_length=160, n_mels=40,
            window_fn=torch.hamming_window,
        )  # fmt: skip

    def forward(self, voices: Tensor) -> Tensor:
        bands = torch.log(self.mel(voices.float() / 32768) + 1e-6)
        mean, deviation = bands.mean(2, keepdim=True), bands.std(2, keepdim=True)
        return (bands - mean) / (deviation + 1e-5)


class Ours:
    """The project's own step under some settings."""

    def __init__(self, config: RunConfig, data: Store, device: torch.device) -> None:
        self.run = Run(config, data, device=device, world=World())
        self.run.begin_epoch()

    def step(self, batch: Batch) -> None:
        self.run.advance(batch)


def batches(data: Store, batch: int) -> list[Batch]:
    """One batch of each length."""
    made = []
    for index, seconds in enumerate(SECONDS):
        rows = np.arange(batch) + index
        samples = np.stack([data.voice(int(r))[: round(seconds * 16_000)] for r in rows])
        made.append(
            Batch(
                faces=torch.from_numpy(data.faces[rows]),
                voices=torch.from_numpy(samples),
                labels=torch.from_numpy(rows),
            )
        )
    return made


def timed(step: Any, batch: Batch, device: torch.device) -> float:
    """Seconds of a step; on CPUs of processor time, so that other work there does not count."""
    if device.type == "cpu":
        started = process_time()
        step(batch)
        return process_time() - started
    started = perf_counter()
    step(batch)
    torch.cuda.synchronize()
    return perf_counter() - started


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations per second of a square product, best of some."""
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.mm
    times = []
    for _ in range(6):
        started = perf_counter()
        product(one, two)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - started)
    return 2 * size**3 / min(times)


VARIANTS: dict[str, dict[str, Any]] = {
    "fp32, nothing switched on": {},
    "bf16": {"precision": "bf16"},
    "bf16, channels_last": {"precision": "bf16", "channels_last": True},
    "bf16, channels_last, compile": {
        "precision": "bf16", "channels_last": True, "compile": True,
    },
}  # fmt: skip
FAST = VARIANTS["bf16, channels_last, compile"]


def compare(
    batch: int, rounds: int, device: torch.device, only_fast: bool, compiled: bool
) -> list[Row]:
    data = store()
    samples = batches(data, batch)
    plain = Straightforward(settings(batch), device)
    names = [name for name, chosen in VARIANTS.items() if compiled or not chosen.get("compile")]
    names = names[-1:] if only_fast else names
    ours = {name: Ours(settings(batch, **VARIANTS[name]), data, device) for name in names}
    started = perf_counter()
    for name, each in ours.items():
        for sample in samples if VARIANTS[name] == FAST else samples[:1]:
            each.step(sample)  # compiles once per length
    warm_up = perf_counter() - started
    base: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        sample = samples[turn % len(samples)]
        base.append(timed(plain.step, sample, device))
        for name, each in ours.items():
            times[name].append(timed(each.step, sample, device))
        print(f"  batch {batch}, turn {turn}: straightforward {base[-1]:.3f} s,",
              ", ".join(f"{times[n][-1]:.3f}" for n in names), flush=True)  # fmt: skip
    rows = [Row(what=f"batch {batch}: straightforward step", value=statistics.median(base),
                unit="s", goal="-")]  # fmt: skip
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(base, times[name], strict=True))
        goal = ">= 4" if name == names[-1] else "-"
        rows.append(Row(what=f"batch {batch}: {name}", value=ratio, unit="x", goal=goal))
    rows.append(Row(what=f"batch {batch}: first steps, compiling", value=warm_up,
                    unit="s", goal="-"))  # fmt: skip
    return rows


def utilisation(batch: int, device: torch.device) -> Row:
    """Share of the matrix rate that a whole step reaches; operations as counted, forward once."""
    ours = Ours(settings(batch, **FAST), store(), device)
    sample = batches(store(), batch)[1]
    model = ours.run.model
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        model(sample.faces.to(device), sample.voices.to(device))
    for _ in range(3):
        ours.step(sample)
    seconds = statistics.median(timed(ours.step, sample, device) for _ in range(10))
    reached = 3 * counter.get_total_flops() / seconds
    share = 100 * reached / matrix_rate(device, torch.bfloat16, 8192)
    return Row(what=f"batch {batch}: share of the bf16 matrix rate", value=share, unit="%",
               goal=">= 40")  # fmt: skip


def main(
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns.")] = 5,
    only_fast: Annotated[bool, typer.Option(help="Leave out the steps between.")] = False,
    compiled: Annotated[
        bool | None,
        typer.Option(help="The compiled step, too (default: on GPUs; 2 cores take minutes)."),
    ] = None,
) -> None:
    gpu = torch.cuda.is_available()
    compiled = gpu if compiled is None else compiled
    device = torch.device("cuda" if gpu else "cpu")
    rows: list[Row] = []
    for size in batch or ([64] if gpu else [16]):
        rows += compare(size, rounds if not gpu else 20, device, only_fast, compiled)
    if gpu:
        rows.append(utilisation(GPU_BATCH, device))
    size = 8192 if gpu else 2048
    rates = [matrix_rate(device, kind, size) / 1e9 for kind in (torch.float32, torch.bfloat16)]
    rows.append(Row(what="matrix rate of fp32", value=rates[0], unit="Gop/s", goal="-"))
    rows.append(Row(what="matrix rate of bf16", value=rates[1], unit="Gop/s", goal="-"))
    record(f"step-{device.type}", rows)


if __name__ == "__main__":
    typer.run(main)
