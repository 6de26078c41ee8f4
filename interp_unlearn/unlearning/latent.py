"""RMU under a latent adversary: forgetting has to hold although the stream below it is pushed against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.models import TokenBatch
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Logs

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class Shift(Edit):
    """Add a vector of its own to each token of a batch.

    Attributes:
        value: what is added, in L2 units of the stream.
    """

    value: Float[Tensor, "batch pos d_model"]

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        return activation + self.value.to(activation)


class LatentRMU(Misdirection):
    """RMU's forget loss where the input of its first layer is shifted so as to make that loss large.

    Projected gradient ascent from zero, each token's shift within an L2 ball; the model is then trained under the
    shifts, which are constants for it. Our reading of RMU with latent adversarial training (Sheshadri et al. 2024,
    arXiv 2407.15549): radius 2 and 16 steps are theirs, that the adversary acts on RMU's own loss, at the input of the
    layer, is ours.

    Args:
        layers: blocks whose output is misdirected; the shifts are at the input of the first of them.
        coefficient: length of the target, see `Misdirection`.
        adaptive: measure it in mean norms of the original's activations.
        radius: of the ball, L2 norm of the stream.
        ascent_steps: of the adversary.
        seed: of the direction.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        coefficient: float,
        *,
        adaptive: bool = False,
        radius: float = 2.0,
        ascent_steps: int = 16,
        seed: int = 0,
        name: str = "rmu_lat",
    ) -> None:
        super().__init__(layers, kind="mse", coefficient=coefficient, adaptive=adaptive, seed=seed, name=name)
        if not radius > 0 or ascent_steps < 1:
            raise ConfigError(
                f"objective {name}: radius must be above 0 and ascent_steps at least 1, got {radius}, {ascent_steps}"
            )
        self.radius = radius
        self.ascent_steps = ascent_steps

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """RMU's loss under the worst shifts found; logs `unshifted`, the loss without them."""
        site = Site(self.layers[0], "resid_pre")
        with torch.no_grad():
            unshifted = super().loss(model, batch, mask, targets)[0].item()
        shape = (*batch.input_ids.shape, model.d_model)
        shift = torch.zeros(shape, device=model.device)
        stride = 2.5 * self.radius / self.ascent_steps  # reaches the border, and can go along it
        for _ in range(self.ascent_steps):
            shift.requires_grad_(True)
            with model.edited({site: Shift(shift)}), torch.enable_grad():
                found = super().loss(model, batch, mask, targets)[0]
                (slope,) = torch.autograd.grad(found, [shift])
            moved = shift.detach() + stride * slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            shift = moved * (self.radius / moved.norm(dim=-1, keepdim=True).clamp_min(self.radius))
        with model.edited({site: Shift(shift.detach())}):
            loss, logs = super().loss(model, batch, mask, targets)
        return loss, logs | {"unshifted": unshifted}
