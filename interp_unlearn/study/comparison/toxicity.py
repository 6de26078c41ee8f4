"""The contenders on toxicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.evaluation import sample_documents
from interp_unlearn.study.comparison.bench import TRAINED_LAYERS, Bench
from interp_unlearn.study.comparison.contenders import Roster, Setting
from interp_unlearn.unlearning import (
    build_method,
    build_objective,
    clamp_edits,
    project_out_edits,
    projection_scales,
)
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site
    from interp_unlearn.unlearning import Objective
    from interp_unlearn.unlearning.projections import ProjectionScale

Edits = Mapping["Site", "Edit"]

RATES = (3e-4, 1e-3, 3e-3)
ESTIMATORS = ("logistic", "mean_difference")
UPPER, SEVERAL = (4, 5), (2, 3, 4, 5)
N_REPLAY, REPLAY_TOKENS = 2000, 64
RETAINED = SEVERAL
"""Layers at which methods that name none hold retained activations."""


ROSTER = Roster()


@ROSTER.add("probe_single", "baseline", learning_rate=RATES, layer=UPPER, quantile=(0.5, 0.9))
def _probe_single(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective(
        "probe_single", layers=setting["layer"], directions=bench.probes, quantile=setting["quantile"]
    )
    bench.train(model, objective, setting, seed)
    return {}


@ROSTER.add("probe_multi", "ours", learning_rate=RATES, layers=(UPPER, SEVERAL), estimator=ESTIMATORS)
def _probe_multi(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective(
        "probe_multi", layers=setting["layers"], directions=bench.probes, estimator=setting["estimator"]
    )
    bench.train(model, objective, setting, seed)
    return {}


@ROSTER.add("distilled", "ours", learning_rate=RATES, layers=((4,), UPPER), overshoot=(3.0, 4.0))
def _distilled(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, _clamp_distilled(model, bench, setting["layers"], setting["overshoot"]), setting, seed)
    return {}


@ROSTER.add("hardened", "ours", learning_rate=(5e-4, 1e-3), kl_weight=(1.0, 3.0, 10.0), layers=(UPPER, SEVERAL))
def _hardened(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Unlearned along the probes' directions, then kept so at weights that begin to relearn."""
    bench.train(model, build_objective("probe_multi", layers=setting["layers"], directions=bench.probes), {}, seed)
    replay = sample_documents(model, N_REPLAY, REPLAY_TOKENS, seed=seed, progress=False)
    # The attacker trains everything, so everything is trained against him.
    everything: dict[str, Any] = {"roles": None, "layers": None}
    objective = build_objective("hardened", clean_share=bench.clean_share)
    bench.train(model, objective, setting, seed, replay=replay, **everything)
    return {}


@ROSTER.add("civil_finetuning", "baseline", learning_rate=RATES, kl_weight=(1.0, 10.0), retain_weight=(1.0, 10.0))
def _civil_finetuning(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("civil_finetuning", layers=RETAINED), setting, seed, neutral="replies")
    return {}


@ROSTER.add("dpo", "baseline", learning_rate=RATES, beta=(0.05, 0.1, 0.5, 1.0))
def _dpo(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("dpo", beta=setting["beta"], layers=RETAINED), setting, seed)
    return {}


@ROSTER.add("rmu", "baseline", coefficient=(2.0, 5.0, 10.0), retain_weight=(30.0, 100.0, 300.0, 1000.0))
def _rmu(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective("rmu", layers=4, coefficient=setting["coefficient"], adaptive=True, seed=seed)
    bench.train(model, objective, setting, seed, kl_weight=0.0, **_published(4))
    return {}


@ROSTER.add("cosine_rmu", "baseline", learning_rate=RATES, layer=(3, 4), retain_weight=(3.0, 10.0))
def _cosine_rmu(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective("cosine_rmu", layers=setting["layer"], seed=seed)
    bench.train(model, objective, setting, seed, **_published(setting["layer"]))
    return {}


@ROSTER.add("oracle", "privileged", learning_rate=(3e-4, 6e-4, 1e-3, 1.5e-3, 3e-3, 5e-3), contexts=(0.0, 0.5))
def _oracle(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective("oracle", teacher=bench.stage.twin, contexts=setting["contexts"])
    bench.train(model, objective, setting, seed)
    return {}


@ROSTER.add("profs", "baseline", rank=(1, 2, 4, 8, 16, 64), layers=(UPPER, SEVERAL))
def _profs(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    edit = build_method("profs", rank=setting["rank"])
    return _edit_weights(edit, model, bench, setting, seed, roles=("mlp.down",), layers=setting["layers"])


@ROSTER.add("task_vector", "baseline", learning_rate=(3e-4, 1e-3), steps=(20, 100), coefficient=(0.5, 1.0, 2.0))
def _task_vector(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    edit = build_method("task_vector", coefficient=setting["coefficient"])
    return _edit_weights(edit, model, bench, setting, seed)


@ROSTER.add("steering", "baseline", coefficient=(1.0, 2.0, 4.0, 8.0), layers=((4,), UPPER, SEVERAL))
def _steering(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    edits: Any = build_method(
        "steering",
        directions=bench.probes,
        layers=setting["layers"],
        coefficient=setting["coefficient"],
        scales=_scales(model, bench, setting["layers"], "mean_difference"),
    )
    return edits


@ROSTER.add("project_out", "baseline", layers=((3,), (4,), (5,), UPPER, (3, 4, 5), SEVERAL), estimator=ESTIMATORS)
def _project_out(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    return project_out_edits(bench.probes, setting["layers"], estimator=setting["estimator"])


def _edit_weights(edit: Any, model: HookedModel, bench: Bench, setting: Setting, seed: int, **fixed: Any) -> Edits:
    assert isinstance(edit, WeightEdit)
    edit.apply(model, bench.data(), bench.config(setting, seed, **fixed), progress=False)
    return {}


def _clamp_distilled(
    model: HookedModel, bench: Bench, layers: Sequence[int], overshoot: float, **options: Any
) -> Objective:
    """Clamps at the neutral median as teacher, admitted by its clean share on validation prompts."""
    scales = _scales(model, bench, layers, "logistic")
    edits = clamp_edits(bench.probes, layers, scales=scales, overshoot=overshoot)
    return build_objective("distilled", edits=edits, clean_share=bench.clean_share, layers=RETAINED, **options)


def _scales(model: HookedModel, bench: Bench, layers: Sequence[int], estimator: Any) -> dict[int, ProjectionScale]:
    return projection_scales(model, bench.data(), bench.probes, layers, bench.config({}, 0), estimator=estimator)


def _published(layer: int) -> dict[str, Any]:
    """RMU trains the MLP's output matrices of its layer and of the two below."""
    return {"roles": ("mlp.down",), "layers": tuple(n for n in range(layer - 2, layer + 1) if n in TRAINED_LAYERS)}
