"""The methods that the unlearning of knowledge brought, each under its name; `build_method` describes them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from interp_unlearn.sites import Site
from interp_unlearn.unlearning.counterfactual import By, Counterfactual
from interp_unlearn.unlearning.distillation import Distillation
from interp_unlearn.unlearning.flattening import Flatten
from interp_unlearn.unlearning.latent import LatentRMU
from interp_unlearn.unlearning.likelihood import GradientAscent, NegativePreference
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Objective
from interp_unlearn.unlearning.registry import register_method, register_objective
from interp_unlearn.unlearning.rerouting import Rerouting
from interp_unlearn.unlearning.shrinking import ShrinkPerturb
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


@register_objective("token_rmu")
def _token_rmu(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, kind="token", seed=seed, name="token_rmu")


@register_objective("contrastive_rmu")
def _contrastive_rmu(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, kind="contrastive", seed=seed, name="contrastive_rmu")


@register_objective("rmu_lat")
def _rmu_lat(
    layers: int | Sequence[int],
    coefficient: float,
    adaptive: bool = False,
    radius: float = 2.0,
    ascent_steps: int = 16,
    seed: int = 0,
) -> Objective:
    return LatentRMU(
        layers, coefficient, adaptive=adaptive, radius=radius, ascent_steps=ascent_steps, seed=seed, name="rmu_lat"
    )


@register_objective("counterfactual")
def _counterfactual(layers: int | Sequence[int] = (), by: By = "cosine") -> Objective:
    return Counterfactual(layers, by=by, name="counterfactual")


@register_objective("counterfactual_meta")
def _counterfactual_meta(layers: int | Sequence[int] = (), by: By = "cosine") -> Objective:
    return Counterfactual(layers, by=by, meta=True, name="counterfactual_meta")


@register_objective("rerouting")
def _rerouting(layers: int | Sequence[int]) -> Objective:
    return Rerouting(layers, name="rerouting")


@register_objective("gradient_ascent")
def _gradient_ascent() -> Objective:
    return GradientAscent(name="gradient_ascent")


@register_objective("grad_diff")
def _grad_diff(layers: Sequence[int] = ()) -> Objective:
    return GradientAscent(layers=layers, retains=True, name="grad_diff")


@register_objective("npo")
def _npo(beta: float = 0.1, layers: Sequence[int] = ()) -> Objective:
    return NegativePreference(beta, layers=layers, name="npo")


@register_objective("simnpo")
def _simnpo(beta: float = 4.5, margin: float = 0.0, layers: Sequence[int] = ()) -> Objective:
    return NegativePreference(beta, simple=True, margin=margin, layers=layers, name="simnpo")


@register_objective("flattened")
def _flattened(
    pools: Sequence[Sequence[int]],
    clean_share: "Callable[[HookedModel], float] | None" = None,
    contexts: float = 0.0,
    layers: Sequence[int] = (),
) -> Objective:
    teacher = {Site.logits: Flatten(pools)}
    return Distillation(teacher, clean_share=clean_share, contexts=contexts, layers=layers, name="flattened")


@register_method("shrink_perturb", "weight_edit")
def _shrink_perturb(alpha: float = 0.3, beta: float = 1.0, seed: int = 0) -> WeightEdit:
    return ShrinkPerturb(alpha, beta, seed, name="shrink_perturb")
