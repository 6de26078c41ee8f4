"""A direction read through head and MLPs, against what the model itself does, on seven architectures."""

import pandas as pd
import pytest
import torch
from conftest import ALL_ARCHITECTURES, TEXTS, make_hf, make_tokenizer
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from interp_unlearn import Replace
from interp_unlearn.directions import Directions, aligned_value_vectors, promoted_tokens, value_vectors
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.errors import CheckpointError, ConfigError, SiteError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.sites import Site

LAST = Site(2, "resid_post")
D, N_NEURONS = 32, 48


@pytest.fixture(params=ALL_ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> HookedModel:
    hf = make_hf(request.param)
    hf.config.final_logit_softcapping = None  # Gemma2's, which the lens leaves out
    return HookedModel(hf, make_tokenizer(), name=f"tiny-{request.param}")


def unit(seed: int) -> Tensor:
    drawn = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def replaced(model: HookedModel, site: Site, value: Tensor, read: Site) -> Tensor:
    """What one token reads where another site holds ``value``."""
    batch = model.tokenize(TEXTS[:1])
    with torch.no_grad():
        return model.run(batch, [read], {site: Replace(value)})[read][0, -1]


class TestPromotedTokens:
    def test_values_are_the_models_own_logits_of_a_stream_along_the_direction(self, any_model: HookedModel) -> None:
        direction = unit(0)
        far = replaced(any_model, LAST, 1e4 * direction, Site.logits)
        zero = replaced(any_model, LAST, torch.zeros(D), Site.logits)
        frame = promoted_tokens(any_model, Directions({LAST: direction}), k=len(far))
        expected = far - zero
        for side, order in (("promoted", expected.argsort(descending=True)), ("suppressed", expected.argsort())):
            part = frame[frame["side"] == side]
            assert part["token_id"].tolist() == order.tolist()
            assert part["value"].tolist() == pytest.approx(expected[order].tolist(), abs=1e-3)
            assert part["rank"].tolist() == list(range(1, len(far) + 1))
        assert expected.std() > 0.1
        assert frame["z"].std(ddof=0) == pytest.approx(1, abs=1e-3)

    def test_a_planted_row_of_the_head_comes_first_and_above_chance(self, llama: HookedModel) -> None:
        token = llama.tokenizer.convert_tokens_to_ids("hill")
        with torch.no_grad():
            llama.hf.model.norm.weight.fill_(1)
            llama.hf.lm_head.weight[token] = 8 * unit(3)
        frame = promoted_tokens(llama, Directions({LAST: unit(3), Site(0, "resid_post"): -unit(3)}), k=2)
        first = frame[frame["rank"] == 1].set_index(["site", "side"])
        assert first.loc[(str(LAST), "promoted"), "token"].strip() == "hill"
        assert first.loc[(str(LAST), "promoted"), "value"] == pytest.approx(8 * D**0.5, rel=1e-3)
        assert first.loc[("0.resid_post", "suppressed"), "token_id"] == token
        best = first.loc[(str(LAST), "promoted")]
        assert best["value"] > best["null_high"] > 0
        second = frame[(frame["rank"] == 2) & (frame["side"] == "promoted")]
        assert (second["value"] < second["null_high"]).all()

    def test_texts_are_left_out_where_they_are_not_wanted(self, llama: HookedModel) -> None:
        directions = Directions({LAST: unit(0)})
        with_text = promoted_tokens(llama, directions, 3)
        without = promoted_tokens(llama, directions, 3, with_text=False)
        pd.testing.assert_frame_equal(with_text.drop(columns="token"), without)

    def test_half_precision_weights_are_read_in_full(self, llama: HookedModel) -> None:
        directions = Directions({LAST: unit(0)})
        with torch.no_grad():
            for parameter in llama.hf.parameters():
                parameter.copy_(parameter.bfloat16().float())
        full = promoted_tokens(llama, directions, 5)
        llama.hf.to(torch.bfloat16)
        pd.testing.assert_frame_equal(promoted_tokens(llama, directions, 5), full)

    def test_refusals(self, llama: HookedModel) -> None:
        n = len(llama.tokenizer)
        with pytest.raises(ConfigError, match=f"expected 1 to {n} tokens"):
            promoted_tokens(llama, Directions({LAST: unit(0)}), k=n + 1)
        with pytest.raises(ConfigError, match="is 8 wide"):
            promoted_tokens(llama, Directions({LAST: torch.ones(8)}))
        with pytest.raises(SiteError, match="not in the residual stream"):
            promoted_tokens(llama, Directions({Site(0, "mlp_post"): torch.ones(N_NEURONS)}))
        llama.architecture.__dict__["unembed"] = None
        with pytest.raises(CheckpointError, match="has no head"):
            promoted_tokens(llama, Directions({LAST: unit(0)}))


class TestValueVectors:
    def test_they_are_what_single_neurons_write(self, any_model: HookedModel) -> None:
        """Brute force: one neuron at a time is switched on, and what its MLP adds to the stream is read."""
        layer = 1
        found = value_vectors(any_model, layer)
        assert found.shape == (N_NEURONS, D)
        nothing = replaced(any_model, Site(layer, "mlp_post"), torch.zeros(N_NEURONS), Site(layer, "mlp_out"))
        post_norm = any_model.architecture.post_norms
        for neuron in (0, 17, N_NEURONS - 1):
            on = torch.zeros(N_NEURONS)
            on[neuron] = 1e4 if post_norm else 1.0
            written = replaced(any_model, Site(layer, "mlp_post"), on, Site(layer, "mlp_out")) - nothing
            if post_norm:  # known up to a factor
                written = written / written.norm() * found[neuron].norm()
            torch.testing.assert_close(found[neuron], written, atol=2e-5, rtol=1e-3)

    def test_ranks_are_those_of_brute_force(self, any_model: HookedModel) -> None:
        sites = [Site(layer, "resid_post") for layer in range(3)]
        directions = Directions({site: unit(i) for i, site in enumerate(sites)})
        frame = aligned_value_vectors(any_model, directions, k=4)
        for layer, site in enumerate(sites):
            values = value_vectors(any_model, layer)
            cosines = values @ directions[site] / values.norm(dim=1)
            part = frame[(frame["site"] == str(site)) & (frame["side"] == "along")]
            assert part["mlp_layer"].unique().tolist() == [layer]
            assert part["neuron"].tolist() == cosines.argsort(descending=True)[:4].tolist()
            assert part["cosine"].tolist() == pytest.approx(sorted(cosines.tolist())[::-1][:4])
            against = frame[(frame["site"] == str(site)) & (frame["side"] == "against")]
            assert against["cosine"].tolist() == pytest.approx(sorted(cosines.tolist())[:4])
            assert against["norm"].iloc[0] == pytest.approx(float(values[against["neuron"].iloc[0]].norm()))

    def test_a_planted_neuron_stands_out_of_chance(self, any_model: HookedModel) -> None:
        module = any_model.architecture.module_at(Site(1, "mlp_post"))
        direction = unit(7)
        if any_model.architecture.post_norms:
            direction = value_vectors(any_model, 1)[5]  # the norm's weights bend whatever is planted
        else:
            column = module.weight[5] if not hasattr(module, "in_features") else module.weight[:, 5]
            with torch.no_grad():
                column.copy_(0.01 * direction)
        frame = aligned_value_vectors(any_model, Directions({Site(1, "resid_post"): direction}), k=2)
        first, second = frame[frame["side"] == "along"].to_dict("records")
        assert first["neuron"] == 5 and first["cosine"] == pytest.approx(1, abs=1e-4)
        assert first["null_high"] == pytest.approx(cosine_quantile(D, 0.95, N_NEURONS))
        assert second["cosine"] < first["null_high"] < first["cosine"]

    def test_one_direction_against_every_layer(self, llama: HookedModel) -> None:
        directions = Directions({Site.embed: unit(1)})
        frame = aligned_value_vectors(llama, directions, k=1, layers=[0, 2])
        assert frame["mlp_layer"].tolist() == [0, 0, 2, 2]
        assert frame["layer"].isna().all()
        with pytest.raises(ConfigError, match="no MLP to search"):
            aligned_value_vectors(llama, directions)
        with pytest.raises(SiteError, match="layer out of range"):
            aligned_value_vectors(llama, directions, layers=[3])
        with pytest.raises(ConfigError, match="expected 1 to 48 value vectors"):
            aligned_value_vectors(llama, directions, k=49, layers=[0])

    def test_a_mixture_of_experts_is_refused_by_name(self) -> None:
        config = MixtralConfig(
            vocab_size=24,
            hidden_size=D,
            intermediate_size=N_NEURONS,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=2,
        )
        model = HookedModel(MixtralForCausalLM(config).eval(), make_tokenizer())
        with pytest.raises(SiteError, match="a mixture of experts has no one layer of neurons"):
            aligned_value_vectors(model, Directions({Site(0, "resid_post"): unit(0)}))

    def test_an_adapter_is_refused(self, llama: HookedModel) -> None:
        from peft import LoraConfig, get_peft_model

        adapted = get_peft_model(llama.hf, LoraConfig(r=2, target_modules=["down_proj"]))
        with pytest.raises(ConfigError, match="carries an adapter; merge it first"):
            value_vectors(HookedModel(adapted, llama.tokenizer), 0)
