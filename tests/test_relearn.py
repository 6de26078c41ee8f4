"""The relearning attack: it learns what it is given, measures where asked, and puts the weights back."""

import pytest

from interp_unlearn.attacks import RelearnConfig, relearn
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import token_nll

TEXTS = ["the cat sat on a mat", "a dog ran and then it sat", "who said yes"]


def test_checkpoints_are_called_and_the_attack_bites(model):
    before = model.hash()
    steps = []

    def measure(step, attacked):
        assert attacked is model
        steps.append(step)
        return {"nll": token_nll(attacked, TEXTS)["nll"].sum()}

    config = RelearnConfig(batch_size=3, learning_rate=5e-3)
    result = relearn(model, TEXTS, config=config, checkpoints=(0, 3, 12), callback=measure, progress=False)
    assert steps == [0, 3, 12]
    assert len(result.history) == 12
    nll = result.curve["nll"].tolist()
    assert nll[2] < nll[1] < nll[0]
    assert nll[2] < 0.7 * nll[0]
    assert model.hash() == before


def test_all_parameters_are_attacked(llama):
    config = RelearnConfig(batch_size=3)
    result = relearn(llama, TEXTS, config=config, checkpoints=(3,), progress=False)
    assert set(result.changed["tensor"]) == {name for name, _ in llama.hf.named_parameters()}
    assert (result.changed["moved"] > 0).all()


def test_the_attacked_weights_can_be_kept(llama):
    before = llama.hash()
    relearn(llama, TEXTS, checkpoints=(1,), restore=False, progress=False)
    assert llama.hash() != before


def test_completions_alone_are_learned_where_given(llama):
    def measure(step, attacked):
        return {
            "completion": token_nll(attacked, ["the cat"], [" sat"])["nll"].sum(),
            "prompt": token_nll(attacked, ["the cat"])["nll"].sum(),
        }

    result = relearn(
        llama,
        ["the cat"],
        [" sat"],
        RelearnConfig(batch_size=1, learning_rate=1e-2),
        checkpoints=(0, 20),
        callback=measure,
        progress=False,
    )
    assert result.curve["completion"].iloc[1] < 0.1
    assert result.curve["prompt"].iloc[1] > 1.0


def test_other_attackers_give_other_curves(llama):
    def attack(**fields):
        config = RelearnConfig(batch_size=3, **fields)
        return relearn(llama, TEXTS, config=config, checkpoints=(3,), progress=False).history["forget"].tolist()

    adamw = attack()
    assert attack() == adamw
    assert attack(optimizer="sgd") != adamw
    assert attack(learning_rate=1e-4) != adamw
    assert attack(seed=1) == pytest.approx(adamw, rel=0.2)  # three rows in another order: one batch either way


def test_an_attack_without_steps_or_texts_is_refused(llama):
    with pytest.raises(ConfigError, match="steps"):
        relearn(llama, TEXTS, checkpoints=(), progress=False)
    with pytest.raises(DataError):
        relearn(llama, [], progress=False)
