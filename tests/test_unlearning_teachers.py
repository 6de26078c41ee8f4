"""Interventions made from probes, what they do to text, and which layers they work at."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from planted_classes import DATA, FORGET, NEUTRAL, read_at

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import generate_texts
from interp_unlearn.interventions import Add, Clamp, ProjectOut
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    ProjectionPenalty,
    build_objective,
    candidate_teachers,
    choose_layers,
    clamp_edits,
    compare_teachers,
    effect_weights,
    project_out_edits,
    projection_scales,
    steering_edits,
    unlearn,
)

PROMPTS = ["the cat", "a dog", "who said", "it was", "the hill", "yes"]


def probes_of(model, layers, auroc=None):
    """Probes by hand: the difference of the classes' medians as logistic direction, of their means as the other."""
    forget, neutral = ({layer: read_at(model, texts, layer) for layer in layers} for texts in (FORGET, NEUTRAL))
    medians, means = [], []
    for layer in layers:
        medians.append(forget[layer].median(0).values - neutral[layer].median(0).values)
        means.append(forget[layer].mean(0) - neutral[layer].mean(0))
    directions, differences = (torch.stack([w / w.norm() for w in part]) for part in (medians, means))
    return ProbeSet(
        sites=tuple(Site(layer, "resid_post") for layer in layers),
        directions=directions,
        biases=torch.arange(len(layers)) - 0.5,
        scales=torch.ones(len(layers)),
        mean_differences=differences,
        mean_difference_biases=torch.zeros(len(layers)),
        table=pd.DataFrame(
            {"auroc": auroc or [0.9] * len(layers), "auroc_mean_difference": np.linspace(1, 0.5, len(layers))}
        ),
        metadata={},
    )


@pytest.mark.parametrize("estimator", ["logistic", "mean_difference"])
def test_clamps_stop_forget_tokens_at_the_neutral_median(llama, estimator):
    probes = probes_of(llama, (0, 1, 2))
    scales = projection_scales(llama, DATA, probes, (1,), estimator=estimator)
    edits = clamp_edits(probes, (1,), estimator=estimator, scales=scales)
    w = probes.direction(Site(1, "resid_post"), estimator)
    before = read_at(llama, FORGET, 1) @ w
    with llama.edited(edits):
        after = read_at(llama, FORGET, 1) @ w
    torch.testing.assert_close(after, before.clamp(max=scales[1].neutral_median), rtol=0, atol=1e-4)
    assert (before > scales[1].neutral_median).float().mean() > 0.5


def test_without_scales_a_clamp_stands_at_the_probes_border(llama):
    probes = probes_of(llama, (0, 1))
    edit = clamp_edits(probes, (0, 1), overshoot=2.0)[Site(1, "resid_post")]
    assert isinstance(edit, Clamp)
    assert (edit.threshold, edit.overshoot) == (-0.5, 2.0)
    with pytest.raises(ConfigError, match="no border"):
        clamp_edits({1: torch.ones(32)}, (1,))
    with pytest.raises(ConfigError, match="no scale for layer 1"):
        clamp_edits({1: torch.ones(32)}, (1,), scales={})


def test_steering_takes_the_median_forget_token_to_the_neutral_median(llama):
    probes = probes_of(llama, (1,))
    scales = projection_scales(llama, DATA, probes, (1,), estimator="mean_difference")
    w = probes.direction(Site(1, "resid_post"), "mean_difference")
    with llama.edited(steering_edits(probes, (1,), 1.0, scales=scales)):
        after = read_at(llama, FORGET, 1) @ w
    assert after.quantile(0.5).item() == pytest.approx(scales[1].neutral_median, abs=1e-3)
    plain = steering_edits(probes, (1,), 3.0)[Site(1, "resid_post")]
    assert isinstance(plain, Add)
    before = read_at(llama, NEUTRAL, 1)
    with llama.edited({Site(1, "resid_post"): plain}):
        torch.testing.assert_close(read_at(llama, NEUTRAL, 1), before - 3 * w, rtol=0, atol=1e-4)


