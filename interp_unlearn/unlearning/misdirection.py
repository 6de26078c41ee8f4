"""RMU and its cosine variants: activations on forget text are pushed toward control directions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import cosine_forget, random_directions, rmu_forget
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, forget_mask, scheduled_rows
from interp_unlearn.unlearning.objective import Logs, Objective, as_layers

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


class Misdirection(Objective):
    """Mean over layers of a loss that is least where activations point along (or sit at) a control direction.

    `kind="mse"` is RMU (Li et al. 2024, arXiv 2403.03218) with target `coefficient * u`, or, with `adaptive`, Adaptive
    RMU (Dang et al. 2025, arXiv 2408.06223) with target `coefficient * mean||h0|| * u`. `kind="cosine"` is our reading
    of the cosine variant of Atil et al. 2026, arXiv 2605.26454 (abstract only), where the coefficient has no meaning.

    Caveat: a random target corrupts what follows rather than removing knowledge; judge the text, not the cloze alone.

    Args:
        layers: blocks whose output is misdirected (and retained).
        kind: "cosine" or "mse".
        coefficient: length of the target, for "mse" alone; L2 norm of the stream, or its multiple with `adaptive`.
        adaptive: measure the coefficient in mean norms of the original's forget activations at the layer.
        directions: unit vector for each layer; None draws Gaussian ones from `seed`.
        seed: of the drawn directions.
        relative: retain term, relative MSE or RMU's plain one; None: plain for "mse".
        meta: train against the inner adversary unless the config brings its own.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        *,
        kind: Literal["cosine", "mse"] = "cosine",
        coefficient: float = 1.0,
        adaptive: bool = False,
        directions: Mapping[int, Tensor] | None = None,
        seed: int = 0,
        relative: bool | None = None,
        meta: bool = False,
        name: str = "misdirection",
    ) -> None:
        if kind not in ("cosine", "mse"):
            raise ConfigError(f'kind must be "cosine" or "mse", got {kind!r}')
        super().__init__(
            name, layers=as_layers(layers), relative=kind == "cosine" if relative is None else relative, meta=meta
        )
        self.kind = kind
        self.coefficient = coefficient
        self.adaptive = adaptive
        self.directions = None if directions is None else dict(directions)
        self.seed = seed
        self._sites = [Site(layer, "resid_post") for layer in self.layers]
        self._directions: dict[int, Tensor] = {}
        self._norms: dict[int, float] = {}

    def prepare(self, model: "HookedModel", corpora: Corpora, config: UnlearnConfig) -> None:
        """Draw the directions and measure the original's norms on a batch of forget text."""
        super().prepare(model, corpora, config)
        drawn = self.directions or random_directions(model.d_model, self.layers, self.seed)
        self._directions = {layer: unit_direction(drawn, layer, model.d_model) for layer in self.layers}
        corpus = self.corpus(corpora)
        rows = scheduled_rows(len(corpus), min(len(corpus), 4 * config.batch_size), 0, config.seed, self.source)
        batch = corpus.batch(rows, model.device)
        with torch.no_grad():
            trace = model.run(batch, reads=self._sites)
        mask = forget_mask(batch, config)
        self._norms = {layer: mean_norm(trace[Site(layer, "resid_post")], mask) for layer in self.layers}

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over layers; logs `norm_ratio`, mean norm over the original's, which a cosine leaves free."""
        trace = model.run(batch, reads=self._sites)
        terms: list[Tensor] = []
        ratios: list[float] = []
        for layer, site in zip(self.layers, self._sites, strict=True):
            h, u = trace[site], self._directions[layer].to(trace[site].device)
            if self.kind == "cosine":
                terms.append(cosine_forget(h, mask, u))
            else:
                length = self.coefficient * (self._norms[layer] if self.adaptive else 1.0)
                terms.append(rmu_forget(h, mask, length * u))
            ratios.append(mean_norm(h.detach(), mask) / self._norms[layer])
        return torch.stack(terms).mean(), {"norm_ratio": sum(ratios) / len(ratios)}


def unit_direction(directions: Mapping[int, Tensor], layer: int, d_model: int) -> Float[Tensor, " d_model"]:
    """A layer's direction at unit length.

    Raises:
        ConfigError: there is none for the layer, or it does not fit the model.
    """
    if layer not in directions:
        raise ConfigError(f"no direction for layer {layer}; there are some for layers {sorted(directions)}")
    vector = directions[layer].detach().float()
    if vector.shape != (d_model,) or not bool(vector.norm() > 0):
        raise ConfigError(
            f"the direction of layer {layer} must be a non-zero vector of {d_model} numbers, got shape "
            f"{tuple(vector.shape)} with norm {float(vector.norm()):.3g}"
        )
    return vector / vector.norm()


def mean_norm(h: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]) -> float:
    """Mean L2 norm of the masked tokens."""
    return float(h[mask].float().norm(dim=-1).mean())
