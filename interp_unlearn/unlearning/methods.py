"""The methods that come with the package, each under its name; `build_method` describes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import Centre
from interp_unlearn.unlearning.distillation import Distillation
from interp_unlearn.unlearning.fine_tuning import FineTuning
from interp_unlearn.unlearning.inference_edits import Scales, steering_edits
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Objective, as_layers
from interp_unlearn.unlearning.preference import DPO
from interp_unlearn.unlearning.profs import ProFS
from interp_unlearn.unlearning.projection import ProjectionPenalty
from interp_unlearn.unlearning.registry import register_method, register_objective
from interp_unlearn.unlearning.subspace import SubspacePenalty
from interp_unlearn.unlearning.task_vector import TaskVector
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.probes import Estimator, ProbeSet
    from interp_unlearn.sites import Site


@register_objective("random_single")
def _random_single(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(_one(layers, "random_single"), seed=seed, name="random_single")


@register_objective("random_multi")
def _random_multi(layers: Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(_several(layers, "random_multi"), seed=seed, name="random_multi")


@register_objective("probe_single")
def _probe_single(
    layers: int | Sequence[int],
    directions: "ProbeSet | Mapping[int, Tensor]",
    estimator: "Estimator" = "logistic",
    quantile: float = 0.5,
) -> Objective:
    chosen = _one(layers, "probe_single")
    return ProjectionPenalty(chosen, directions, estimator=estimator, quantile=quantile, name="probe_single")


@register_objective("probe_multi")
def _probe_multi(
    layers: Sequence[int],
    directions: "ProbeSet | Mapping[int, Tensor]",
    estimator: "Estimator" = "logistic",
    layer_weights: Mapping[int, float] | None = None,
    quantile: float = 0.5,
) -> Objective:
    return ProjectionPenalty(
        _several(layers, "probe_multi"),
        directions,
        estimator=estimator,
        layer_weights=layer_weights,
        quantile=quantile,
        name="probe_multi",
    )


@register_objective("subspace")
def _subspace(
    layers: int | Sequence[int],
    directions: Mapping[int, Tensor],
    penalty: Literal["hinge", "norm"] = "norm",
    layer_weights: Mapping[int, float] | None = None,
    quantile: float = 0.5,
) -> Objective:
    return SubspacePenalty(
        layers, directions, penalty=penalty, layer_weights=layer_weights, quantile=quantile, name="subspace"
    )


@register_objective("rmu")
def _rmu(layers: int | Sequence[int], coefficient: float, adaptive: bool = False, seed: int = 0) -> Objective:
    return Misdirection(layers, kind="mse", coefficient=coefficient, adaptive=adaptive, seed=seed, name="rmu")


@register_objective("cosine_rmu")
def _cosine_rmu(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, seed=seed, name="cosine_rmu")


@register_objective("cosine_rmu_meta")
def _cosine_rmu_meta(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, seed=seed, meta=True, name="cosine_rmu_meta")


@register_objective("dpo")
def _dpo(beta: float = 0.1, layers: Sequence[int] = ()) -> Objective:
    return DPO(beta, layers=layers, name="dpo")


@register_objective("distilled")
def _distilled(
    edits: "Mapping[Site, Edit | Sequence[Edit]]",
    clean_share: "Callable[[HookedModel], float] | None" = None,
    least_clean: float = 0.90,
    contexts: float = 0.5,
    refresh: int = 25,
    n_contexts: int = 64,
    max_new_tokens: int = 24,
    layers: Sequence[int] = (),
) -> Objective:
    return Distillation(
        edits,
        clean_share=clean_share,
        least_clean=least_clean,
        contexts=contexts,
        refresh=refresh,
        n_contexts=n_contexts,
        max_new_tokens=max_new_tokens,
        layers=layers,
        name="distilled",
    )


@register_objective("hardened")
def _hardened(
    clean_share: "Callable[[HookedModel], float] | None" = None,
    least_clean: float = 0.90,
    contexts: float = 0.5,
    layers: Sequence[int] = (),
    meta: bool = True,
) -> Objective:
    return Distillation(
        {},
        clean_share=clean_share,
        least_clean=least_clean,
        contexts=contexts,
        layers=layers,
        meta=meta,
        name="hardened",
    )


@register_objective("civil_finetuning")
def _civil_finetuning(layers: Sequence[int] = ()) -> Objective:
    return FineTuning("neutral", layers=layers, name="civil_finetuning")


@register_objective("oracle")
def _oracle(
    teacher: "HookedModel",
    clean_share: "Callable[[HookedModel], float] | None" = None,
    least_clean: float = 0.0,
    contexts: float = 0.0,
    refresh: int = 25,
    n_contexts: int = 64,
    max_new_tokens: int = 24,
) -> Objective:
    return Distillation(
        teacher,
        clean_share=clean_share,
        least_clean=least_clean,
        contexts=contexts,
        refresh=refresh,
        n_contexts=n_contexts,
        max_new_tokens=max_new_tokens,
        name="oracle",
    )


@register_method("profs", "weight_edit")
def _profs(rank: int = 2, n_pairs: int = 500, centre: Centre = "mean") -> WeightEdit:
    return ProFS(rank, n_pairs, centre, name="profs")


@register_method("task_vector", "weight_edit")
def _task_vector(
    coefficient: float | Sequence[float] = 1.0, score: "Callable[[HookedModel], float] | None" = None
) -> WeightEdit:
    return TaskVector(coefficient, score, name="task_vector")


@register_method("steering", "inference_edit")
def _steering(
    directions: "ProbeSet | Mapping[int, Tensor]",
    layers: int | Sequence[int],
    coefficient: float,
    estimator: "Estimator" = "mean_difference",
    scales: "Scales | None" = None,
) -> "dict[Site, Edit]":
    return steering_edits(directions, as_layers(layers), coefficient, estimator=estimator, scales=scales)


def _one(layers: int | Sequence[int], name: str) -> tuple[int, ...]:
    chosen = as_layers(layers)
    if len(chosen) != 1:
        raise ConfigError(f"objective {name} takes exactly one layer, got {list(chosen)}")
    return chosen


def _several(layers: Sequence[int], name: str) -> tuple[int, ...]:
    chosen = as_layers(layers)
    if len(chosen) < 2:
        raise ConfigError(f"objective {name} takes several layers, got {list(chosen)}")
    return chosen
