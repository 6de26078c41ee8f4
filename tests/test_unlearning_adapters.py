"""Low-rank adapters: from the original, merged at the end, off whatever happens, and recorded as they were merged."""

from dataclasses import replace

import pytest
import torch
from planted_classes import DATA
from test_unlearning_run import SHORT, fresh, weights

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.unlearning import FineTuning, LoraConfig, Misdirection, UnlearnConfig, unlearn


def test_adapters_start_at_the_original_and_are_merged(llama):
    pytest.importorskip("peft")
    start, names = weights(llama), [name for name, _ in llama.hf.named_modules()]
    config = replace(SHORT, lora=LoraConfig(rank=2), learning_rate=1e-2, roles=("mlp.down", "attn.q"))
    result = unlearn(llama, Misdirection(1), DATA, config, progress=False)
    assert [name for name, _ in llama.hf.named_modules()] == names
    assert result.history["retain_kl"].iloc[0] == pytest.approx(0, abs=1e-7)
    targeted = set(parameters_by_role(llama.hf, ["mlp.down", "attn.q"], [0, 1]))
    for name, value in weights(llama).items():
        delta = value - start[name]
        assert bool((delta != 0).any()) == (name in targeted)
        if name in targeted:
            assert torch.linalg.matrix_rank(delta.double(), rtol=1e-3) == 2
    assert result.history["forget"].iloc[-1] < result.history["forget"].iloc[0]


def test_in_half_precision_the_record_is_of_what_merging_leaves(llama, caplog):
    pytest.importorskip("peft")
    config = UnlearnConfig(steps=10, batch_size=4, roles=("mlp",), retain_weight=0, kl_weight=0)
    for dtype, rate, warned in (
        (torch.bfloat16, 1e-5, True),
        (torch.float32, 1e-5, False),
        (torch.bfloat16, 0.1, False),
    ):
        caplog.clear()
        model = fresh(llama, dtype)
        before = weights(model)
        told = replace(config, lora=LoraConfig(rank=2), learning_rate=rate)
        changed = unlearn(model, FineTuning("forget", retains=False), DATA, told, progress=False).changed
        after = weights(model)
        for row in changed.to_dict("records"):
            delta = after[row["tensor"]].double() - before[row["tensor"]].double()
            assert row["moved"] == float((delta != 0).double().mean())
            assert row["change"] == pytest.approx(float(delta.norm()))
        assert ("is left once it is added to the weights" in caplog.text) == warned, (dtype, rate)


def test_adapters_leave_nothing_behind_when_training_fails_or_is_restored(llama):
    pytest.importorskip("peft")
    before, names = llama.hash(), [name for name, _ in llama.hf.named_modules()]
    flags = [parameter.requires_grad for parameter in llama.hf.parameters()]
    config = replace(SHORT, lora=LoraConfig(rank=2))

    def stop(step, model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unlearn(llama, Misdirection(1), DATA, config, checkpoints=(2,), callback=stop, progress=False)
    unlearn(llama, Misdirection(1), DATA, config, restore=True, progress=False)
    assert llama.hash() == before
    assert [name for name, _ in llama.hf.named_modules()] == names
    assert [parameter.requires_grad for parameter in llama.hf.parameters()] == flags
    with pytest.raises(ConfigError, match=r"lora.*roles"):
        UnlearnConfig(lora=LoraConfig(), roles=None)
    other = HookedModel(llama.hf, llama.tokenizer, backend="nnsight")
    with pytest.raises(BackendError, match="lora needs the backend torch"):
        unlearn(other, Misdirection(1), DATA, config, progress=False)