def test_projections_remove_one_direction_or_several(llama):
    probes = probes_of(llama, (0, 1))
    edits = project_out_edits(probes, (0, 1), estimator="mean_difference")
    assert all(isinstance(edit, ProjectOut) for edit in edits.values())
    span = {1: torch.stack([probes.directions[1], probes.mean_differences[1]])}
    with llama.edited(project_out_edits(span, (1,))):
        assert (read_at(llama, FORGET, 1) @ span[1].T).abs().max() < 1e-4
    assert (read_at(llama, FORGET, 1) @ span[1].T).abs().max() > 0.1


def length_judge(prompt, text):
    return "long" if len(text.split()) > 2 else "short"


def test_each_candidate_is_judged_on_its_own_text_and_the_model_is_left_alone(llama):
    strong = {Site.logits: Add(torch.nn.functional.one_hot(torch.tensor(5), 26).float(), 50.0)}
    word = llama.tokenizer.convert_ids_to_tokens(5)
    seen = []

    def judge(prompt, text):
        seen.append((prompt, text))
        return "target" if set(text.split()) == {word} else "clean"

    before = llama.hash()
    frame = compare_teachers(llama, {"strong": strong, "none": {}}, judge, PROMPTS, 4, seed=3, progress=False)
    assert frame["teacher"].tolist() == ["unedited", "strong", "none"]
    assert frame["target"].tolist() == [0.0, 1.0, 0.0]
    assert frame["clean"].tolist() == [1.0, 0.0, 1.0]
    assert (frame["n"] == 6).all() and (frame["seed"] == 3).all()
    plain = generate_texts(llama, PROMPTS, 4, seed=3, progress=False)
    assert seen[:6] == list(zip(PROMPTS, plain, strict=True)) == seen[12:]
    assert llama.hash() == before


def test_shares_carry_wilson_intervals(llama):
    answers = iter(["bad"] * 2 + ["good"] * 4)
    listed = ("broken", "good")
    frame = compare_teachers(llama, {}, lambda *_: next(answers), PROMPTS, 2, verdicts=listed, progress=False)
    assert [name for name in frame.columns if "_" not in name] == ["teacher", "n", "seed", "broken", "good", "bad"]
    assert frame.loc[0, "broken"] == 0.0
    # Wilson 1927: (p + z^2 / 2n -+ z sqrt(p(1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    n, p, z = 6, 2 / 6, 1.959964
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert frame.loc[0, ["bad_low", "bad_high"]].tolist() == pytest.approx(expected, abs=1e-5)
    assert frame.loc[0, "good"] == pytest.approx(4 / 6)


def test_scores_give_their_mean_and_the_share_from_a_half(llama):
    scores = iter([0.0, 0.5, 1.0, 0.4, 0.6, 0.2])
    frame = compare_teachers(llama, {}, lambda *_: next(scores), PROMPTS, 2, progress=False)
    assert frame.loc[0, "score"] == pytest.approx(0.45)
    assert frame.loc[0, "from_half"] == 0.5
    assert 0 < frame.loc[0, "from_half_low"] < 0.5 < frame.loc[0, "from_half_high"] < 1


def test_what_cannot_be_compared_is_refused(llama):
    with pytest.raises(DataError, match="prompts"):
        compare_teachers(llama, {}, length_judge, [], 2, progress=False)
    with pytest.raises(ConfigError, match="rename"):
        compare_teachers(llama, {"unedited": {}}, length_judge, PROMPTS, 2, progress=False)
    mixed = iter(["bad", 0.5] * 3)
    with pytest.raises(ConfigError, match="verdicts to some"):
        compare_teachers(llama, {}, lambda *_: next(mixed), PROMPTS, 2, progress=False)


def test_candidates_cover_both_estimators_and_can_all_be_distilled(llama):
    probes = probes_of(llama, (0, 1))
    found = candidate_teachers(llama, DATA, probes, (0, 1), overshoots=(1.0, 4.0), coefficients=(2.0,))
    assert list(found) == [
        f"{kind} {estimator}{times}"
        for estimator in ("logistic", "mean_difference")
        for kind, times in (("clamp", " x1"), ("clamp", " x4"), ("project_out", ""), ("steering", " x2"))
    ]
    scales = projection_scales(llama, DATA, probes, (0, 1), estimator="mean_difference")
    clamp = found["clamp mean_difference x4"][Site(1, "resid_post")]
    assert (clamp.threshold, clamp.overshoot) == (scales[1].neutral_median, 4.0)
    steering = found["steering mean_difference x2"][Site(1, "resid_post")]
    assert steering.coefficient == pytest.approx(-2 * scales[1].gap)
    frame = compare_teachers(llama, found, length_judge, PROMPTS, 3, progress=False)
    assert len(frame) == 1 + len(found)
    from interp_unlearn.unlearning import UnlearnConfig

    objective = build_objective("distilled", edits=found["steering mean_difference x2"], contexts=0.0)
    config = UnlearnConfig(steps=15, batch_size=4, roles=("mlp",), learning_rate=5e-3, kl_weight=0.0)
    losses = unlearn(llama, objective, DATA, config, progress=False).history["forget"]
    assert losses.iloc[-1] < 0.7 * losses.iloc[0]


