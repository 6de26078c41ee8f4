"""RMU and its cosine variants: activations on forget text are pushed toward control directions."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.models import TokenBatch
from interp_unlearn.objectives import (
    contrastive_forget,
    cosine_forget,
    random_directions,
    rmu_forget,
    token_cosine_forget,
)
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import Corpora, forget_mask, scheduled_rows
from interp_unlearn.unlearning.objective import HiddenTerm, Logs, Objective, as_layers

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


Kind = Literal["cosine", "mse", "token", "contrastive"]


class Misdirection(Objective):
    """Mean over layers of a loss that is least where activations point along (or sit at) a control direction.

    `kind="mse"` is RMU (Li et al. 2024, arXiv 2403.03218) with target `coefficient * u`, or, with `adaptive`, Adaptive
    RMU (Dang et al. 2025, arXiv 2408.06223) with target `coefficient * mean||h0|| * u`. `kind="cosine"` is our reading
    of the cosine variant of Atil et al. 2026, arXiv 2605.26454 (abstract only), where the coefficient has no meaning.
    `kind="token"` draws a direction for each token id instead, the random mapping of TAR (Tamirisa et al. 2024, arXiv
    2408.00761); `kind="contrastive"` also leads away from the original activation, our reading of FALCON (Hu et al.
    2025, arXiv 2502.01472).

    Caveat: a random target corrupts what follows rather than removing knowledge; judge the text, not the cloze alone.

    Args:
        layers: blocks whose output is misdirected (and retained).
        kind: "cosine", "mse", "token" or "contrastive".
        coefficient: length of the target, for "mse" alone; L2 norm of the stream, or its multiple with `adaptive`.
        adaptive: measure the coefficient in mean norms of the original's forget activations at the layer.
        directions: unit vector for each layer; None draws Gaussian ones from `seed`.
        seed: of the drawn directions.
        hidden: how retained activations are compared; None: RMU's plain MSE for "mse", otherwise the relative one.
        meta: train against the inner adversary unless the config brings its own.
        name: for tables.
    """

    def __init__(
        self,
        layers: int | Sequence[int],
        *,
        kind: Kind = "cosine",
        coefficient: float = 1.0,
        adaptive: bool = False,
        directions: Mapping[int, Tensor] | None = None,
        seed: int = 0,
        hidden: HiddenTerm | None = None,
        meta: bool = False,
        name: str = "misdirection",
    ) -> None:
        if kind not in get_args(Kind):
            raise ConfigError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if not math.isfinite(coefficient):
            raise ConfigError(f"objective {name}: coefficient must be a finite number, got {coefficient}")
        super().__init__(
            name,
            layers=as_layers(layers),
            hidden=hidden or ("mse" if kind == "mse" else "relative_mse"),
            meta=meta,
            needs_original=kind == "contrastive",
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

    def targets(self, model: "HookedModel", batch: TokenBatch) -> Any:
        """The original's activations, for "contrastive" alone."""
        return model.run(batch, reads=self._sites) if self.kind == "contrastive" else None

    def loss(
        self, model: "HookedModel", batch: TokenBatch, mask: Bool[Tensor, "batch pos"], targets: Any
    ) -> tuple[Float[Tensor, ""], Logs]:
        """The mean over layers; logs `norm_ratio`, mean norm over the original's, which a cosine leaves free."""
        trace = model.run(batch, reads=self._sites)
        terms: list[Tensor] = []
        ratios: list[float] = []
        for layer, site in zip(self.layers, self._sites, strict=True):
            terms.append(self._term(layer, trace[site], batch, mask, None if targets is None else targets[site]))
            ratios.append(mean_norm(trace[site].detach(), mask) / self._norms[layer])
        return torch.stack(terms).mean(), {"norm_ratio": sum(ratios) / len(ratios)}

    def _term(
        self,
        layer: int,
        h: Float[Tensor, "batch pos d_model"],
        batch: TokenBatch,
        mask: Bool[Tensor, "batch pos"],
        original: Float[Tensor, "batch pos d_model"] | None,
    ) -> Float[Tensor, ""]:
        u = self._directions[layer].to(h.device)
        if self.kind == "mse":
            return rmu_forget(h, mask, self.coefficient * (self._norms[layer] if self.adaptive else 1.0) * u)
        if self.kind == "token":
            return token_cosine_forget(h, mask, batch.input_ids, layer, self.seed)
        if original is not None:
            return contrastive_forget(h, original, mask, u)
        return cosine_forget(h, mask, u)


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
