"""What a run says of itself at its end, and that another one may begin: guard, changes, rules, objectives."""

from dataclasses import replace

import pytest
import torch
from planted_classes import DATA, planted_directions
from test_unlearning_run import SHORT, fresh, weights

from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import (
    Checkpoints,
    ForkConfig,
    GradientAscent,
    GuardConfig,
    LoraConfig,
    MaskBySign,
    Misdirection,
    build_objective,
    unlearn,
)
from interp_unlearn.unlearning.reference import change_table


def test_the_guard_stops_the_run_and_says_so(llama, caplog):
    config = replace(
        SHORT,
        steps=40,
        learning_rate=3e-2,
        retain_weight=0,
        kl_weight=0,
        guard=GuardConfig(max_kl=0.01, every=2, rows=3),
    )
    result = unlearn(llama, Misdirection(1), DATA, config, progress=False)
    assert result.stopped is not None and len(result.history) < 40
    assert f"stopped after {len(result.history)} steps: KL on 3 retain rows" in result.stopped
    assert result.stopped in caplog.text
    held = unlearn(fresh(llama), Misdirection(1), DATA, replace(config, learning_rate=1e-6), progress=False)
    assert held.stopped is None and len(held.history) == 40
    # Between two checks, and before the first one, the end is looked at too.
    for steps, every in ((3, 4), (1, 10)):
        guard = GuardConfig(max_kl=1e-6, every=every, rows=3)
        late = replace(config, steps=steps, learning_rate=0.1, guard=guard)
        result = unlearn(fresh(llama), Misdirection(1), DATA, late, progress=False)
        assert len(result.history) == steps and f"ended after {steps} steps: KL on 3" in result.stopped


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=True)
def test_what_adapters_changed_is_told_of_the_matrices(model):
    before = weights(model)
    config = replace(SHORT, steps=2, roles=("mlp.down",), lora=LoraConfig(rank=2), learning_rate=1e-2)
    changed = unlearn(model, Misdirection(1), DATA, config, progress=False).changed.set_index("tensor")
    assert set(changed.index) == set(parameters_by_role(model.hf, ["mlp.down"], [0, 1]))
    for name, value in weights(model).items():
        delta = (value - before[name]).norm()
        assert (delta > 0) == (name in changed.index)
        if name in changed.index:
            assert changed.loc[name, "change"] == pytest.approx(delta.item(), rel=1e-3)
            assert changed.loc[name, "relative_change"] == pytest.approx((delta / before[name].norm()).item(), rel=1e-3)


def test_what_was_zero_has_no_relative_change():
    table = change_table([("b", torch.zeros(2), torch.ones(2)), ("still", torch.zeros(2), torch.zeros(2))])
    assert table["relative_change"].tolist() == [float("inf"), 0.0]
    assert table["change"].tolist() == pytest.approx([2**0.5, 0.0])


def test_the_schedule_weighs_what_a_fork_finds(llama):
    class Halved(GradientAscent):
        def schedule(self, progress):
            return 0.5, 1.0

    config = replace(SHORT, steps=1, optimizer="sgd", clip=None, learning_rate=0.1, adversary=ForkConfig())
    start, moved = weights(fresh(llama)), []
    for kind in (GradientAscent, Halved):
        model = fresh(llama)
        unlearn(model, kind(layers=(0,)), DATA, config, progress=False)
        moved.append({name: value - start[name] for name, value in weights(model).items()})
    assert max(float(change.abs().max()) for change in moved[0].values()) > 1e-4
    for name, change in moved[0].items():
        torch.testing.assert_close(moved[1][name], change / 2, rtol=1e-3, atol=1e-6)


def test_a_rule_begins_every_run_alike(llama):
    rule, ends = MaskBySign(), []
    for _ in range(2):
        model = fresh(llama)
        unlearn(model, GradientAscent(retains=True, layers=(0,)), DATA, SHORT, rules=[rule], progress=False)
        ends.append(model.hash())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["probe_multi", "subspace"])
def test_the_same_objective_may_go_on(llama, tmp_path, name):
    """As after Ctrl-C in a notebook: what the objective measured for itself makes it no other."""
    objective = build_objective(name, layers=(0, 1), directions=planted_directions(llama, (0, 1)))
    kept = Checkpoints(tmp_path / "state", every=2)

    def fail(step, model):
        raise KeyboardInterrupt

    options = {"checkpoints": (3,), "resume": kept, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        unlearn(fresh(llama), objective, DATA, SHORT, callback=fail, **options)
    assert (tmp_path / "state").exists()
    found = unlearn(fresh(llama), objective, DATA, SHORT, callback=lambda step, model: {}, **options)
    assert len(found.history) == SHORT.steps and objective.scales
