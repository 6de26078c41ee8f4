"""Bad input, what a run is told: settings, methods by name, recipes, update rules."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS, make_hf, make_tokenizer

from interp_unlearn import HookedModel, UnlearnConfig, unlearn
from interp_unlearn.directions import EffectsConfig, Intervention
from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation import ClassifierConfig, ToxicityConfig
from interp_unlearn.organism.build import BuildConfig
from interp_unlearn.probes.settings import ProbeSettings
from interp_unlearn.unlearning import (
    AdversaryConfig,
    Checkpoints,
    ForkConfig,
    GuardConfig,
    LoraConfig,
    TradeOffConfig,
    UnlearnData,
    build_method,
    build_objective,
    build_rule,
    load_recipe,
)

NAN, INF = float("nan"), float("inf")
Act = Callable[[], object]


def told(kind: Callable[..., object], /, **settings: Any) -> Act:
    """Make settings."""
    return lambda: kind(**settings)


def run(**settings: Any) -> Act:
    return told(UnlearnConfig, **settings)


def attacker(**settings: Any) -> Act:
    return told(AdversaryConfig, **settings)


def probing(**change: Any) -> Act:
    settings = {"folds": 2, "C": 1.0, "C_sites": None, "seed": 0, "shuffles": 1, "bootstrap": 0, "resamples": 0}
    return told(ProbeSettings, **{**settings, "leace": False, **change})


def named(name: str, /, **options: Any) -> Act:
    """Make a method by its name."""
    return lambda: build_method(name, **options)


def trained(name: str, data: UnlearnData | None = None, config: UnlearnConfig | None = None, **options: Any) -> Act:
    """Train a tiny model by a method's name."""
    texts = data or UnlearnData(forget=TEXTS, retain=TEXTS)

    def act() -> object:
        model = HookedModel(make_hf("llama"), make_tokenizer(), name="tiny-llama")
        objective = build_objective(name, **options)
        return unlearn(model, objective, texts, config or UnlearnConfig(steps=1), progress=False)

    return act


