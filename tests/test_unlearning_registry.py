"""Objectives by name, and the published recipes."""

import pytest
import torch

from interp_unlearn.errors import ConfigError
from interp_unlearn.unlearning import (
    FineTuning,
    Misdirection,
    build_objective,
    load_recipe,
    objective_names,
    recipe_names,
    register_objective,
)

NAMES = [
    "civil_finetuning",
    "cosine_rmu",
    "cosine_rmu_meta",
    "distilled",
    "oracle",
    "probe_multi",
    "probe_single",
    "random_multi",
    "random_single",
    "rmu",
]


def test_all_objectives_of_the_study_are_there():
    assert objective_names() == NAMES


def test_a_registered_objective_is_built_and_a_taken_name_refused():
    from interp_unlearn.unlearning.registry import _builders

    try:

        @register_objective("plain")
        def plain(layers=()):
            return FineTuning("forget", layers=layers, name="plain")

        assert build_objective("plain", layers=(2,)).layers == (2,)
        with pytest.raises(ConfigError, match="already"):
            register_objective("plain")(plain)
    finally:
        _builders.pop("plain", None)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("rnu", {}, "expected one of civil_finetuning, cosine_rmu"),
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
    assert not rmu.relative  # the published retain term
    assert build_objective("random_multi", layers=(1, 2)).relative
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
    assert build_objective(recipe.objective, **recipe.options).layers == (recipe.options["layers"][0],)
    stored = json.loads((files("interp_unlearn.unlearning") / "recipes" / f"{name}.json").read_text())
    given = {*stored["options"], *(f"config.{key}" for key in stored["config"])} - {"adaptive"}
    assert given == set(recipe.sources)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="rmu_zephyr_7b"):
        load_recipe("rmu")
