"""Each objective does what it says: its loss falls, its targets are right, what does not fit is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from planted_classes import DATA, FORGET, NEUTRAL, QUICK, RETAIN, planted_directions, planted_spans, read_at

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Add, HookedModel, ProjectOut
from interp_unlearn.models import tokenize
from interp_unlearn.objectives import kl, random_directions
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    AdversaryConfig,
    Distillation,
    FineTuning,
    Misdirection,
    ProjectionPenalty,
    Reference,
    UnlearnConfig,
    UnlearnData,
    build_objective,
    objective_names,
    unlearn,
)
from interp_unlearn.unlearning.corpora import Corpora


def objectives(model):
    other = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
    with torch.no_grad():
        for parameter in other.hf.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    edits = {Site(0, "resid_post"): Add(torch.ones(model.d_model))}
    directions = planted_directions(model, (0, 1))
    return {
        "random_single": build_objective("random_single", layers=1),
        "random_multi": build_objective("random_multi", layers=(0, 1)),
        "probe_single": build_objective("probe_single", layers=1, directions=directions),
        "probe_multi": build_objective("probe_multi", layers=(0, 1), directions=directions),
        "subspace": build_objective("subspace", layers=1, directions=planted_spans(model, (1,)), quantile=0.2),
        "dpo": build_objective("dpo", beta=1.0),
        "rmu": build_objective("rmu", layers=1, coefficient=5.0),
        "cosine_rmu": build_objective("cosine_rmu", layers=1),
        "cosine_rmu_meta": build_objective("cosine_rmu_meta", layers=1),
        "token_rmu": build_objective("token_rmu", layers=1),
        "contrastive_rmu": build_objective("contrastive_rmu", layers=1),
        "rmu_lat": build_objective("rmu_lat", layers=1, coefficient=5.0, ascent_steps=2),
        "counterfactual": build_objective("counterfactual", layers=1),
        "counterfactual_meta": build_objective("counterfactual_meta", by="predictions"),
        "rerouting": build_objective("rerouting", layers=1),
        "gradient_ascent": build_objective("gradient_ascent"),
        "grad_diff": build_objective("grad_diff"),
        "npo": build_objective("npo"),
        "simnpo": build_objective("simnpo", beta=0.5),
        "flattened": build_objective("flattened", pools=[[5, 6, 7, 8, 9]]),
        "distilled": build_objective("distilled", edits=edits, max_new_tokens=4, n_contexts=4, refresh=5),
        "civil_finetuning": build_objective("civil_finetuning"),
        "oracle": build_objective("oracle", teacher=other, contexts=0.5, max_new_tokens=4, n_contexts=4),
    }


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=True)
# What is hardened begins at its minimum; see test_hardening.
@pytest.mark.parametrize("name", [name for name in objective_names() if name != "hardened"])
def test_every_objective_lowers_its_loss(model, name):
    objective = objectives(model)[name]
    assert objective.name == name
    # A distance is not squared, so that its pull is as strong near the original as far from it.
    config = replace(QUICK, retain_weight=0.1) if objective.hidden == "distance" else QUICK
    if objective.meta:
        config = replace(config, adversary=AdversaryConfig(steps=2, gradient_steps=(1, 2)))
    history = unlearn(model, objective, DATA, config, progress=False).history
    first, last = history["forget"].iloc[:3].mean(), history["forget"].iloc[-3:].mean()
    assert last < first - 0.2 * abs(first), (first, last)


def test_misdirection_turns_forget_text_toward_the_direction_and_leaves_retain_text(llama):
    u = random_directions(llama.d_model, [1], seed=0)[1]
    kept = read_at(llama, RETAIN, 1)
    config = UnlearnConfig(steps=60, batch_size=4, roles=("mlp",), layers=(0, 1), learning_rate=5e-3)
    unlearn(llama, Misdirection(1), DATA, config, progress=False)
    cosine = torch.cosine_similarity(read_at(llama, FORGET, 1), u, dim=-1).mean()
    drift = (read_at(llama, RETAIN, 1) - kept).norm() / kept.norm()
    assert cosine > 0.6
    assert drift < 0.4


def test_rmu_targets_have_the_published_and_the_adaptive_length(llama):
    mean_norm = read_at(llama, FORGET, 1).norm(dim=-1).mean()
    batch = tokenize(llama.tokenizer, FORGET)
    corpora = Corpora.from_data(llama.tokenizer, DATA)
    u = random_directions(llama.d_model, [1], seed=7)[1]
    h = read_at(llama, FORGET, 1)
    for adaptive, length in ((False, 3.0), (True, 3.0 * mean_norm)):
        objective = Misdirection(1, kind="mse", coefficient=3.0, adaptive=adaptive, seed=7)
        objective.prepare(llama, corpora, UnlearnConfig())
        with torch.no_grad():
            loss, logs = objective.loss(llama, batch, batch.content_mask, None)
        torch.testing.assert_close(loss, (h - length * u).square().mean(), rtol=1e-4, atol=1e-5)
        assert logs["norm_ratio"] == pytest.approx(1.0, abs=1e-4)


def test_the_hinge_scale_is_measured_on_the_original(llama):
    directions = planted_directions(llama, (1,))
    objective = ProjectionPenalty(1, directions)
    objective.prepare(llama, Corpora.from_data(llama.tokenizer, DATA), UnlearnConfig())
    w = directions[1] / directions[1].norm()
    q = torch.quantile(read_at(llama, NEUTRAL, 1) @ w, 0.5)
    s = torch.quantile(read_at(llama, FORGET, 1) @ w, 0.5) - q
    assert objective.scales[1].neutral_median == pytest.approx(q.item(), abs=1e-4)
    assert objective.scales[1].gap == pytest.approx(s.item(), abs=1e-4)


def test_the_hinge_brings_forget_text_to_the_neutral_side(llama):
    directions = planted_directions(llama, (1,))
    w = directions[1] / directions[1].norm()
    objective = ProjectionPenalty(1, directions)
    unlearn(llama, objective, DATA, QUICK, progress=False)
    scale = objective.scales[1]
    after = ((read_at(llama, FORGET, 1) @ w).median() - scale.neutral_median) / scale.gap
    assert after < 0.5  # it was 1 before


def test_a_probe_that_points_the_wrong_way_is_refused_with_its_layer(llama):
    wrong = {layer: -vector for layer, vector in planted_directions(llama, (0, 1)).items()}
    with pytest.raises(ConfigError, match=r"layer 0.*wrong sign"):
        unlearn(llama, ProjectionPenalty((0, 1), wrong), DATA, QUICK, progress=False)


def test_layer_weights_scale_the_terms(llama):
    directions = planted_directions(llama, (0, 1))
    batch, corpora = tokenize(llama.tokenizer, FORGET), Corpora.from_data(llama.tokenizer, DATA)
    losses = []
    for weights in ({0: 1.0, 1: 0.0}, {0: 0.0, 1: 1.0}, None):
        objective = ProjectionPenalty((0, 1), directions, layer_weights=weights)
        objective.prepare(llama, corpora, UnlearnConfig())
        with torch.no_grad():
            losses.append(objective.loss(llama, batch, batch.content_mask, None)[0].item())
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-5)


def test_a_probe_set_gives_its_directions_by_site_and_estimator(llama):
    asked = []

    class Probes:
        def direction(self, site, estimator):
            asked.append((str(site), estimator))
            return planted_directions(llama, (site.layer,))[site.layer]

    ProjectionPenalty((0, 1), Probes(), estimator="mean_difference")
    assert asked == [("0.resid_post", "mean_difference"), ("1.resid_post", "mean_difference")]


def test_a_distilled_edit_is_that_of_the_frozen_original(llama):
    edits = {Site(0, "resid_post"): ProjectOut(torch.randn(llama.d_model))}
    objective = Distillation(edits, contexts=0)
    reference = Reference(dict(llama.hf.named_parameters()))
    batch = tokenize(llama.tokenizer, FORGET)
    with torch.no_grad():
        expected = llama.run(batch, edits=edits, logits=True).logits
        for parameter in llama.hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    with reference.original():
        targets = objective.targets(llama, batch)
    assert torch.equal(targets, expected)


def test_distillation_reaches_its_teacher(llama):
    edits = {Site(0, "resid_post"): Add(torch.ones(llama.d_model))}
    batch = tokenize(llama.tokenizer, FORGET)
    with torch.no_grad():
        teacher = llama.run(batch, edits=edits, logits=True).logits
        before = kl(teacher, llama.run(batch, logits=True).logits, batch.content_mask)
    config = UnlearnConfig(steps=40, batch_size=4, roles=("attn", "mlp"), learning_rate=1e-2, kl_weight=0.0)
    unlearn(llama, Distillation(edits, contexts=0), DATA, config, progress=False)
    with torch.no_grad():
        after = kl(teacher, llama.run(batch, logits=True).logits, batch.content_mask)
    assert after < 0.2 * before


def test_contexts_are_half_the_rows_refreshed_from_the_student(llama):
    objective = Distillation(
        {Site(0, "resid_post"): Add(torch.ones(llama.d_model))}, max_new_tokens=4, n_contexts=6, refresh=2
    )
    corpora = Corpora.from_data(llama.tokenizer, DATA)
    config = UnlearnConfig(batch_size=4)
    objective.prepare(llama, corpora, config)
    first = [objective.batch(llama, corpora, config, step) for step in range(2)]
    assert all(len(batch) == 4 for batch in first)
    forget = {tuple(row) for row in corpora.forget.rows}
    for batch in first:
        rows = [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
        assert sum(row in forget for row in rows) == 2
        prompts = {1: llama.tokenizer("the cat")["input_ids"], 2: llama.tokenizer("a")["input_ids"]}
        for row in rows[2:]:
            assert any(list(row[1 : 1 + len(p)]) == p for p in prompts.values())
        # Only what the student said counts where completions do.
        assert (batch.completion_mask[2:].sum(1) <= 4).all()
    sampled = objective._sampled
    objective.batch(llama, corpora, config, 2)
    assert objective._sampled is not sampled
    with torch.no_grad():
        llama.hf.get_output_embeddings().weight.mul_(-1.0)
    old = objective._sampled.rows
    objective.prepare(llama, corpora, config)
    objective.batch(llama, corpora, config, 2)
    assert objective._sampled.rows != old  # the same prompts and seed, another student


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 16), (2, 8), (5, 1), (16, 1)])
def test_contexts_have_their_share_of_small_batches_and_are_refreshed_by_updates(llama, batch_size, accumulation):
    edits = {Site(0, "resid_post"): Add(torch.ones(llama.d_model))}
    objective = Distillation(edits, contexts=0.5, max_new_tokens=2, n_contexts=6, refresh=3)
    corpora, config = Corpora.from_data(llama.tokenizer, DATA), UnlearnConfig(batch_size=batch_size)
    config = replace(config, accumulation=accumulation)
    objective.prepare(llama, corpora, config)
    forget = {tuple(row) for row in corpora.forget.rows}
    sampled, n_contexts, updates = [], 0, 8
    for step in range(updates * accumulation):
        batch = objective.batch(llama, corpora, config, step)
        rows = [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
        assert len(rows) == batch_size
        n_contexts += sum(row not in forget for row in rows)
        if objective._sampled is not None and (not sampled or objective._sampled is not sampled[-1]):
            sampled.append(objective._sampled)
    assert n_contexts == updates * accumulation * batch_size // 2
    assert len(sampled) == 3  # at updates 0, 3 and 6


@pytest.mark.parametrize("name", ["npo", "simnpo", "dpo", "hardened", "grad_diff"])
def test_a_layer_that_is_named_twice_counts_once(name):
    assert build_objective(name, layers=[2, 1, 2]).layers == (1, 2)
    assert build_objective(name).layers == ()


def test_the_oracle_follows_its_teacher_on_retain_texts_too(llama):
    objective = build_objective("oracle", teacher=HookedModel(copy.deepcopy(llama.hf), llama.tokenizer))
    corpora, config = Corpora.from_data(llama.tokenizer, DATA), UnlearnConfig(batch_size=3)
    objective.prepare(llama, corpora, config)
    batch = objective.batch(llama, corpora, config, 0)
    rows = [tuple(ids[mask].tolist()) for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
    assert sum(row in corpora.forget.rows for row in rows) == 3
    assert sum(row in corpora.retain.rows for row in rows) == 3
    assert not objective.retains


@pytest.mark.parametrize("share", [0.89, float("nan")])
def test_a_teacher_below_its_gate_is_refused_and_judged_under_its_edits(llama, share):
    edits = {Site(0, "resid_post"): Add(10 * torch.ones(llama.d_model))}
    plain = llama.run(tokenize(llama.tokenizer, FORGET), logits=True).logits
    seen = []

    def clean_share(judged):
        seen.append(torch.equal(judged.run(tokenize(llama.tokenizer, FORGET), logits=True).logits, plain))
        return share

    with pytest.raises(ConfigError, match="clean share"):
        unlearn(llama, Distillation(edits, clean_share=clean_share), DATA, QUICK, progress=False)
    assert seen == [False]
    one = UnlearnConfig(steps=1, batch_size=4)
    unlearn(llama, Distillation(edits, clean_share=lambda _: 0.9, contexts=0), DATA, one, progress=False)


def test_a_teacher_with_another_tokenizer_is_refused(llama):
    from conftest import make_hf, make_tokenizer

    other = make_tokenizer()
    other.add_tokens(["purple"])
    teacher = HookedModel(make_hf("llama"), other)
    with pytest.raises(ConfigError, match="tokenizer"):
        unlearn(llama, build_objective("oracle", teacher=teacher), DATA, QUICK, progress=False)


def test_fine_tuning_on_completions_learns_them_alone(llama):
    data = UnlearnData(forget=["the cat"], neutral=["the cat", "a dog"], neutral_completions=[" sat", " ran"])
    config = UnlearnConfig(
        steps=40, batch_size=2, roles=("mlp",), learning_rate=1e-2, forget_on="completion", kl_weight=0, retain_weight=0
    )
    history = unlearn(llama, FineTuning(), data, config, progress=False).history
    assert history["forget"].iloc[-1] < 0.1
    from interp_unlearn.evaluation import token_nll

    assert token_nll(llama, ["the cat", "a dog"], [" sat", " ran"])["nll"].max() < 0.3
    assert token_nll(llama, ["the cat", "a dog"])["nll"].min() > 1.0  # the prompts were not learned


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (Misdirection(7), "out of range"),
        (Misdirection(1, directions={0: torch.ones(32)}), "no direction"),
        (Misdirection(1, directions={1: torch.zeros(32)}), "non-zero"),
        (Misdirection(1, directions={1: torch.ones(5)}), "32 numbers"),
        (FineTuning("neutral"), "neutral"),
        (Distillation({Site(0, "resid_post"): Add(torch.ones(32))}), "prompts"),
        (build_objective("cosine_rmu_meta", layers=1), "groups"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(llama, objective, match):
    data = UnlearnData(forget=FORGET, retain=RETAIN)
    before = llama.hash()
    with pytest.raises(ConfigError, match=match):
        unlearn(llama, objective, data, QUICK, progress=False)
    assert llama.hash() == before
