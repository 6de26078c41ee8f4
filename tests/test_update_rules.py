"""What happens between gradient and optimiser, against the same written out by hand."""

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.unlearning import (
    CollapseComponents,
    FineTuning,
    GradientAscent,
    MaskBySign,
    ProjectConflicts,
    UnlearnConfig,
    unlearn,
)
from interp_unlearn.unlearning.gradients import added, cosine_of, inner_product, norm_of, with_zeros

CONFIG = UnlearnConfig(steps=1, batch_size=4, layers=(0, 1), optimizer="sgd", learning_rate=1.0, clip=None)


def named(*rows):
    return {name: torch.tensor(row) for name, row in zip("ab", rows, strict=False)}


def test_arithmetic_of_gradients():
    a, b = named([1.0, 2.0], [2.0]), named([3.0, 0.0])
    assert inner_product(a, b) == 3.0
    assert norm_of(a.values()) == pytest.approx(3.0) and norm_of([]) == 0.0
    assert cosine_of(a, b) == pytest.approx(1 / 3) and cosine_of(a, {}) == 0.0
    total = added(a, b)
    assert [t.tolist() for t in total.values()] == [[4.0, 2.0], [2.0]]
    assert a["a"].tolist() == [1.0, 2.0]
    assert with_zeros(b, a)["b"].tolist() == [0.0]


def test_a_conflict_is_projected_out_and_agreement_left():
    retain = named([1.0, 0.0], [1.0])
    conflicting = ProjectConflicts().apply(named([-2.0, 5.0], [0.0]), retain)
    assert inner_product(conflicting, retain) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(conflicting["a"], torch.tensor([-1.0, 5.0]))
    agreeing = named([2.0, 5.0], [0.0])
    assert ProjectConflicts().apply(dict(agreeing), retain)["a"].tolist() == [2.0, 5.0]


def test_masking_follows_the_running_mean_and_keeps_the_first_norm():
    rule = MaskBySign(momentum=0.5)
    first = rule.apply(named([3.0, -4.0, 1.0]), named([1.0, -1.0, -1.0]))
    torch.testing.assert_close(first["a"], torch.tensor([3.0, -4.0, 0.0]))  # norm 5 from here on
    second = rule.apply(named([1.0, 1.0, 1.0]), named([-1.0, 4.0, -1.0]))
    # Means: 0.25 - 0.5 = -0.25; -0.25 + 2 = 1.75; -0.25 - 0.5 = -0.75.
    torch.testing.assert_close(second["a"], torch.tensor([0.0, 5.0, 0.0]))
    resumed = MaskBySign(momentum=0.5)
    resumed.load_state(rule.state())
    again = [r.apply(named([1.0, -1.0, 2.0]), named([1.0, 1.0, 1.0]))["a"] for r in (rule, resumed)]
    assert torch.equal(*again)
    with pytest.raises(ConfigError, match="momentum"):
        MaskBySign(1.0)


@pytest.mark.parametrize("rule", [ProjectConflicts(), MaskBySign()])
def test_rules_that_compare_need_retain_terms(llama, rule):
    config = UnlearnConfig(steps=1, batch_size=2, retain_weight=0, kl_weight=0)
    with pytest.raises(ConfigError, match=f"{rule.name}.*retain"):
        unlearn(llama, GradientAscent(retains=True), DATA, config, rules=[rule], progress=False)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=True)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_components_of_inputs_and_slopes_are_collapsed(model, architecture, accumulation):
    """The update has nothing along the top right singular vectors of the inputs, nor along those of the slopes."""
    other = HookedModel(make_hf(architecture), model.tokenizer)
    name, matrix = next(
        (n, p) for n, p in other.hf.named_parameters() if "1.mlp" in n and ("down" in n or "c_proj" in n)
    )
    module = other.hf.get_submodule(name.removesuffix(".weight"))
    seen = {}

    def keep(_, args, output):
        seen["x"] = args[0].detach()
        output.register_hook(lambda slope: seen.update(g=slope.detach()))

    module.register_forward_hook(keep)
    batch = other.tokenize(list(DATA.forget))
    objective = FineTuning("forget", retains=False)
    loss, _ = objective.loss(other, batch, batch.content_mask, None)
    (gradient,) = torch.autograd.grad(loss, [matrix])
    x, g = (seen[name].flatten(0, 1) for name in "xg")
    reached = g.abs().amax(1) > 0
    u, v = (torch.linalg.svd(rows[reached])[2][:2].T for rows in (g, x))
    rows = gradient if architecture == "llama" else gradient.T
    expected = rows - u @ (u.T @ rows)
    expected = expected - (expected @ v) @ v.T
    expected = expected if architecture == "llama" else expected.T

    config = UnlearnConfig(
        **{**vars(CONFIG), "layers": (1,), "batch_size": 4 // accumulation, "accumulation": accumulation}
    )
    before = {n: p.detach().clone() for n, p in model.hf.named_parameters()}
    unlearn(model, objective, DATA, config, rules=[CollapseComponents(2)], progress=False)
    moved = before[name] - dict(model.hf.named_parameters())[name]
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-6)
    assert (gradient - expected).norm() > 0.1 * gradient.norm()


def test_collapsing_takes_matrices_of_linear_layers_only(llama):
    config = UnlearnConfig(steps=1, batch_size=2, roles=None, retain_weight=0, kl_weight=0)
    with pytest.raises(ConfigError, match=r"embed_tokens.*is none"):
        unlearn(llama, FineTuning("forget"), DATA, config, rules=[CollapseComponents()], progress=False)
    with pytest.raises(ConfigError, match="rank"):
        CollapseComponents(0)
