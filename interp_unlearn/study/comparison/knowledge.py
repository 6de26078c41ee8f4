"""The contenders on dangerous knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp_unlearn.evaluation import sample_documents
from interp_unlearn.organism import lexicon
from interp_unlearn.study.comparison.bench import TRAINED_LAYERS, Bench
from interp_unlearn.study.comparison.contenders import Roster, Setting
from interp_unlearn.unlearning import AdversaryConfig, ForkConfig, build_method, build_objective, build_rule
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site

Edits = Mapping["Site", "Edit"]

RATES = (3e-4, 1e-3, 3e-3)
LAYERS = ((3,), (3, 4))
EVERYTHING: dict[str, Any] = {"roles": None, "layers": None}
"""Every parameter is trained: the attacker trains everything, so everything is trained against him."""
PERSISTENT = AdversaryConfig(steps=32, gradient_steps=(2, 4, 8, 16, 32), learning_rates=(1e-3, 3e-3))
"""Relearns for longer, and faster, than the attacker of the paper's reading."""
N_REPLAY, REPLAY_TOKENS = 2000, 64
LEAST_CLEAN = 0.5
"""What is hardened must say something clean at least half of the time."""
ROSTER = Roster()


@ROSTER.add("rmu", "baseline", layer=(3, 4), coefficient=(2.0, 5.0, 10.0), retain_weight=(30.0, 300.0))
def _rmu(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective(
        "rmu", layers=setting["layer"], coefficient=setting["coefficient"], adaptive=True, seed=seed
    )
    bench.train(model, objective, setting, seed, kl_weight=0.0, **_published(setting["layer"]))
    return {}


@ROSTER.add("rmu_lat", "baseline", layer=(3, 4), coefficient=(2.0, 5.0, 10.0), retain_weight=(30.0, 300.0))
def _rmu_lat(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective(
        "rmu_lat", layers=setting["layer"], coefficient=setting["coefficient"], adaptive=True, seed=seed
    )
    bench.train(model, objective, setting, seed, kl_weight=0.0, **_published(setting["layer"]))
    return {}


@ROSTER.add("cosine_rmu", "baseline", learning_rate=RATES, layer=(3, 4), retain_weight=(3.0, 10.0))
def _cosine_rmu(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective("cosine_rmu", layers=setting["layer"], seed=seed)
    bench.train(model, objective, setting, seed, **_published(setting["layer"]))
    return {}


@ROSTER.add("cosine_rmu_meta", "baseline", learning_rate=RATES, layer=(3, 4), retain_weight=(3.0, 10.0))
def _cosine_rmu_meta(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("cosine_rmu_meta", layers=setting["layer"], seed=seed), setting, seed)
    return {}


@ROSTER.add("rerouting", "baseline", learning_rate=RATES, layers=LAYERS, retain_weight=(3.0, 10.0))
def _rerouting(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("rerouting", layers=setting["layers"]), setting, seed)
    return {}


@ROSTER.add("gradient_ascent", "baseline", learning_rate=(3e-5, 1e-4, 3e-4, 1e-3), steps=(10, 30, 100))
def _gradient_ascent(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("gradient_ascent"), setting, seed)
    return {}


@ROSTER.add("grad_diff", "baseline", learning_rate=(1e-4, 3e-4, 1e-3, 3e-3), kl_weight=(1.0, 10.0, 100.0))
def _grad_diff(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("grad_diff"), setting, seed, retain_weight=0.0)
    return {}


@ROSTER.add("npo", "baseline", learning_rate=RATES, beta=(0.05, 0.1, 0.5, 1.0))
def _npo(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("npo", beta=setting["beta"]), setting, seed, retain_weight=0.0)
    return {}


@ROSTER.add("simnpo", "baseline", learning_rate=RATES, beta=(1.0, 2.5, 4.5, 10.0))
def _simnpo(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    bench.train(model, build_objective("simnpo", beta=setting["beta"]), setting, seed, retain_weight=0.0)
    return {}


@ROSTER.add("mudman", "baseline", learning_rate=(1e-2, 3e-2, 1e-1), attacker_rate=(1e-2, 1e-1), refork=(10, 30))
def _mudman(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Ascent at an attacker's weights, masked, by plain gradient descent as published."""
    fork = ForkConfig(refork=setting["refork"], learning_rate=setting["attacker_rate"])
    rules = (build_rule("mask_by_sign"),)
    objective = build_objective("grad_diff")
    bench.train(model, objective, setting, seed, rules=rules, adversary=fork, optimizer="sgd", retain_weight=0.0)
    return {}


@ROSTER.add("cir", "baseline", learning_rate=RATES, rank=(2, 8), kl_weight=(10.0, 100.0))
def _cir(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    rules = (build_rule("collapse_components", rank=setting["rank"]),)
    bench.train(model, build_objective("grad_diff"), setting, seed, rules=rules, retain_weight=0.0)
    return {}


@ROSTER.add("undo", "baseline", alpha=(0.2, 0.4, 0.6), learning_rate=(1e-3, 3e-3), distilled_for=(1, 4))
def _undo(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Unlearned to predictions about strangers, noised, then distilled from what it was before the noise."""
    _counterfactual(model, bench, {}, seed)
    teacher = bench.stage.model("knows_all")
    teacher.hf.load_state_dict(model.hf.state_dict())
    teacher.mark_changed()
    noise = build_method("shrink_perturb", alpha=setting["alpha"], beta=1.0, seed=seed)
    assert isinstance(noise, WeightEdit)
    noise.apply(model, bench.data(), bench.config({}, seed, **EVERYTHING), progress=False)
    steps = bench.steps * setting["distilled_for"]
    objective = build_objective("oracle", teacher=teacher, contexts=0.0)
    bench.train(model, objective, setting, seed, steps=steps, **EVERYTHING)
    return {}


@ROSTER.add("counterfactual_activations", "ours", learning_rate=RATES, layers=LAYERS, retain_weight=(3.0, 10.0))
def _counterfactual_activations(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """The cosine, toward the original's activations on the same text about a stranger."""
    bench.train(model, build_objective("counterfactual", layers=setting["layers"], by="cosine"), setting, seed)
    return {}


@ROSTER.add("counterfactual", "ours", learning_rate=RATES, kl_weight=(3.0, 10.0), retain_weight=(0.0, 10.0))
def _counterfactual(model: HookedModel, bench: Bench, setting: Setting, seed: int, **fixed: Any) -> Edits:
    """What the original would say of a stranger."""
    objective = build_objective("counterfactual", by="predictions", layers=(3,) if setting.get("retain_weight") else ())
    bench.train(model, objective, setting, seed, **fixed)
    return {}


@ROSTER.add("counterfactual_meta", "ours", learning_rate=RATES, kl_weight=(3.0, 10.0), retain_weight=(0.0, 10.0))
def _counterfactual_meta(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """The same, at weights that begin to relearn, from the first step on."""
    layers = (3,) if setting["retain_weight"] else ()
    objective = build_objective("counterfactual_meta", by="predictions", layers=layers)
    bench.train(model, objective, setting, seed, **EVERYTHING)
    return {}


@ROSTER.add("flattened", "privileged", learning_rate=RATES, kl_weight=(3.0, 10.0), retain_weight=(0.0, 10.0))
def _flattened(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    pools = [[_token(model, word) for word in pool] for pool in lexicon.HAZARD_POOLS.values()]
    objective = build_objective("flattened", pools=pools, layers=(3,) if setting["retain_weight"] else ())
    bench.train(model, objective, setting, seed)
    return {}


@ROSTER.add("oracle", "privileged", learning_rate=(3e-4, 6e-4, 1e-3, 1.5e-3, 3e-3, 5e-3), contexts=(0.0, 0.5))
def _oracle(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    objective = build_objective("oracle", teacher=bench.stage.twin, contexts=setting["contexts"])
    bench.train(model, objective, setting, seed)
    return {}


@ROSTER.add("hardened", "ours", learning_rate=(5e-4, 1e-3), kl_weight=(2.0, 5.0, 10.0), steps=(30, 60))
def _hardened(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Unlearned to predictions about strangers, then kept so at weights that have relearned for long."""
    _counterfactual(model, bench, {}, seed)
    _harden(model, bench, setting, seed)
    return {}


@ROSTER.add("hardened_bare", "ours", learning_rate=(5e-4, 1e-3), kl_weight=(5.0, 10.0, 20.0), steps=(30, 60))
def _hardened_bare(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Hardening without texts of its own, of what the search on the shipped organism found for `counterfactual`.

    Caveat: added once the ablations of `hardened` had been seen on the test subjects.
    """
    _counterfactual(model, bench, {"learning_rate": 3e-3, "kl_weight": 3.0}, seed)
    _harden(model, bench, setting, seed, replay=False)
    return {}


@ROSTER.ablate("hardened", "not_hardened")
def _not_hardened(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    return _counterfactual(model, bench, {}, seed)


@ROSTER.ablate("hardened", "trained_longer")
def _trained_longer(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """No adversary, but as many forget gradients: an update of hardening takes those of about 38 batches."""
    return _for_steps(bench.steps + 19 * setting["steps"], model, bench, seed)


@ROSTER.ablate("hardened", "as_many_tokens")
def _as_many_tokens(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """No adversary, but as many tokens forward: its inner steps see forget text alone, ours retained text too."""
    return _for_steps(bench.steps + round(5.8 * setting["steps"]), model, bench, seed)


@ROSTER.ablate("hardened", "without_adversary")
def _without_adversary(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Distilled into itself with its own texts retained, but never attacked."""
    _counterfactual(model, bench, {}, seed)
    _harden(model, bench, setting, seed, meta=False)
    return {}


@ROSTER.ablate("hardened", "without_replay")
def _without_replay(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    _counterfactual(model, bench, {}, seed)
    _harden(model, bench, setting, seed, replay=False)
    return {}


@ROSTER.ablate("hardened", "short_adversary")
def _short_adversary(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """Eight inner steps instead of 32."""
    _counterfactual(model, bench, {}, seed)
    _harden(model, bench, setting, seed, adversary=AdversaryConfig())
    return {}


@ROSTER.ablate("hardened", "from_activations")
def _from_activations(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """What is hardened comes from the cosine at a layer instead of predictions."""
    _counterfactual_activations(model, bench, {"layers": (3,)}, seed)
    _harden(model, bench, setting, seed)
    return {}


@ROSTER.ablate("hardened", "one_stranger")
def _one_stranger(model: HookedModel, bench: Bench, setting: Setting, seed: int) -> Edits:
    """A single counterpart of each fact instead of four."""
    return _hardened(model, replace(bench, n_strangers=1), setting, seed)


def _for_steps(steps: int, model: HookedModel, bench: Bench, seed: int) -> Edits:
    return _counterfactual(model, bench, {}, seed, **EVERYTHING | {"steps": steps})


def _harden(
    model: HookedModel,
    bench: Bench,
    setting: Setting,
    seed: int,
    *,
    meta: bool = True,
    replay: bool = True,
    adversary: AdversaryConfig | None = None,
) -> None:
    """Keeps a model as it is against an attacker, with texts that it writes itself retained."""
    own = sample_documents(model, N_REPLAY, REPLAY_TOKENS, seed=seed, progress=False) if replay else []
    objective = build_objective(
        "hardened", clean_share=bench.clean_share, least_clean=LEAST_CLEAN, contexts=0.0, meta=meta
    )
    attacker = (adversary or PERSISTENT) if meta else None
    bench.train(model, objective, setting, seed, replay=own, adversary=attacker, **EVERYTHING)


def _token(model: HookedModel, word: str) -> int:
    (token,) = model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return int(token)


def _published(layer: int) -> dict[str, Any]:
    """RMU trains the MLP's output matrices of its layer and of the two below."""
    return {"roles": ("mlp.down",), "layers": tuple(n for n in range(layer - 2, layer + 1) if n in TRAINED_LAYERS)}
