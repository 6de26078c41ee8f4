"""Ways to unlearn by name, as the command line and the study ask for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import call_with
from interp_unlearn.unlearning.objective import Objective
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit
    from interp_unlearn.sites import Site

Kind = Literal["loss", "weight_edit", "inference_edit"]
Builder = Callable[..., Any]

USES: dict[Kind, str] = {
    "loss": "train it with unlearn(model, objective, data, config)",
    "weight_edit": "apply it with edit.apply(model, data, config)",
    "inference_edit": "run the model under it, with model.edited(edits), or distil it, with the objective distilled",
}
"""What is done with each kind."""


@dataclass(frozen=True)
class _Registered:
    kind: Kind
    builder: Builder


_methods: dict[str, _Registered] = {}


def register_method(name: str, kind: Kind) -> Callable[[Builder], Builder]:
    """Make a function that builds a method of unlearning known under a name.

    Args:
        name: what it is asked for by.
        kind: what the function returns: a "loss" is an `Objective`, a "weight_edit" a `WeightEdit`, an
            "inference_edit" a map from sites to edits.

    Raises:
        ConfigError: the name is taken.
    """

    def keep(builder: Builder) -> Builder:
        if name in _methods:
            raise ConfigError(f"an objective named {name!r} is registered already; choose another name")
        _methods[name] = _Registered(kind, builder)
        return builder

    return keep


def register_objective(name: str) -> Callable[[Builder], Builder]:
    """`register_method` for losses.

    Raises:
        ConfigError: the name is taken.
    """
    return register_method(name, "loss")


def objective_names() -> list[str]:
    """The names of all losses."""
    return sorted(name for name, method in _methods.items() if method.kind == "loss")


def method_kinds() -> dict[str, Kind]:
    """All registered names, and what each builds."""
    return {name: _methods[name].kind for name in sorted(_methods)}


def method_kind(name: str) -> Kind:
    """What a name builds.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in _methods:
        raise ConfigError(f"unknown objective {name!r}; expected one of {', '.join(sorted(_methods))}")
    return _methods[name].kind


def build_method(name: str, **options: object) -> "Objective | WeightEdit | Mapping[Site, Edit | Sequence[Edit]]":
    """Make a method of unlearning by its name.

    | name | options | what |
    |---|---|---|
    | *losses* | | `Objective`, for `unlearn` |
    | random_single | layers (one), seed | cosine to one random direction |
    | random_multi | layers (several), seed | the same at several layers |
    | probe_single | layers (one), directions, estimator, quantile | hinge on a probe's direction |
    | probe_multi | layers (several), directions, estimator, layer_weights, quantile | the same at several layers |
    | subspace | layers, directions, penalty, layer_weights, quantile | several directions a layer |
    | rmu | layers, coefficient, adaptive, seed | the published loss, retain term included |
    | cosine_rmu | layers, seed | our reading of the cosine variant |
    | cosine_rmu_meta | layers, seed | the same against an inner adversary |
    | token_rmu | layers, seed | cosine to a random direction of each token's own, TAR's start |
    | contrastive_rmu | layers, seed | toward the direction and away from the original |
    | rmu_lat | layers, coefficient, adaptive, radius, ascent_steps, seed | rmu under a latent adversary |
    | counterfactual | layers, by | read as the counterpart is read by the original |
    | counterfactual_meta | layers, by | the same against an inner adversary |
    | rerouting | layers | away from the original's activations |
    | gradient_ascent | | minus next-token cross-entropy, nothing retained |
    | grad_diff | layers | the same with the retain terms |
    | npo | beta, layers | negative preference against the original |
    | simnpo | beta, margin, layers | the same without it, by length |
    | flattened | pools, clean_share, contexts, layers | the original with its answer pools made uniform, distilled |
    | dpo | beta, layers | preference for the counterparts over the forget rows |
    | distilled | edits, clean_share, contexts, refresh, ... | an inference-time intervention, distilled |
    | hardened | clean_share, contexts, layers | what has unlearned, kept as it is against the adversary |
    | civil_finetuning | layers | next-token training on the neutral texts |
    | oracle | teacher, clean_share, contexts, ... | a twin that never learned the target, distilled |
    | *weight edits* | | `WeightEdit`, whose `apply` changes a model |
    | profs | rank, n_pairs, centre | the pairs' differences projected out of what writes into the stream |
    | task_vector | coefficient, score | fine-tuning on the forget rows, subtracted |
    | shrink_perturb | alpha, beta, seed | shrunk and perturbed, to distil into |
    | *inference edits* | | a map for `HookedModel.edited`; the weights stay |
    | steering | directions, layers, coefficient, estimator, scales | a mean difference subtracted from the stream |

    Raises:
        ConfigError: the name is unknown, or the options do not fit it.
    """
    method_kind(name)
    return call_with(_methods[name].builder, options, f"objective {name}")


def build_objective(name: str, **options: object) -> Objective:
    """`build_method` for what `unlearn` trains.

    Raises:
        ConfigError: the name is unknown or that of an edit, or the options do not fit it.
    """
    kind = method_kind(name)
    if kind != "loss":
        raise ConfigError(
            f"{name} is no loss but {'an' if kind == 'inference_edit' else 'a'} {kind.replace('_', ' ')}: make it with "
            f"build_method, then {USES[kind]}"
        )
    objective = build_method(name, **options)
    assert isinstance(objective, Objective)
    return objective
