"""Objectives by name, as the command line and the study ask for them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.unlearning.distillation import Distillation
from interp_unlearn.unlearning.fine_tuning import FineTuning
from interp_unlearn.unlearning.misdirection import Misdirection
from interp_unlearn.unlearning.objective import Objective, as_layers
from interp_unlearn.unlearning.projection import ProjectionPenalty

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.sites import Site

Builder = Callable[..., Objective]
_builders: dict[str, Builder] = {}


def register_objective(name: str) -> Callable[[Builder], Builder]:
    """Make a function that builds an objective known under a name.

    Raises:
        ConfigError: the name is taken.
    """

    def keep(builder: Builder) -> Builder:
        if name in _builders:
            raise ConfigError(f"an objective named {name!r} is registered already; choose another name")
        _builders[name] = builder
        return builder

    return keep


def objective_names() -> list[str]:
    """All registered names."""
    return sorted(_builders)


def build_objective(name: str, **options: object) -> Objective:
    """Make an objective by its name.

    | name | options | what |
    |---|---|---|
    | random_single | layers (one), seed | cosine to one random direction |
    | random_multi | layers (several), seed | the same at several layers |
    | probe_single | layers (one), directions, estimator | hinge on a probe's direction |
    | probe_multi | layers (several), directions, estimator, layer_weights | the same at several layers |
    | rmu | layers, coefficient, adaptive, seed | the published loss, retain term included |
    | cosine_rmu | layers, seed | our reading of the cosine variant |
    | cosine_rmu_meta | layers, seed | the same against an inner adversary |
    | distilled | edits, clean_share, contexts, refresh, ... | an inference-time intervention, distilled |
    | civil_finetuning | layers | next-token training on the neutral texts |
    | oracle | teacher, clean_share, contexts, ... | a twin that never learned the target, distilled |

    Raises:
        ConfigError: the name is unknown, or the options do not fit it.
    """
    if name not in _builders:
        raise ConfigError(f"unknown objective {name!r}; expected one of {', '.join(objective_names())}")
    builder = _builders[name]
    signature = inspect.signature(builder)
    try:
        signature.bind(**options)
    except TypeError as error:
        accepted = ", ".join(signature.parameters)
        raise ConfigError(f"objective {name}: {error}; its options are {accepted}") from error
    return builder(**options)


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
    estimator: Literal["logistic", "mean_difference"] = "logistic",
) -> Objective:
    return ProjectionPenalty(_one(layers, "probe_single"), directions, estimator=estimator, name="probe_single")


@register_objective("probe_multi")
def _probe_multi(
    layers: Sequence[int],
    directions: "ProbeSet | Mapping[int, Tensor]",
    estimator: Literal["logistic", "mean_difference"] = "logistic",
    layer_weights: Mapping[int, float] | None = None,
) -> Objective:
    chosen = _several(layers, "probe_multi")
    return ProjectionPenalty(chosen, directions, estimator=estimator, layer_weights=layer_weights, name="probe_multi")


@register_objective("rmu")
def _rmu(layers: int | Sequence[int], coefficient: float, adaptive: bool = False, seed: int = 0) -> Objective:
    return Misdirection(layers, kind="mse", coefficient=coefficient, adaptive=adaptive, seed=seed, name="rmu")


@register_objective("cosine_rmu")
def _cosine_rmu(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, seed=seed, name="cosine_rmu")


@register_objective("cosine_rmu_meta")
def _cosine_rmu_meta(layers: int | Sequence[int], seed: int = 0) -> Objective:
    return Misdirection(layers, seed=seed, meta=True, name="cosine_rmu_meta")


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
