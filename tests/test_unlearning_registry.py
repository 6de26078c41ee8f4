"""Objectives by name, and the published recipes."""

import pytest
import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    DPO,
    FineTuning,
    Misdirection,
    ProFS,
    TaskVector,
    build_method,
    build_objective,
    load_recipe,
    method_kind,
    method_kinds,
    objective_names,
    recipe_names,
    register_objective,
)

NAMES = [
    "civil_finetuning",
    "contrastive_rmu",
    "cosine_rmu",
    "cosine_rmu_meta",
    "counterfactual",
    "counterfactual_meta",
    "distilled",
    "dpo",
    "flattened",
    "grad_diff",
    "gradient_ascent",
    "hardened",
    "npo",
    "oracle",
    "probe_multi",
    "probe_single",
    "random_multi",
    "random_single",
    "rerouting",
    "rmu",
    "rmu_lat",
    "simnpo",
    "subspace",
    "token_rmu",
]


def test_all_objectives_of_the_study_are_there():
    assert objective_names() == NAMES


def test_the_registry_says_what_each_name_builds():
    weight_edits = dict.fromkeys(("profs", "task_vector", "shrink_perturb"), "weight_edit")
    edits = weight_edits | {"steering": "inference_edit"}
    assert method_kinds() == dict.fromkeys(NAMES, "loss") | edits
    assert method_kind("dpo") == "loss"
    with pytest.raises(ConfigError, match=r"unknown objective 'pros'; expected one of .*profs.*steering"):
        method_kind("pros")


def test_the_three_kinds_are_built():
    profs = build_method("profs", rank=3, centre="singular_vector")
    assert isinstance(profs, ProFS)
    assert (profs.rank, profs.n_pairs, profs.centre, profs.name) == (3, 500, "singular_vector", "profs")
    task = build_method("task_vector", coefficient=0.5)
    assert isinstance(task, TaskVector) and task.coefficient == (0.5,)
    assert isinstance(build_method("dpo", beta=0.2), DPO)
    steering = build_method("steering", directions={1: 3 * torch.ones(4)}, layers=1, coefficient=2.0)
    assert list(steering) == [Site(1, "resid_post")]
    torch.testing.assert_close(steering[Site(1, "resid_post")].vector, torch.full((4,), 0.5))
    assert steering[Site(1, "resid_post")].coefficient == -2.0


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("profs", r"no loss but a weight edit: .*edit\.apply"),
        ("steering", r"no loss but an inference edit: .*model\.edited"),
    ],
)
def test_an_edit_is_no_objective(name, match):
    with pytest.raises(ConfigError, match=match):
        build_objective(name)


def test_a_registered_objective_is_built_and_a_taken_name_refused():
    from interp_unlearn.unlearning.registry import _methods

    try:

        @register_objective("plain")
        def plain(layers=()):
            return FineTuning("forget", layers=layers, name="plain")

        assert build_objective("plain", layers=(2,)).layers == (2,)
        with pytest.raises(ConfigError, match="already"):
            register_objective("plain")(plain)
    finally:
        _methods.pop("plain", None)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("rnu", {}, "expected one of civil_finetuning, contrastive_rmu"),
        ("rmu", {"layers": 1}, "missing a required argument: 'coefficient'.*adaptive"),
        ("rmu", {"layers": 1, "coefficient": 1.0, "speed": 2}, "speed"),
        ("random_single", {"layers": (1, 2)}, "exactly one layer"),
        ("random_multi", {"layers": (1,)}, "several layers"),
        ("random_multi", {"layers": ()}, "empty"),
        ("probe_single", {"layers": (1, 2), "directions": {}}, "exactly one layer"),
    ],
)
def test_names_and_options_that_do_not_fit_are_refused(name, options, match):
    with pytest.raises(ConfigError, match=match):
        build_objective(name, **options)


def test_the_names_mean_what_the_study_says():
    assert build_objective("cosine_rmu_meta", layers=1).meta
    assert not build_objective("cosine_rmu", layers=1).meta
    rmu = build_objective("rmu", layers=7, coefficient=6.5)
    assert isinstance(rmu, Misdirection)
    assert rmu.hidden == "mse"  # the published retain term
    assert build_objective("random_multi", layers=(1, 2)).hidden == "relative_mse"
    assert not build_objective("oracle", teacher=object()).retains
    assert build_objective("civil_finetuning").source == "neutral"
    weights = build_objective(
        "probe_multi", layers=(1, 3), directions={1: torch.ones(2), 3: torch.ones(2)}
    ).layer_weights
    assert weights == {1: 0.5, 3: 0.5}


def test_the_recipe_of_the_released_model():
    recipe = load_recipe("rmu_zephyr_7b")
    assert (recipe.config.steps, recipe.config.batch_size, recipe.config.learning_rate) == (150, 4, 5e-5)
    assert recipe.config.layers == (5, 6, 7)
    assert recipe.config.retain_weight == 1200
    assert recipe.config.kl_weight == 0
    assert recipe.options["coefficient"] == 6.5


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_and_names_the_source_of_each_value(name):
    import json
    from importlib.resources import files

    recipe = load_recipe(name)
    method = build_method(recipe.objective, **recipe.options)
    if method_kind(recipe.objective) == "loss":
        assert method.layers == tuple(recipe.options.get("layers", ()))
    stored = json.loads((files("interp_unlearn.unlearning") / "recipes" / f"{name}.json").read_text())
    given = {*stored["options"], *(f"config.{key}" for key in stored["config"])} - {"adaptive"}
    assert given == set(recipe.sources)


def test_the_recipes_of_the_published_edits():
    small, large = load_recipe("profs_gpt2_medium"), load_recipe("profs_mistral_7b")
    assert (small.options["rank"], large.options["rank"]) == (2, 10)
    assert small.config.layers == tuple(range(10, 24)) and large.config.layers == tuple(range(15, 32))
    assert small.config.roles == large.config.roles == ("mlp.down",)
    dpo = load_recipe("dpo_gpt2_medium")
    assert dpo.options == {"beta": 0.1}
    assert dpo.config.retain_weight == dpo.config.kl_weight == 0


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="rmu_zephyr_7b"):
        load_recipe("rmu")
