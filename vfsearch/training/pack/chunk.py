"""Runs that step together: their heads and classifiers stacked, everything else their own.

A member is an ordinary `Run`: its plan, batch stream, optimiser, admissions and checkpoints are
those of a run alone. While it is in a chunk its parameters, statistics and loss averages are rows
of the chunk's stacked tensors, so a step needs the operations of one run for all members; what is
the members' own (draws, learning rates, updates) goes over them one by one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vfsearch.corpus.batches import Drawn
from vfsearch.corpus.features import Features
from vfsearch.loss.packed import Factors, packed_objective
from vfsearch.training.meter import EpochMeter
from vfsearch.training.objective import Objective
from vfsearch.training.run import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureTensors:
    """The features of a split, in the memory of the training device."""

    faces: Float32[Tensor, "faces dim"]
    voices: Float32[Tensor, "voices dim"]

    @classmethod
    def of(cls, features: Features, device: torch.device) -> "FeatureTensors":
        """Copy a split there."""
        return cls(
            faces=torch.tensor(np.asarray(features.face_features), device=device),
            voices=torch.tensor(np.asarray(features.voice_features), device=device),
        )


class Chunk:
    """A fixed set of members; used by one thread."""

    def __init__(self, runs: Sequence[Run], features: FeatureTensors) -> None:
        """Stack the members; from here on their tensors are rows of the chunk's.

        Args:
            runs: Members, whose settings differ in nothing that `settings.differences` names.
            features: Of the training split.
        """
        self.runs = tuple(runs)
        self._features = features
        self._device = runs[0].device
        self._stacked: dict[str, Tensor] = {}
        for name, _ in runs[0].model.named_parameters():
            self._stack(name, [run.model.get_parameter(name) for run in runs])
        for name, buffer in runs[0].model.named_buffers():
            if buffer.is_floating_point():
                self._stack(name, [run.model.get_buffer(name) for run in runs])
        self._learned = [name for name, _ in runs[0].model.named_parameters()]
        self._averages = torch.stack([run.reweighting.losses for run in runs])
        self._weights = torch.stack([run.reweighting.weights for run in runs])
        for run, average in zip(runs, self._averages, strict=True):
            run.reweighting.losses = average
        self._factors = Factors.of([run.config.loss for run in runs], self._device)
        bounds = [run.config.classifier.norm_bound for run in runs]
        self._bounded = any(bound is not None for bound in bounds)
        self._bounds = self._column([float("inf") if b is None else b for b in bounds])
        self._kept = self._column([1 - run.config.model.dropout for run in runs])
        self._memory = [1 - run.config.reweighting.decay for run in runs]

    def epoch(self) -> list[EpochMeter]:
        """Step through one epoch of every member, all of the same length; what each recorded."""
        meters = [EpochMeter(run.step) for run in self.runs]
        steps = {run.plan.epoch_end(run.step) - run.step for run in self.runs}
        assert len(steps) == 1, "members of a chunk take equally many steps"
        dropout = []
        for run in self.runs:
            run.network.train()
            # Its own generator, seeded like the global one of a run alone.
            dropout.append(torch.Generator(self._device).manual_seed(run.dropout_seed()))
        for _ in range(steps.pop()):
            with _shared(meters, "data"):
                drawn = [run.stream.draw() for run in self.runs]
                labels = self._rows([each.labels for each in drawn])
            with _shared(meters, "step"):
                self._step(drawn, labels, dropout, meters)
        for run in self.runs:
            run.epoch += 1
        return meters

    def _step(
        self,
        drawn: Sequence[Drawn],
        labels: Int64[Tensor, "members batch"],
        dropout: Sequence[torch.Generator],
        meters: Sequence[EpochMeter],
    ) -> None:
        self._enter()
        faces = self._gather(self._features.faces, [each.faces for each in drawn])
        voices = self._gather(self._features.voices, [each.voices for each in drawn])
        x = self._head("face_head", faces, dropout)
        v = self._head("voice_head", voices, dropout)
        result = packed_objective(
            x.detach(),
            v.detach(),
            labels,
            self._stacked["classifier.weight"].detach(),
            self._weights,
            self._factors,
        )
        heads = [name for name in self._learned if name != "classifier.weight"]
        grads = torch.autograd.grad(
            [x, v], [self._stacked[name] for name in heads], [result.faces, result.voices]
        )
        self._update({**dict(zip(heads, grads, strict=True)), "classifier.weight": result.omega})
        self._observe(labels, result.identity_losses)
        for k, (run, meter) in enumerate(zip(self.runs, meters, strict=True)):
            run.step += 1
            meter.add(
                Objective(
                    loss=result.terms[k, 0],
                    identity_losses=result.identity_losses[k],
                    terms=result.terms[k],
                )
            )

    def _enter(self) -> None:
        for k, run in enumerate(self.runs):
            admits = run.plan.admits_before(run.step)
            run.enter_step()
            if admits:
                self._weights[k] = run.reweighting.weights

    def _head(
        self,
        head: str,
        x: Float[Tensor, "batch members features"],
        dropout: Sequence[torch.Generator],
    ) -> Float[Tensor, "members batch dim"]:
        """One head of every member, in training mode."""
        batch, members, _ = x.shape
        layers = self.runs[0].model.get_submodule(head)
        assert isinstance(layers, nn.Sequential)
        for index, layer in enumerate(layers):
            name = f"{head}.{index}"
            if isinstance(layer, nn.BatchNorm1d):
                # The channels of all members side by side: each has statistics of its own.
                x = F.batch_norm(
                    x.reshape(batch, -1),
                    self._stacked[f"{name}.running_mean"].view(-1),
                    self._stacked[f"{name}.running_var"].view(-1),
                    self._stacked[f"{name}.weight"].view(-1),
                    self._stacked[f"{name}.bias"].view(-1),
                    training=True,
                    momentum=layer.momentum or 0.0,
                    eps=layer.eps,
                ).view(batch, members, -1)
                for run in self.runs:
                    run.model.get_buffer(f"{name}.num_batches_tracked").add_(1)
            elif isinstance(layer, nn.ReLU):
                x = F.relu(x, inplace=True)
            elif isinstance(layer, nn.Linear):
                # In this order the gradient of the weight comes out contiguous, as fused SGD needs.
                x = torch.bmm(self._stacked[f"{name}.weight"], x.permute(1, 2, 0)).permute(2, 0, 1)
            elif isinstance(layer, nn.Dropout):
                x = x * self._masks(batch, x.shape[2], dropout)
            else:
                raise TypeError(f"{name} is a {type(layer).__name__}, which has no packed form")
        return x.transpose(0, 1)

    def _masks(
        self, batch: int, dim: int, dropout: Sequence[torch.Generator]
    ) -> Float[Tensor, "batch members dim"]:
        uniform = torch.zeros((len(self.runs), batch, dim), device=self._device)
        for run, mine, generator in zip(self.runs, uniform, dropout, strict=True):
            if run.config.model.dropout > 0:
                torch.rand((batch, dim), generator=generator, out=mine)
        masks = (uniform < self._kept) / self._kept
        return masks.transpose(0, 1)

    def _update(self, grads: dict[str, Tensor]) -> None:
        """One step of every member's optimiser, then the projection of its classifier's rows."""
        for name, grad in grads.items():
            for run, mine in zip(self.runs, grad, strict=True):
                parameter = run.model.get_parameter(name)
                if parameter.requires_grad:
                    parameter.grad = mine
        for run in self.runs:
            run.optimizer.step()
        if self._bounded:
            omega = self._stacked["classifier.weight"].detach()
            norms = torch.linalg.vector_norm(omega, dim=2, keepdim=True)
            omega.mul_((self._bounds / norms).clamp_max_(1.0))

    def _observe(
        self, labels: Int64[Tensor, "members batch"], losses: Float[Tensor, "members batch"]
    ) -> None:
        pace = self._column(
            [
                fresh if run.plan.observes(run.step) else 0.0
                for run, fresh in zip(self.runs, self._memory, strict=True)
            ]
        )[:, :, 0]
        known = self._averages.gather(1, labels)
        self._averages.scatter_(1, labels, known.lerp(losses, pace))

    def _stack(self, name: str, rows: Sequence[Tensor]) -> None:
        stacked = torch.stack([row.detach() for row in rows])
        for row, place in zip(rows, stacked, strict=True):
            row.data = place
        self._stacked[name] = stacked.requires_grad_(isinstance(rows[0], nn.Parameter))

    def _column(self, values: Sequence[float]) -> Float[Tensor, "members 1 1"]:
        return torch.tensor(values, device=self._device)[:, None, None]

    def _rows(self, rows: Sequence[Int64[np.ndarray, " batch"]]) -> Int64[Tensor, "members batch"]:
        return torch.from_numpy(np.stack(rows)).to(self._device, non_blocking=True)

    def _gather(
        self, features: Float32[Tensor, "items dim"], rows: Sequence[Int64[np.ndarray, " batch"]]
    ) -> Float[Tensor, "batch members dim"]:
        wanted = torch.from_numpy(np.stack(rows, axis=1).reshape(-1)).to(self._device)
        return features.index_select(0, wanted).view(len(rows[0]), len(rows), -1)


@contextmanager
def _shared(meters: Sequence[EpochMeter], what: str) -> Iterator[None]:
    """Share the time of a block among the members."""
    start = time.perf_counter()
    yield
    each = (time.perf_counter() - start) / len(meters)
    for meter in meters:
        meter.seconds[what] += each
