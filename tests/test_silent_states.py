"""What no parameter and no setting shows, and what changes numbers all the same: adapters that are on, dropout below a
model at rest, tokenizers, matrices without a role."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import COMMON, TEXTS, make_hf, make_tokenizer
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MptConfig,
    MptForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.directions import Directions, promoted_tokens
from interp_unlearn.errors import ArtifactError, BackendError, CheckpointError, ConfigError
from interp_unlearn.interventions import Add, HookedModel, Replace
from interp_unlearn.models import TokenBatch, load_model, parameters_by_role
from interp_unlearn.models.loading import load_tokenizer
from interp_unlearn.models.parameters import roles_of_parameters
from interp_unlearn.sites import Site

SITE = Site(1, "resid_post")


def adapted() -> Any:
    """A model with two of peft's adapters, which both do something."""
    peft = pytest.importorskip("peft")
    told = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    hf: Any = peft.get_peft_model(make_hf("llama"), told)
    hf.add_adapter("second", told)
    return hf.eval()


class TestAdapters:
    def test_which_one_is_on_makes_another_model(self, tmp_path: Path) -> None:
        hf = adapted()
        model = HookedModel(hf, make_tokenizer())
        hashes, vectors = [model.hash()], [collect(model, TEXTS, [SITE], out=tmp_path / "store", progress=False)[SITE]]
        hf.set_adapter("second")
        hashes.append(model.hash())
        with pytest.raises(ArtifactError, match="model_hash differ"):
            collect(model, TEXTS, [SITE], out=tmp_path / "store", progress=False)
        with pytest.raises(ArtifactError):
            ActivationStore.open(tmp_path / "store", model)
        vectors.append(collect(model, TEXTS, [SITE], progress=False)[SITE])
        with hf.disable_adapter():
            hashes.append(model.hash())
            vectors.append(collect(model, TEXTS, [SITE], progress=False)[SITE])
        assert model.hash() == hashes[1] and len(set(hashes)) == 3
        assert all(float((vectors[i] - vectors[j]).abs().max()) > 0.01 for i, j in ((0, 1), (1, 2), (0, 2)))

    def test_a_model_that_has_some_is_not_saved_without_them(self, tmp_path: Path) -> None:
        hf = adapted()
        with pytest.raises(CheckpointError, match="adapters are on the model"):
            HookedModel(hf, make_tokenizer()).save_pretrained(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        batch = TokenBatch.from_rows([[1, 4, 5, 7]])
        expected = HookedModel(hf, make_tokenizer()).run(batch, logits=True).logits
        HookedModel(hf.merge_and_unload(), make_tokenizer()).save_pretrained(tmp_path / "out")
        found = HookedModel.from_pretrained(tmp_path / "out").run(batch, logits=True).logits
        assert expected is not None and found is not None
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_one_that_lies_beside_weights_is_refused(self, tmp_path: Path) -> None:
        hf = adapted()
        hf.save_pretrained(tmp_path)
        hf.merge_and_unload().save_pretrained(tmp_path)
        make_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"adapter_config\.json beside the model's own weights"):
            load_model(tmp_path)

    def test_dropout_of_one_that_was_put_on_later_is_refused(self) -> None:
        peft = pytest.importorskip("peft")
        for share, refused in ((0.3, True), (0.0, False)):
            hf: Any = make_hf("llama").eval()
            hf.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=share))
            model, batch = HookedModel(hf, make_tokenizer()), TokenBatch.from_rows([[1, 4, 5, 7]])
            told = r"or a part of it, and its dropout is on.*call hf\.eval\(\) first"
            with torch.no_grad():
                if refused:
                    with pytest.raises(ConfigError, match=told):
                        model.run(batch, reads=[SITE])
                    hf.eval()
                assert torch.equal(model.run(batch, reads=[SITE])[SITE], model.run(batch, reads=[SITE])[SITE])

    def test_a_matrix_below_one_keeps_its_role(self) -> None:
        plain, wrapped = (parameters_by_role(hf, ["attn", "mlp"]) for hf in (make_hf("llama"), adapted()))
        assert len(plain) == len(wrapped) == 3 * 7 and not any("lora" in name for name in wrapped)
        assert sum("base_layer" in name for name in wrapped) == 3 * 2


