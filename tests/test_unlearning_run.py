"""The loop's machinery: accumulation, masters, topics, guard, trade-off, MUDMAN's fork, and going on."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_hf
from planted_classes import DATA, FORGET, RETAIN

from interp_unlearn.errors import ArtifactError, ConfigError, DataError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.objectives import cross_entropy, kl
from interp_unlearn.unlearning import (
    DPO,
    AdversaryConfig,
    Checkpoints,
    Counterfactual,
    FineTuning,
    ForkConfig,
    GradientAscent,
    GuardConfig,
    LoraConfig,
    MaskBySign,
    Misdirection,
    TradeOffConfig,
    UnlearnConfig,
    UnlearnData,
    build_objective,
    checkpoints,
    unlearn,
)
from interp_unlearn.unlearning.adversary import relearning_loss
from interp_unlearn.unlearning.corpora import Corpora
from interp_unlearn.unlearning.fork import Fork

SHORT = UnlearnConfig(steps=6, batch_size=2, layers=(0, 1))


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.hf.named_parameters()}


def fresh(model, dtype=None):
    return HookedModel(make_hf("llama") if dtype is None else make_hf("llama").to(dtype), model.tokenizer)


ACCUMULATED = [
    (Misdirection(1), None),
    (FineTuning("forget", layers=(1,)), None),
    (DPO(), None),
    (Counterfactual((0, 1)), None),
    (build_objective("npo"), None),
    (GradientAscent(retains=True, layers=(0,)), None),
    (GradientAscent(retains=True, layers=(0,)), ForkConfig(refork=2, learning_rate=0.1)),
    (Misdirection(1), ForkConfig(refork=2, learning_rate=0.1)),
]


@pytest.mark.parametrize(
    ("objective", "adversary"), ACCUMULATED, ids=[f"{o.name}{'' if a is None else ', forked'}" for o, a in ACCUMULATED]
)
def test_two_accumulated_batches_equal_a_double_one(llama, objective, adversary):
    """Rows of different lengths: a mean of means would weigh a token of the shorter batch more."""
    texts = ["the cat", "a small cat ran on a big red hill", "the cat sat on it then", "a cat"]
    data = replace(
        DATA,
        forget=texts,
        counterparts=[text.replace("cat", "dog") for text in texts],
        retain=["who", "the big red hill was small then", "no dog sat", "yes"],
    )
    config = UnlearnConfig(
        steps=3,
        layers=(0, 1),
        nll_weight=0.5,
        kl_weight=3.0,
        optimizer="sgd",
        clip=None,
        learning_rate=0.1,
        adversary=adversary,
    )
    ends = []
    for batch_size, accumulation in ((4, 1), (2, 2)):
        model = fresh(llama)
        history = unlearn(
            model, objective, data, replace(config, batch_size=batch_size, accumulation=accumulation), progress=False
        ).history
        ends.append((weights(model), history))
    start = weights(fresh(llama))
    for name, value in ends[0][0].items():
        scale = float((value - start[name]).abs().max())
        torch.testing.assert_close(ends[1][0][name], value, rtol=0, atol=2e-3 * scale + 1e-7)
    for column in ("forget", "retain", "retain_kl", "grad_norm"):
        assert ends[1][1][column].tolist() == pytest.approx(ends[0][1][column].tolist(), rel=1e-3, abs=1e-6)


def test_norms_and_the_cosine_between_forgetting_and_retaining_are_kept(llama):
    history = unlearn(llama, Misdirection(1), DATA, SHORT, progress=False).history
    norm = history["forget_grad_norm"] ** 2 + history["retain_grad_norm"] ** 2
    norm += 2 * history["gradient_cosine"] * history["forget_grad_norm"] * history["retain_grad_norm"]
    assert history["grad_norm"].tolist() == pytest.approx((norm**0.5).tolist(), rel=1e-4)
    assert (history["gradient_cosine"].iloc[1:] != 0).all()


def test_topics_take_turns():
    forget = FORGET + RETAIN
    data = UnlearnData(forget=forget, topics=["bio"] * 4 + ["cyber"] * 4)
    from conftest import make_tokenizer

    corpus = Corpora.from_data(make_tokenizer(), data).forget
    for step in range(6):
        rows = corpus.scheduled(3, step, 0, "forget")
        assert {corpus.topics[row] for row in rows} == {"bio" if step % 2 == 0 else "cyber"}
    seen = [row for step in range(8) for row in corpus.scheduled(4, step, 0, "forget")]
    assert sorted(seen) == sorted(list(range(8)) * 4)
    with pytest.raises(DataError, match="3 topics for 8"):
        UnlearnData(forget=forget, topics=["a"] * 3)


def test_half_precision_trains_through_masters(llama):
    """Updates below the spacing of bfloat16 add up; without masters each would be rounded away."""
    config = UnlearnConfig(steps=40, batch_size=4, roles=("mlp",), learning_rate=1e-4, retain_weight=0, kl_weight=0)
    half = fresh(llama, torch.bfloat16)
    before = weights(half)
    full, plain = HookedModel(copy.deepcopy(half.hf).float(), llama.tokenizer), fresh(llama, torch.bfloat16)
    unlearn(half, FineTuning("forget"), DATA, config, progress=False)
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.hf.parameters())
    unlearn(full, FineTuning("forget"), DATA, config, progress=False)

    matrices = parameters_by_role(plain.hf, ["mlp"])
    optimizer = torch.optim.AdamW(matrices.values(), lr=1e-4, weight_decay=0.0)
    batch = plain.tokenize(FORGET)
    for _ in range(40):
        optimizer.zero_grad()
        FineTuning("forget").loss(plain, batch, batch.content_mask, None)[0].backward()
        optimizer.step()

    def moved(model):
        return sum(float((value.float() - before[name].float()).abs().sum()) for name, value in weights(model).items())

    assert moved(half) == pytest.approx(moved(full), rel=0.1)
    assert moved(plain) < 0.7 * moved(full)


@pytest.mark.parametrize("kind", ["dual", "lookahead"])
def test_the_trade_off_moves_toward_what_it_is_told(llama, kind):
    config = replace(SHORT, steps=12, learning_rate=1e-2, retain_weight=0, kl_weight=1.0)
    ends = {}
    for budget in (1e-6, 1e6):
        trade_off = TradeOffConfig(kind=kind, budget=budget, rate=0.2)
        history = unlearn(
            fresh(llama), Misdirection(1), DATA, replace(config, trade_off=trade_off), progress=False
        ).history
        assert history["retain_factor"].iloc[0] == 1.0
        ends[budget] = history["retain_factor"].tolist()
    if kind == "dual":
        assert ends[1e-6][-1] > 4 and ends[1e6][-1] < 0.25
    else:
        assert ends[1e-6] == ends[1e6] and len(set(ends[1e6])) > 6  # it has no budget, and it moves
    with pytest.raises(ConfigError, match="trade_off"):
        unlearn(
            fresh(llama),
            Misdirection(1),
            DATA,
            replace(config, kl_weight=0, trade_off=TradeOffConfig()),
            progress=False,
        )
    with pytest.raises(ConfigError, match="bounds"):
        TradeOffConfig(least=2.0)


def test_the_look_ahead_moves_against_the_slope_of_the_validation_loss(llama):
    """After the second update of SGD, d L_val / d factor by finite differences over that update's factor."""
    config = UnlearnConfig(
        steps=2,
        batch_size=4,
        layers=(0, 1),
        optimizer="sgd",
        learning_rate=0.3,
        clip=None,
        retain_weight=0,
        kl_weight=5.0,
    )
    # The first update has no retain gradient, so another weight is another factor of the second update alone. All four
    # rows are in every batch, so those of the validation draw are the same.
    slopes = []
    for epsilon in (0.1, -0.1):
        model = fresh(llama)
        unlearn(model, Misdirection(1), DATA, replace(config, kl_weight=5.0 * (1 + epsilon)), progress=False)
        once = unlearn(model, Misdirection(1), DATA, replace(config, steps=1), restore=True, progress=False)
        logits = [m.run(m.tokenize(RETAIN), logits=True).logits for m in (fresh(llama), model)]
        divergence = kl(*logits, llama.tokenize(RETAIN).content_mask).item()
        slopes.append(once.history["forget"].iloc[0] + 5.0 * divergence)
    slope = slopes[0] - slopes[1]
    assert abs(slope) > 1e-4
    run = replace(config, steps=3, trade_off=TradeOffConfig(kind="lookahead", rate=0.5))
    factors = unlearn(fresh(llama), Misdirection(1), DATA, run, progress=False).history["retain_factor"].tolist()
    assert factors[1] == pytest.approx(1.0, abs=0.02)  # there was nothing but rounding to compare with
    assert (factors[2] - factors[1]) * slope < 0
    assert abs(factors[2] - factors[1]) > 0.02