CASES: dict[str, tuple[Act, str]] = {
    "no steps": (run(steps=0), r"steps must be more than 0, got 0"),
    "steps in words": (run(steps="ten"), r"steps: expected a whole number, got 'ten'"),
    "half a step": (run(steps=1.5), r"steps: expected a whole number, got 1\.5"),
    "true steps": (run(steps=True), r"steps: expected a whole number, got True"),
    "infinite rate": (run(learning_rate=INF), r"learning_rate: expected a finite number, got inf"),
    "negative weight": (run(kl_weight=-1.0), r"kl_weight must be 0 or more, got -1\.0"),
    "NaN weight": (run(nll_weight=NAN), r"nll_weight: expected a finite number, got nan"),
    "clip of nothing": (run(clip=0.0), r"clip must be more than 0, got 0\.0"),
    "roles in one text": (
        run(roles="mlp.down"),
        r"roles must be a non-empty sequence or None for all, got 'mlp\.down'",
    ),
    "no layers": (run(layers=[]), r"layers must be a non-empty sequence or None for all, got \[\]"),
    "one layer": (run(layers=3), r"layers: expected a list, each a whole number or None, got 3"),
    "layers in words": (run(layers=("1",)), r"layers: expected a list, each a whole number or None, got \('1',\)"),
    "optimizer": (run(optimizer="lion"), r"optimizer: expected one of adamw, sgd, rmsprop, got 'lion'"),
    "forget on": (run(forget_on="prompt"), r"forget_on: expected one of content, completion, got 'prompt'"),
    "adapters on all": (run(lora=LoraConfig(), roles=None), r"lora puts adapters on matrices by role, .*; name roles"),
    "unknown nested": (run(adversary={"zork": 1}), r"adversary: .*'zork'; its settings are steps, gradient_steps"),
    "bad nested": (run(guard={"max_kl": "low"}), r"max_kl: expected a finite number, got 'low'"),
    "no nested": (run(guard=[1]), r"guard: expected GuardConfig or None, got \[1\]"),
    "attacker's steps": (attacker(gradient_steps=(9,)), r"must lie between 1 and steps = 8, got \(9,\); give at least"),
    "attacker's step": (attacker(gradient_steps=2), r"gradient_steps: expected a list, each a whole number, got 2"),
    "attacker's rates": (attacker(learning_rates=()), r"learning_rates must be positive numbers, got \(\)"),
    "attacker's aim": (attacker(relearns="all"), r"relearns: expected one of text, activations, got 'all'"),
    "fork": (told(ForkConfig, refork=0), r"refork must be more than 0, got 0"),
    "guard": (
        told(GuardConfig, max_kl=0.0),
        r"max_kl must be more than 0, every and rows at least 1, got 0\.0, 10, 64",
    ),
    "adapter": (told(LoraConfig, rank=0), r"rank must be more than 0, got 0"),
    "trade-off": (
        told(TradeOffConfig, least=2.0),
        r"must be more than 0 and the bounds enclose 1, got .* 2\.0 to 100\.0",
    ),
    "trade-off's kind": (told(TradeOffConfig, kind="x"), r"kind: expected one of dual, lookahead, got 'x'"),
    "states": (told(Checkpoints, folder="x", every=0), r"every must be at least 1, got 0"),
    "classifier": (told(ClassifierConfig, kind="tree"), r"kind: expected one of encoder, decoder, got 'tree'"),
    "classifier's width": (told(ClassifierConfig, width=30), r"width: expected a multiple of the 4 heads, got 30"),
    "classifier's share": (
        told(ClassifierConfig, held_out=0.5),
        r"held_out: expected a share between 0 and 0\.5, got 0",
    ),
    "continuations": (told(ToxicityConfig, continuations=0), r"continuations: expected at least 1, got 0"),
    "sampled at a time": (told(ToxicityConfig, batch_size=0), r"batch_size: expected at least 1, got 0"),
    "k": (told(ToxicityConfig, k=26), r"k: expected 1 to the 25 continuations, got 26"),
    "nucleus": (told(ToxicityConfig, top_p=0.0), r"expected 0 < top_p <= 1 and temperature > 0, got top_p=0\.0"),
    "effects": (told(EffectsConfig, layers="some"), r"layers: expected each, all or both, got 'some'"),
    "effects' seed": (told(EffectsConfig, seed=None), r"seed: expected a whole number, got None"),
    "effects' control": (told(EffectsConfig, n_random=0), r"an effect without a random direction says nothing; got 0"),
    "intervention": (told(Intervention, kind="rotate"), r"expected one of add, clamp, project_out, got 'rotate'"),
    "strength": (told(Intervention, kind="add", strength="much"), r"strength: expected a number, got 'much'"),
    "build": (told(BuildConfig, d_model=30), r"d_model 30 is not a multiple of n_heads 4"),
    "build without heads": (told(BuildConfig, n_heads=0), r"d_model 128 is not a multiple of n_heads 0"),
    "C": (probing(C=INF), r"C: expected a finite number or a list, each a finite number, got inf"),
    "C twice": (probing(C=[1.0, 1.0]), r"C: expected different values to choose from, got \[1\.0, 1\.0\]"),
    "negative seed": (probing(seed=-1), r"seed: expected at least 0, got -1"),
    "method": (named("pros"), r"unknown objective 'pros'; expected one of .*, profs, "),
    "method's options": (
        named("rmu", layers=1, coefficient=2, beta=2),
        r"rmu: .*'beta'; its options are layers, coefficient, adapti",
    ),
    "method without layers": (
        named("cosine_rmu", layers=[]),
        r"layers is empty; give at least one layer, counted from",
    ),
    "method's layers": (named("cosine_rmu", layers=["a"]), r"layers: expected a whole number or a list, each a wh"),
    "too many layers": (named("random_single", layers=[0, 1]), r"random_single takes exactly one layer, got \[0, 1\]"),
    "too few layers": (named("random_multi", layers=[1]), r"random_multi takes several layers, got \[1\]"),
    "RMU's target": (named("rmu", layers=1, coefficient=NAN), r"rmu: coefficient: expected a finite number, got nan"),
    "latent adversary": (
        named("rmu_lat", layers=1, coefficient=1, radius=0),
        r"radius must be above 0 and ascent_steps a",
    ),
    "beta": (named("dpo", beta=INF), r"dpo: beta: expected a finite number, got inf"),
    "beta of npo": (named("npo", beta=0), r"npo: beta must be more than 0 and finite, got 0"),
    "task vector": (named("task_vector", coefficient=0), r"coefficients must be more than 0 and finite, got 0"),
    "shrinking": (named("shrink_perturb", beta=INF), r"beta: expected a finite number, got inf"),
    "rank": (named("profs", rank=0), r"profs: rank and n_pairs must be at least 1, got 0 and 500"),
    "flattening": (named("flattened", pools=[]), r"pools must be non-empty and share no token, got \[\] ids"),
    "counterfactual": (
        named("counterfactual", by="x"),
        r"by: expected one of cosine, relative_mse, predictions, got 'x'",
    ),
    "an edit as loss": (
        lambda: build_objective("profs"),
        r"profs is no loss but a weight edit: make it with build_met",
    ),
    "layer of a method": (trained("cosine_rmu", layers=[3]), r"layers \[3\] out of range; the model has layers 0 to 2"),
    "no pairs": (trained("dpo"), r"dpo needs counterparts texts, and there are none; give UnlearnData\(counterparts="),
    "nothing retained": (trained("grad_diff", UnlearnData(["a"])), r"needs retain texts, and there are none; give Unl"),
    "no completions": (
        trained("gradient_ascent", config=UnlearnConfig(forget_on="completion")),
        r"forget_on is completion and the forget texts have none; give UnlearnData\(forget_completions=",
    ),
    "recipe": (lambda: load_recipe("magic"), r"unknown recipe 'magic'; expected one of .*rmu_zephyr_7b"),
    "rule": (lambda: build_rule("magic"), r"unknown update rule 'magic'; expected one of .*mask_by_sign"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_settings_are_refused_with_one_clear_line(case: str) -> None:
    act, message = CASES[case]
    with pytest.raises(ConfigError, match=message) as raised:
        act()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("config", [UnlearnConfig(adversary=AdversaryConfig()), ToxicityConfig(k=3), BuildConfig()])
def test_lists_of_json_are_as_good_as_tuples(config: Any) -> None:
    assert type(config)(**json.loads(json.dumps(asdict(config)))) == config


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"steps": np.int64(3), "learning_rate": np.float32(0.5), "kl_weight": 1}
    assert UnlearnConfig(**numbers) == UnlearnConfig(steps=3, learning_rate=0.5, kl_weight=1.0)