class TestTokenizers:
    def test_what_the_file_says_is_loaded_whatever_the_models_type(self, tmp_path: Path) -> None:
        written = make_tokenizer()
        HookedModel(make_hf("qwen2"), written).save_pretrained(tmp_path)
        found = load_tokenizer(tmp_path)
        for text in TEXTS:
            assert found(text)["input_ids"] == written(text)["input_ids"]

    def test_another_one_makes_another_store(self, tmp_path: Path) -> None:
        model = HookedModel(make_hf("llama"), make_tokenizer())
        with_bos = collect(model, TEXTS, [SITE], out=tmp_path / "store", progress=False)
        again = collect(model, TEXTS, [SITE], out=tmp_path / "store", progress=False)
        assert torch.equal(with_bos[SITE], again[SITE])
        model.tokenizer.bos_token = None
        with pytest.raises(ArtifactError, match="token_ids_hash differ"):
            collect(model, TEXTS, [SITE], out=tmp_path / "store", progress=False)

    def test_a_length_of_nothing_is_refused(self, llama: HookedModel) -> None:
        with pytest.raises(ConfigError, match="max_length must be at least 1, got 0"):
            collect(llama, TEXTS, [SITE], max_length=0, progress=False)


class TestRoles:
    def test_experts_are_not_left_out_without_a_word(self) -> None:
        common: Any = {k: v for k, v in COMMON.items() if k != "intermediate_size"}
        config = Qwen2MoeConfig(
            **common,
            intermediate_size=16,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
        )
        hf: Any = Qwen2MoeForCausalLM(config)
        for roles in (["mlp"], ["mlp.down"], ["attn", "mlp"]):
            with pytest.raises(ConfigError, match=r"matrices belong to .* that no role names, first .*experts"):
                parameters_by_role(hf, roles)
        assert len(parameters_by_role(hf, ["attn"])) == 4 * hf.config.num_hidden_layers
        roles = roles_of_parameters(hf)
        assert {roles[name] for name in roles if "shared_expert." in name} == {"mlp.gate", "mlp.up", "mlp.down"}
        assert not any("experts." in name or name.endswith(".gate.weight") for name in roles)


class TestReadingOut:
    def logits_of(self, model: HookedModel, direction: torch.Tensor) -> torch.Tensor:
        """What the model says of a stream that points along a direction, less what it says of none."""
        batch, last = TokenBatch.from_rows([[1, 4, 5, 7]]), Site(model.n_layers - 1, "resid_post")
        found: list[torch.Tensor] = []
        for scale in (1e4, 0.0):
            value = (scale * direction).expand(1, 4, -1)
            with torch.no_grad():
                logits = model.run(batch, edits={last: Replace(value)}, logits=True).logits
            assert logits is not None
            found.append(logits[0, -1].float())
        return found[0] - found[1]

    def test_a_final_norm_of_any_name_is_taken(self) -> None:
        hf: Any = MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=COMMON["vocab_size"]))
        with torch.no_grad():
            hf.transformer.norm_f.weight.copy_(torch.linspace(0.1, 3, 32))
        model = HookedModel(hf.eval(), make_tokenizer())
        direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
        expected = self.logits_of(model, direction)
        table = promoted_tokens(model, Directions({SITE: direction}), k=3, n_null=2)
        rows = table.loc[table["side"] == "promoted"]
        assert rows["token_id"].tolist() == expected.argsort(descending=True)[:3].tolist()
        np.testing.assert_allclose(rows["value"], expected[rows["token_id"].tolist()], rtol=1e-2)

    @pytest.mark.parametrize("kind", ["cohere", "granite"])
    def test_scaled_logits_are_refused(self, kind: str) -> None:
        common: Any = COMMON
        hf: Any = (
            CohereForCausalLM(CohereConfig(**common, logit_scale=0.0625))
            if kind == "cohere"
            else GraniteForCausalLM(GraniteConfig(**common, logits_scaling=8.0))
        )
        model = HookedModel(hf.eval(), make_tokenizer())
        with pytest.raises(CheckpointError, match="final norm and head do not give its logits"):
            promoted_tokens(model, Directions({SITE: torch.ones(model.d_model)}), k=3)

    def test_a_head_with_an_adapter_is_refused(self) -> None:
        peft = pytest.importorskip("peft")
        hf: Any = peft.get_peft_model(make_hf("llama"), peft.LoraConfig(r=2, target_modules=["lm_head"])).eval()
        model = HookedModel(hf, make_tokenizer())
        with pytest.raises(CheckpointError, match="the head has an adapter"):
            promoted_tokens(model, Directions({SITE: torch.ones(model.d_model)}), k=3)


def test_after_a_whole_call_a_part_of_the_model_is_refused_as_before_it(llama: HookedModel) -> None:
    batch = TokenBatch.from_rows([[1, 4, 5, 7]])
    hf: Any = llama.hf
    with llama.edited({SITE: Add(torch.ones(llama.d_model))}), torch.no_grad():
        for _ in range(2):
            with pytest.raises(BackendError, match="a part of the model was called by itself"):
                hf.model(input_ids=batch.input_ids)
            hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask)


def test_weights_in_another_precision_are_others(llama: HookedModel) -> None:
    before = llama.hash()
    llama.hf.to(torch.bfloat16)
    assert llama.hash() != before
