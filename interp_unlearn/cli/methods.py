"""From what the command line can say to a method of unlearning."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.probes import Estimator, ProbeSet
    from interp_unlearn.sites import Site
    from interp_unlearn.unlearning import Objective, UnlearnConfig, UnlearnData, WeightEdit

FROM_PROBES = ("probe_single", "probe_multi", "distilled")
ON_PAIRS = ("dpo", "profs", "counterfactual", "counterfactual_meta")
_SEEDED = (
    "random_single",
    "random_multi",
    "rmu",
    "rmu_lat",
    "cosine_rmu",
    "cosine_rmu_meta",
    "token_rmu",
    "contrastive_rmu",
)


class Intervention(StrEnum):
    """What can be done to activations along a probe's direction."""

    clamp = "clamp"
    project_out = "project_out"
    steering = "steering"


def make_method(
    name: str,
    chosen: dict[str, Any],
    config: "UnlearnConfig",
    probes: "ProbeSet | None" = None,
    teacher: "HookedModel | None" = None,
    edits: "Callable[[ProbeSet, list[int]], Mapping[Site, Edit]] | None" = None,
) -> "Objective | WeightEdit":
    """Build an objective or a weight edit from what the command line can say.

    Args:
        name: in the registry.
        chosen: options that were given.
        config: of the run.
        probes: where directions come from.
        teacher: what the oracle distils.
        edits: what `distilled` distils, made from probes and layers.

    Raises:
        ConfigError: the method needs something that was not given, or there is none of that name.
        SiteError: a layer has no probe.
    """
    from interp_unlearn.unlearning import build_method

    extra: dict[str, Any] = {}
    if name in FROM_PROBES:
        if probes is None:
            raise ConfigError(f"objective {name} needs --probes, a folder that `interp-unlearn probe` wrote")
        found = chosen.get("layers") or _layers_of(probes, single=name == "probe_single")
        extra = {"layers": found, "directions": probes}
        if name == "distilled":
            assert edits is not None
            extra = {"layers": found, "edits": edits(probes, found), "contexts": 0.0}
            chosen = {key: value for key, value in chosen.items() if key not in ("estimator", "coefficient")}
    elif name in _SEEDED or name == "rerouting":
        if "layers" not in chosen:
            raise ConfigError(f"objective {name} needs --layers, for example --layers 2-5")
        extra = {"seed": config.seed} if name in _SEEDED else {}
    elif name == "oracle":
        if teacher is None:
            raise ConfigError("objective oracle needs --teacher, a model that never learned the target")
        extra = {"teacher": teacher}
    elif name == "hardened":
        extra = {"contexts": 0.0}  # nothing here tells prompts from what follows them
    elif name == "shrink_perturb":
        extra = {"seed": config.seed}
    return build_method(name, **{**chosen, **extra})  # pyright: ignore[reportReturnType] inference edits are refused


def make_intervention(
    intervention: Intervention,
    model: "HookedModel",
    data: "UnlearnData",
    config: "UnlearnConfig",
    probes: "ProbeSet",
    layers: list[int],
    *,
    estimator: "Estimator | None" = None,
    overshoot: float = 1.0,
    coefficient: float = 1.0,
) -> "Mapping[Site, Edit]":
    """What `distilled` distils at some layers: clamps at the probes' borders, projections, or steering in class gaps.

    Raises:
        ConfigError: for steering, at some layer the target texts do not project beyond the neutral ones.
        SiteError: a layer has no probe.
    """
    from interp_unlearn.unlearning import clamp_edits, project_out_edits, projection_scales, steering_edits

    if intervention is Intervention.steering:
        estimator = estimator or "mean_difference"
        scales = projection_scales(model, data, probes, layers, config, estimator=estimator)
        return steering_edits(probes, layers, coefficient, estimator=estimator, scales=scales)
    if intervention is Intervention.project_out:
        return project_out_edits(probes, layers, estimator=estimator or "logistic")
    return clamp_edits(probes, layers, estimator=estimator or "logistic", overshoot=overshoot)


def distilling_options(name: str, intervention: Intervention | None, overshoot: float | None) -> dict[str, object]:
    """What only `distilled` is told, for the record."""
    if name != "distilled":
        return {}
    clamps = intervention in (None, Intervention.clamp)
    told: dict[str, object] = {"intervention": intervention or Intervention.clamp}
    return told | ({"overshoot": 1.0 if overshoot is None else overshoot} if clamps else {})


def check_options(
    name: str,
    intervention: Intervention | None,
    overshoot: float | None,
    coefficient: float | None,
    teacher: str | None,
) -> None:
    """Refuse options that the method would leave aside.

    Raises:
        ConfigError: there is one.
    """
    distils = name == "distilled"
    unused = {
        "--intervention": intervention is not None and not distils,
        "--overshoot": overshoot is not None and not (distils and intervention in (None, Intervention.clamp)),
        "--coefficient": coefficient is not None and distils and intervention is not Intervention.steering,
        "--teacher": teacher is not None and name != "oracle",
    }
    if refused := [option for option, is_unused in unused.items() if is_unused]:
        raise ConfigError(f"{', '.join(refused)}: {name} has no use for it; leave it out")


def check_retention(target: "Objective", weights: "Mapping[str, float | None]", replay: int | None) -> None:
    """Refuse weights of retain terms that an objective has not, and replayed texts that nothing would read.

    Args:
        target: what is trained.
        weights: that were given, by option; --retain-weight is of the activations at the objective's layers.
        replay: how many texts; None where nothing but the retain terms would tell, as a guard does.

    Raises:
        ConfigError: there is one.
    """
    without = {name for name in weights if not target.retains or (name == "--retain-weight" and not target.layers)}
    refused = [name for name, value in weights.items() if value and name in without]
    refused += ["--replay"] if replay and not target.retains and target.name != "oracle" else []
    if refused:
        raise ConfigError(f"{', '.join(refused)}: {target.name} has no retain term for it; leave it out")


def check_edit(name: str, config: "UnlearnConfig", given: "dict[str, object]") -> None:
    """Refuse what goes with losses alone.

    Raises:
        ConfigError: there is some of it.
    """
    given |= {"--adversary": config.adversary, "--lora-rank": config.lora, "--max-kl": config.guard}
    if refused := [option for option, value in given.items() if value]:
        raise ConfigError(f"{name} is a weight edit: {', '.join(refused)} goes with losses; leave it out")


def _layers_of(probes: "ProbeSet", single: bool) -> list[int]:
    """The layer of the best probe on the stream, or all layers that have one."""
    from interp_unlearn.unlearning import choose_layers

    n_probes = sum(site.component == "resid_post" for site in probes.sites)
    return list(choose_layers(probes, 1 if single else max(1, n_probes)))