def test_mudman_takes_the_gradient_at_its_own_weights(llama):
    config = UnlearnConfig(
        steps=3,
        batch_size=4,
        roles=None,
        optimizer="sgd",
        learning_rate=0.1,
        clip=None,
        retain_weight=0,
        kl_weight=0,
        adversary=ForkConfig(refork=2, learning_rate=0.5),
    )
    by_hand, attacker = make_hf("llama"), None
    batch = llama.tokenize(FORGET)

    def loss(hf):
        logits = hf(batch.input_ids, attention_mask=batch.attention_mask).logits
        return cross_entropy(logits, batch.input_ids, batch.content_mask)

    for step in range(3):
        if step % 2 == 0:
            attacker = copy.deepcopy(by_hand)
        parts = torch.autograd.grad(loss(attacker), list(attacker.parameters()))
        with torch.no_grad():
            for parameter, part in zip(attacker.parameters(), parts, strict=True):
                parameter.sub_(part, alpha=0.5)
        parts = torch.autograd.grad(-loss(attacker), list(attacker.parameters()))
        with torch.no_grad():
            for parameter, part in zip(by_hand.parameters(), parts, strict=True):
                parameter.sub_(part, alpha=0.1)
    unlearn(llama, GradientAscent(), DATA, config, progress=False)
    for (name, found), expected in zip(llama.hf.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_a_fork_of_a_half_precision_model_sums_small_steps_up(llama):
    batch, config = llama.tokenize(FORGET), UnlearnConfig(include_bos=True)
    ends = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = fresh(llama, torch.bfloat16)
        model = HookedModel(model.hf.to(dtype), llama.tokenizer)
        before, fork = weights(model), Fork(ForkConfig(refork=100, learning_rate=1e-4))
        trained = dict(model.hf.named_parameters())
        for step in range(30):
            fork.gradient(model, trained, batch, [lambda m=model: relearning_loss(m, batch, config)], step, config)
        assert all(value.equal(before[name]) for name, value in weights(model).items()), "the weights come back"
        assert {tensor.dtype for tensor in fork.state().values()} == {torch.float32}
        ends[dtype] = {name: tensor.float() - before[name].float() for name, tensor in fork.state().items()}
    for name, moved in ends[torch.float32].items():
        assert float(ends[torch.bfloat16][name].norm()) == pytest.approx(float(moved.norm()), rel=0.1, abs=1e-6), name


def test_an_attacker_of_activations_brings_them_back(llama):
    """Its inner steps need no logits, and weigh on the update."""
    ends = []
    for relearns in ("text", "activations"):
        model = fresh(llama)
        adversary = AdversaryConfig(steps=3, gradient_steps=(3,), batch_size=2, relearns=relearns)
        config = replace(SHORT, kl_weight=0, adversary=adversary, learning_rate=1e-2)
        result = unlearn(model, Misdirection(1), DATA, config, progress=False)
        assert result.history["attack_learning_rate"].min() > 0
        ends.append(model.hash())
    assert ends[0] != ends[1]
    with pytest.raises(ConfigError, match="names no layers"):
        unlearn(llama, GradientAscent(), DATA, config, progress=False)
    with pytest.raises(ConfigError, match="relearns"):
        AdversaryConfig(relearns="words")


RUNS = {
    "plain": (Misdirection(1), {}, ()),
    "contexts": ("distilled", {}, ()),
    "masked": (Misdirection(1), {}, (0.8,)),
    "meta": (Misdirection(1), {"adversary": AdversaryConfig(steps=2, gradient_steps=(2,), batch_size=2)}, ()),
    "fork": (GradientAscent(retains=True), {"adversary": ForkConfig(refork=4)}, (0.5,)),
    "traded": (Misdirection(1), {"trade_off": TradeOffConfig(budget=1e-4), "accumulation": 2}, ()),
    "rmsprop": (DPO(), {"optimizer": "rmsprop"}, ()),
    "half": (Misdirection(1), {}, ()),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_goes_on_bit_for_bit_where_it_was_interrupted(llama, tmp_path, name):
    given, changes, momenta = RUNS[name]
    dtype = torch.bfloat16 if name == "half" else None
    config = replace(SHORT, steps=7, learning_rate=1e-3, **changes)

    def objective():
        if given != "distilled":
            return copy.deepcopy(given)
        from interp_unlearn.interventions import Add
        from interp_unlearn.sites import Site

        edits = {Site(0, "resid_post"): Add(torch.ones(llama.d_model))}
        return build_objective("distilled", edits=edits, max_new_tokens=4, n_contexts=4, refresh=4)

    def run(model, **options):
        rules = [MaskBySign(momentum) for momentum in momenta]
        return unlearn(model, objective(), DATA, config, rules=rules, progress=False, **options)

    whole = fresh(llama, dtype)
    expected = run(whole, checkpoints=(0, 3, 5, 7), callback=lambda step, model: {"at": step * 2})

    kept = Checkpoints(tmp_path / "state", every=2)
    broken = fresh(llama, dtype)
    start = broken.hash()

    def fail(step, model):
        if step == 5:
            raise RuntimeError("killed")
        return {"at": step * 2}

    with pytest.raises(RuntimeError, match="killed"):
        run(broken, checkpoints=(0, 3, 5, 7), callback=fail, resume=kept)
    assert broken.hash() == start and (tmp_path / "state" / "state.json").exists()
    asked = []

    def follow(step, model):
        asked.append(step)
        return {"at": step * 2}

    found = run(broken, checkpoints=(0, 3, 5, 7), callback=follow, resume=kept)
    assert broken.hash() == whole.hash() != start
    assert found.history.equals(expected.history)
    assert found.curve.equals(expected.curve)
    assert asked == [5, 7]  # nothing finished is done again
    assert not (tmp_path / "state").exists()


def test_a_state_is_there_whenever_the_run_is_killed(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path / "state", every=2)

    def save(step):
        kept.save({"seed": 0}, {"w": torch.full((3,), float(step))}, {"step": step})

    def killed(*_, **__):
        raise KeyboardInterrupt

    for name in ("write_tensors", "write_json"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoints, name, killed)
            save(2)
        assert kept.load({"seed": 0}) is None, "nothing was finished: the run begins anew"
    save(2)
    for name in ("write_tensors", "write_json"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoints, name, killed)
            save(4)
        tensors, record = kept.load({"seed": 0})
        assert record["step"] == 2 and tensors["w"].tolist() == [2.0, 2.0, 2.0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "glob", killed)  # the new one is whole, the old one not gone
        save(4)
    tensors, record = kept.load({"seed": 0})
    assert record["step"] == 4 and tensors["w"].tolist() == [4.0, 4.0, 4.0]
    save(6)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["state-6.safetensors", "state.json"]


def test_the_state_of_another_run_is_refused(llama, tmp_path):
    kept = Checkpoints(tmp_path / "state", every=2)

    def fail(step, model):
        raise RuntimeError

    for config, data in ((replace(SHORT, seed=1), DATA), (SHORT, replace(DATA, forget=FORGET[::-1]))):
        with pytest.raises(RuntimeError):
            unlearn(llama, Misdirection(1), DATA, SHORT, checkpoints=(3,), callback=fail, resume=kept, progress=False)
        with pytest.raises(ArtifactError, match="another run"):
            unlearn(llama, Misdirection(1), data, config, resume=kept, progress=False)
    with pytest.raises(ArtifactError, match="objective differ"):
        unlearn(llama, Misdirection(1, seed=3), DATA, SHORT, resume=kept, progress=False)
    kept.remove()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds no state\.json"):
        unlearn(llama, Misdirection(1), DATA, SHORT, resume=kept, progress=False)
    with pytest.raises(ConfigError, match="every"):
        Checkpoints(tmp_path, every=0)


def test_settings_are_read_back_from_json(tmp_path):
    from dataclasses import asdict

    from interp_unlearn.artifacts import read_json, write_json

    config = UnlearnConfig(
        adversary=ForkConfig(), trade_off=TradeOffConfig(), guard=GuardConfig(), lora=LoraConfig(rank=3), accumulation=2
    )
    write_json(tmp_path / "config.json", asdict(config))
    assert UnlearnConfig(**read_json(tmp_path / "config.json")) == config
    write_json(tmp_path / "config.json", asdict(replace(config, adversary=AdversaryConfig(steps=9))))
    assert UnlearnConfig(**read_json(tmp_path / "config.json")).adversary == AdversaryConfig(steps=9)
