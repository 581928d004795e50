"""Adaptive identity re-weighting: a loss average per identity and an admission schedule.

``rank`` is the released program's schedule: the easiest half enters at the end of the warm-up,
then a fixed share of the identities at each update, older ones fading by ``age_factor``, until
``admit_to`` are in. ``soft`` gives each identity sigmoid((q - loss) / tau) instead of 0 or 1.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vfsearch.config import ReweightingConfig


def admitted_at(config: ReweightingConfig, identities: int, update: int) -> int:
    """Identities admitted after ``update`` updates (0: none yet). Pure count, no data.

    924 identities with the released settings: 462, then 22 more each time, at last 836
    (the first count that reaches 0.9 x 924), so that 88 are never admitted.
    """
    if update == 0:
        return 0
    count = max(1, int(config.admit_from * identities))
    step = max(1, int(config.admit_step * identities)) if config.admit_step > 0 else 0
    for _ in range(update - 1):
        if count >= config.admit_to * identities:
            break
        count = min(identities, count + step)
    return count


def is_complete(config: ReweightingConfig, identities: int, update: int) -> bool:
    """True when no further update will admit anybody: the weights then stay as they are."""
    done = admitted_at(config, identities, update)
    return update > 0 and done == admitted_at(config, identities, update + 1)


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Who is in, how strongly and since when. A value: ``admit`` returns the next one."""

    admitted: Bool[Tensor, "identities"]
    strength: Float[Tensor, "identities"]
    """1 (rank) or the soft admission, before the age factor."""
    age: Int64[Tensor, "identities"]
    """Updates since the identity was admitted."""
    updates: int
    """Updates so far; 0: warm-up, all weights equal."""

    @classmethod
    def none(cls, identities: int, device: torch.device) -> "Admission":
        """Before the first update."""
        return cls(
            admitted=torch.zeros(identities, dtype=torch.bool, device=device),
            strength=torch.zeros(identities, device=device),
            age=torch.zeros(identities, dtype=torch.int64, device=device),
            updates=0,
        )


def admit(
    before: Admission, losses: Float[Tensor, "identities"], config: ReweightingConfig
) -> Admission:
    """Next update of the schedule. Runs on the device without synchronisation.

    The n easiest identities that are not in yet enter (ties: lower index first). The threshold q
    lies halfway between the hardest of them and the easiest that stays out: the rho-quantile of
    the losses, identities admitted earlier keeping their place below it. In the soft schedule an
    admitted identity is never weakened again (its strength is the highest it has reached), so
    that tau -> 0 is the rank schedule exactly.
    """
    identities = len(losses)
    if is_complete(config, identities, before.updates):
        return before
    wanted = admitted_at(config, identities, before.updates + 1)
    entering = wanted - admitted_at(config, identities, before.updates)
    outside = losses.masked_fill(before.admitted, torch.inf)
    ordered, order = torch.sort(outside, stable=True)
    admitted = before.admitted.index_fill(0, order[:entering], True)
    if config.schedule == "soft":
        hardest_in = ordered[entering - 1]
        # With nobody left outside, everybody is below the threshold.
        easiest_out = ordered[entering] if wanted < identities else torch.inf
        threshold = (hardest_in + easiest_out) / 2
        now = torch.sigmoid((threshold - losses) / config.temperature)
        strength = torch.where(before.admitted, torch.maximum(before.strength, now), now)
    else:
        strength = admitted.to(losses.dtype)
    return replace(
        before,
        admitted=admitted,
        strength=strength,
        age=before.age + before.admitted,
        updates=before.updates + 1,
    )


def identity_weights(
    admission: Admission, config: ReweightingConfig
) -> Float[Tensor, "identities"]:
    """s_hat: ``mean_one`` s M / sum(s) as released, ``unit`` s in (0, 1) as printed.

    Before the first update all weights are 1.
    """
    if admission.updates == 0:
        return torch.ones_like(admission.strength)
    raw = admission.strength * config.age_factor**admission.age
    if config.scale == "unit":
        return raw
    # The sum cannot vanish: the easiest identity lies at or below the threshold, s >= 1/2.
    return raw * (len(raw) / raw.sum())


class Reweighting:
    """Loss average per identity, admissions and weights of one run; all of it tensors.

    Every rank feeds it the gathered batch, so it is identical on all of them without any
    communication of its own.
    """

    def __init__(self, config: ReweightingConfig, identities: int, device: torch.device) -> None:
        self.config = config
        start = config.start_loss
        if start is None:
            start = 2 * float(torch.log(torch.tensor(float(identities))))
        self.losses: Float[Tensor, "identities"] = torch.full((identities,), start, device=device)
        self.admission = Admission.none(identities, device)
        self.weights: Float[Tensor, "identities"] = torch.ones(identities, device=device)

    def observe(self, labels: Int64[Tensor, "batch"], losses: Float[Tensor, "batch"]) -> None:
        """Move the averages of these identities (unique in a batch) towards their losses."""
        known = self.losses[labels]
        self.losses[labels] = known.lerp(losses.detach().to(known.dtype), 1 - self.config.decay)

    def admit(self) -> None:
        """Apply the next update of the schedule."""
        self.admission = admit(self.admission, self.losses, self.config)
        self.weights = identity_weights(self.admission, self.config)

    def state(self) -> dict[str, Tensor]:
        """Tensors from which ``restore`` continues identically."""
        return {
            "losses": self.losses,
            "admitted": self.admission.admitted,
            "strength": self.admission.strength,
            "age": self.admission.age,
            "updates": torch.tensor(self.admission.updates),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the state of ``state()``."""
        device = self.losses.device
        self.losses = state["losses"].to(device).clone()
        self.admission = Admission(
            admitted=state["admitted"].to(device),
            strength=state["strength"].to(device),
            age=state["age"].to(device),
            updates=int(state["updates"]),
        )
        self.weights = identity_weights(self.admission, self.config)
