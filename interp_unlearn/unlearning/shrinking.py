"""Weights shrunk and perturbed: what a distillation then has to write anew, it writes without the old traces."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import check_fields
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class ShrinkPerturb(WeightEdit):
    """`(1 - alpha) theta + alpha beta N`, N of Xavier's normal distribution, for every matrix; vectors stay.

    The second of the three steps of unlearn, noise, distil (UNDO, Lee et al. 2025, arXiv 2506.06278); the first is any
    objective, the third `oracle` with the unlearned model as teacher.

    Caveat: the model is worse at everything until it has been distilled into.

    Attributes:
        alpha: share of the weights that is replaced, above 0 and at most 1.
        beta: size of the noise.
        seed: of the noise.
    """

    alpha: float = 0.3
    beta: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.alpha <= 1 or not self.beta >= 0:
            raise ConfigError(
                f"{self.name}: alpha must lie above 0 and up to 1 and beta be 0 or more, got {self.alpha}, {self.beta}"
            )

    def change(
        self, model: "HookedModel", data: UnlearnData, config: UnlearnConfig, reference: Reference, progress: bool
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Shrink and perturb.

        Returns:
            One row a matrix: tensor, noise_norm (Frobenius); and an empty curve.
        """
        import pandas as pd

        generator = torch.Generator().manual_seed(self.seed)
        rows: list[dict[str, object]] = []
        for name, tensor in reference.tensors.items():
            if tensor.ndim < 2:
                continue
            noise = torch.empty(tensor.shape)
            torch.nn.init.xavier_normal_(noise, generator=generator)
            noise = self.alpha * self.beta * noise.to(tensor)
            tensor.mul_(1 - self.alpha).add_(noise)
            rows.append({"tensor": name, "noise_norm": float(noise.float().norm())})
        return pd.DataFrame(rows), pd.DataFrame()