def test_layers_are_the_best_read_ones(llama):
    probes = probes_of(llama, (0, 1, 2), auroc=[0.8, 0.95, 0.9])
    assert choose_layers(probes, 1) == (1,)
    assert choose_layers(probes, 2) == (1, 2)
    assert choose_layers(probes, 3) == (0, 1, 2)
    assert choose_layers(probes, 1, how="auroc_mean_difference") == (0,)
    edges = probes_of(llama, (0, 1, 2), auroc=[0.95, 0.5, 0.94])
    assert choose_layers(edges, 2) == (0, 2)
    assert choose_layers(edges, 2, contiguous=True) == (0, 1)


def test_equal_quality_chooses_the_deeper_layer_and_says_so(llama, caplog):
    probes = probes_of(llama, (0, 1, 2), auroc=[1.0, 1.0, 1.0])
    with caplog.at_level(logging.WARNING):
        assert choose_layers(probes, 2) == (1, 2)
    assert "does not choose" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert choose_layers(probes, 3) == (0, 1, 2)
        assert choose_layers(probes_of(llama, (0, 1, 2), auroc=[0.9, 1.0, 1.0]), 2) == (1, 2)
    assert not caplog.text


@pytest.mark.parametrize(
    ("n", "options", "match"),
    [
        (0, {}, "at least 1"),
        (4, {}, r"asked for 4 layers.*\[0, 1, 2\]"),
        (4, {"contiguous": True}, "run of 4"),
        (1, {"how": "f1"}, "no column 'f1'"),
    ],
)
def test_layers_that_are_not_there_are_refused(llama, n, options, match):
    with pytest.raises(ConfigError, match=match):
        choose_layers(probes_of(llama, (0, 1, 2)), n, **options)


def test_a_run_needs_neighbours(llama):
    apart = probes_of(llama, (0, 2))
    assert choose_layers(apart, 2) == (0, 2)
    with pytest.raises(ConfigError, match="run of 2"):
        choose_layers(apart, 2, contiguous=True)


def test_layer_weights_are_the_drops_of_each_layer_alone(llama):
    """Edits whose text is known beforehand: layer 0 clears every prompt, layer 1 half of them, layer 2 none."""
    shares = {"unedited": 1.0, "0": 0.0, "1": 0.5, "2": 1.0}
    order = iter([name for name in shares for _ in PROMPTS])
    counts: dict[str, int] = {}

    def judge(prompt, text):
        name = next(order)
        counts[name] = counts.get(name, 0) + 1
        return "target" if counts[name] <= shares[name] * len(PROMPTS) else "clean"

    edits = {Site(layer, "resid_post"): Add(torch.ones(32)) for layer in range(3)}
    weights = effect_weights(llama, edits, judge, PROMPTS, 2, progress=False)
    assert weights == pytest.approx({0: 2 / 3, 1: 1 / 3, 2: 0.0})
    directions = {layer: torch.ones(32) for layer in range(3)}
    assert ProjectionPenalty((0, 1, 2), directions, layer_weights=weights).layer_weights == weights


def test_layer_weights_need_an_effect(llama):
    edits = {Site(1, "resid_post"): Add(torch.zeros(32))}
    with pytest.raises(ConfigError, match="drops at none"):
        effect_weights(llama, edits, lambda *_: "target", PROMPTS, 2, progress=False)
    with pytest.raises(ConfigError, match="no 'toxic' among"):
        effect_weights(llama, edits, lambda *_: "target", PROMPTS, 2, measure="toxic", progress=False)
    with pytest.raises(ConfigError, match="no layer"):
        effect_weights(llama, {Site.embed: Add(torch.zeros(32))}, lambda *_: "target", PROMPTS, 2, progress=False)
