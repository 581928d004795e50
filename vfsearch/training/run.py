"""Everything of a run that changes from step to step, and how it is saved and taken up again."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vfsearch.config import RunConfig
from vfsearch.corpus.augment import augment_faces, draw_augmentation, stream_seed
from vfsearch.corpus.batches import Batch, BatchStream
from vfsearch.corpus.features import Features
from vfsearch.corpus.store import Store
from vfsearch.errors import CheckpointError, TrainingDiverged
from vfsearch.loss.bound import project_rows_
from vfsearch.loss.reweighting import Reweighting
from vfsearch.model.alignment import AlignmentModel, build_model
from vfsearch.model.execution import prepare
from vfsearch.training.backward import backward, backward_in_parts
from vfsearch.training.checkpoint import CheckpointState, load_into
from vfsearch.training.distributed import World
from vfsearch.training.objective import Objective, objective
from vfsearch.training.stages import Plan

SAME_RUN = ("seed", "model", "loss", "classifier", "reweighting", "optimizer", "training")
"""Sections that must not change between the start of a run and its continuation."""


class Run:
    """Model, optimiser, weights of identities and batch stream of one run on one rank."""

    def __init__(
        self, config: RunConfig, store: Store | Features, *, device: torch.device, world: World
    ) -> None:
        """Build everything at step 0; the same weights on every rank."""
        self.config, self.device, self.world = config, device, world
        self.store = store
        self.plan = Plan.of(config, len(store.identities))
        self.step = self.epoch = 0
        self.model = self._initial_model()
        if world.size > 1 and config.model.sync_batch_norm and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        prepare(self.model, config.training, device)
        self.network: nn.Module = self.model
        if world.size > 1:
            self.network = DistributedDataParallel(
                self.model,
                device_ids=[device] if device.type == "cuda" else None,
                # Statistics are averaged at each evaluation instead of sent at each step.
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
        self.optimizer = torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.optimizer.lr,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.reweighting = Reweighting(config.reweighting, len(store.identities), device)
        self.stream = BatchStream(
            store,
            batch=config.training.batch,
            seconds=config.training.audio_seconds,
            seconds_step=config.training.audio_step,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
        )

    def begin_epoch(self) -> None:
        """Training mode, and dropout of its own for this (seed, epoch, rank)."""
        self.network.train()
        torch.manual_seed(self.dropout_seed())

    def dropout_seed(self) -> int:
        """Seed of the dropout of this epoch and rank."""
        return stream_seed("dropout", self.config.seed, self.epoch, self.world.rank)

    def enter_step(self) -> None:
        """What comes before a step: restart, admission and learning rate of its stage."""
        if self.plan.restarts_before(self.step):
            self._restart()
        if self.plan.admits_before(self.step):
            self.reweighting.admit()
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr(self.step)

    def advance(self, batch: Batch) -> Objective:
        """One optimiser step on this rank's share of a global batch. Nothing waits for the device.

        Stages first (restart, admission, learning rate), then forward, loss over the gathered
        global batch, backward, update, projection of omega, loss averages.
        """
        config = self.config
        self.enter_step()

        self.optimizer.zero_grad(set_to_none=True)
        result, labels = self._backward(self._to_device(batch))
        self.optimizer.step()
        if config.classifier.norm_bound is not None:
            project_rows_(self.model.classifier.weight, config.classifier.norm_bound)
        if self.plan.observes(self.step):
            self.reweighting.observe(labels, result.identity_losses)
        self.step += 1
        return result

    def check_finite(self) -> None:
        """Refuse to go on, or to save, with parameters that are not finite (one device read).

        Raises:
            TrainingDiverged: names the step.
        """
        norms = torch.stack([p.detach().norm() for p in self.model.parameters()])
        if not bool(norms.isfinite().all()):
            raise TrainingDiverged(
                f"the parameters must be finite, but are not after step {self.step - 1}; "
                "lower optimizer.lr, or set classifier.norm_bound"
            )

    def training_tensors(self) -> dict[str, Tensor]:
        """Optimiser and re-weighting, by name."""
        tensors = {f"reweighting.{k}": t for k, t in self.reweighting.state().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return tensors

    def restore(
        self, state: CheckpointState, model: dict[str, Tensor], training: dict[str, Tensor]
    ) -> None:
        """Take up a checkpoint of the same run.

        Raises:
            CheckpointError: of another run (settings or training split), or tensors do not fit.
        """
        for section in SAME_RUN:
            old, new = getattr(state.config, section), getattr(self.config, section)
            if old != new:
                raise CheckpointError(
                    f"the checkpoint is of another run: its {section} is {old}, not {new}; "
                    "choose another output folder"
                )
        if state.split_hash != self.store.split_hash:
            raise CheckpointError(
                "the checkpoint was trained on another training split "
                f"({state.split_hash[:12]}, not {self.store.split_hash[:12]})"
            )
        load_into(self.model, model, "checkpoint")
        try:
            self.reweighting.restore(
                {
                    name.removeprefix("reweighting."): tensor
                    for name, tensor in training.items()
                    if name.startswith("reweighting.")
                }
            )
        except KeyError as error:
            raise CheckpointError(f"checkpoint: reweighting.{error.args[0]} is missing") from None
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in training:
                # In the parameter's memory format, whatever the checkpoint's is.
                momentum = torch.empty_like(parameter).copy_(training[f"momentum.{name}"])
                self.optimizer.state[parameter] = {"momentum_buffer": momentum}
        self.stream.restore(state.sampler)
        self.step, self.epoch = state.step, state.epoch

    def _initial_model(self) -> AlignmentModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("initialisation", self.config.seed))
            model = build_model(
                self.config.model,
                len(self.store.identities),
                on_features=self.config.corpus.features is not None,
            )
        if self.config.loss.implicit == 0:
            # Unused in the loss: DDP would wait for its gradient for ever.
            model.classifier.requires_grad_(False)
        return model.to(self.device)

    def _restart(self) -> None:
        # In place, so that DDP's buckets and compiled code stay.
        self.model.load_state_dict(self._initial_model().state_dict())
        self.optimizer.state.clear()

    def _backward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Objective, Tensor]:
        config, omega = self.config, self.model.classifier.weight
        bf16 = config.training.precision == "bf16"

        def encode(network: nn.Module, faces: Tensor, voices: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                x, v = network(faces, voices)
            return x, v

        def loss(x: Tensor, v: Tensor, labels: Tensor) -> Objective:
            return objective(x, v, labels, omega, self.reweighting.weights, config.loss)

        total = config.training.batch
        size = config.most_pairs_per_pass
        if size >= self.world.most(total):
            return backward(self.network, encode, loss, inputs, self.world, total)
        return backward_in_parts(
            self.network,
            encode,
            loss,
            inputs,
            self.world,
            total,
            model=self.model,
            omega=omega,
            size=size,
            seed=lambda part: stream_seed(
                "dropout", config.seed, "step", self.step, self.world.rank, part
            ),
        )

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        faces, voices, labels = (
            t.to(self.device, non_blocking=True) for t in (batch.faces, batch.voices, batch.labels)
        )
        if self.config.training.augment:
            total = self.config.training.batch
            drawn = draw_augmentation(total, seed=self.config.seed, step=self.step)
            mine = self.world.share(total)
            faces = augment_faces(faces, drawn.rows(mine.start, mine.stop))
        return faces, voices, labels
