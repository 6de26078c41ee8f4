import pytest
from conftest import ALL_ARCHITECTURES, make_hf
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Olmo2Config, Olmo2ForCausalLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from interp_unlearn.errors import CheckpointError, ConfigError, SiteError
from interp_unlearn.models import parameters_by_role, resolve_architecture
from interp_unlearn.sites import Site

SMALL = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MATRICES = {
    "llama": {
        "attn.q": "model.layers.{}.self_attn.q_proj.weight",
        "attn.k": "model.layers.{}.self_attn.k_proj.weight",
        "attn.v": "model.layers.{}.self_attn.v_proj.weight",
        "attn.o": "model.layers.{}.self_attn.o_proj.weight",
        "mlp.gate": "model.layers.{}.mlp.gate_proj.weight",
        "mlp.up": "model.layers.{}.mlp.up_proj.weight",
        "mlp.down": "model.layers.{}.mlp.down_proj.weight",
    },
    "gpt2": {
        "attn.qkv": "transformer.h.{}.attn.c_attn.weight",
        "attn.o": "transformer.h.{}.attn.c_proj.weight",
        "mlp.up": "transformer.h.{}.mlp.c_fc.weight",
        "mlp.down": "transformer.h.{}.mlp.c_proj.weight",
    },
}
MATRICES |= {"qwen2": MATRICES["llama"], "gemma2": MATRICES["llama"]}


def test_parts_are_found(architecture: str) -> None:
    hf = make_hf(architecture)
    parts = resolve_architecture(hf)
    inner = hf.transformer if architecture == "gpt2" else hf.model
    assert parts.blocks is (inner.h if architecture == "gpt2" else inner.layers)
    assert parts.final_norm is (inner.ln_f if architecture == "gpt2" else inner.norm)
    assert parts.unembed is hf.lm_head
    assert (parts.n_layers, parts.d_model) == (3, 32)
    assert not parts.parallel
    assert parts.post_norms == (architecture == "gemma2")


def test_parallel_blocks_have_no_resid_mid() -> None:
    parts = resolve_architecture(GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)))
    assert parts.parallel
    with pytest.raises(SiteError, match="parallel"):
        parts.module_at(Site(0, "resid_mid"))
    sequential = GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, use_parallel_residual=False))
    assert not resolve_architecture(sequential).parallel


def test_post_norms_without_pre_norms_are_found() -> None:
    hf = Olmo2ForCausalLM(Olmo2Config(**SMALL))
    parts = resolve_architecture(hf)
    assert parts.post_norms and not parts.parallel
    assert parts.module_at(Site(1, "attn_out")) is hf.model.layers[1].post_attention_layernorm


def test_model_without_the_stated_stack_is_refused() -> None:
    hf = make_hf("llama")
    hf.config.num_hidden_layers = 5
    with pytest.raises(CheckpointError, match="5 blocks"):
        resolve_architecture(hf)


@pytest.mark.parametrize("architecture", ALL_ARCHITECTURES)
def test_output_projections_are_found(architecture: str) -> None:
    hf = make_hf(architecture)
    attention = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense"}.get(architecture, "self_attn.o_proj")
    mlp = {"gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h"}.get(architecture, "mlp.down_proj")
    parts = resolve_architecture(hf)
    assert parts.n_heads == 4
    for layer in range(3):
        block = parts.blocks[layer]
        assert parts.module_at(Site(layer, "z")) is block.get_submodule(attention)
        assert parts.module_at(Site(layer, "mlp_post")) is block.get_submodule(mlp)
        assert parts.path_of(parts.module_at(Site(layer, "z"))).endswith(f".{layer}.{attention}")


@pytest.mark.parametrize(
    ("component", "part", "lost"), [("z", "self_attn", "o_proj"), ("mlp_post", "mlp", "down_proj")]
)
def test_a_block_without_output_projection_is_refused_by_site(component: str, part: str, lost: str) -> None:
    hf = make_hf("llama")
    delattr(hf.model.layers[1].get_submodule(part), lost)
    with pytest.raises(SiteError, match=f"no output projection, so no {component}, found in Llama.* got .*_proj"):
        resolve_architecture(hf).module_at(Site(1, component))


def test_each_role_selects_exactly_its_matrix(architecture: str) -> None:
    hf = make_hf(architecture)
    for role, name in MATRICES[architecture].items():
        found = parameters_by_role(hf, [role], [0, 2])
        assert set(found) == {name.format(0), name.format(2)}
        assert all(found[key] is hf.get_parameter(key) for key in found)


def test_role_families_cover_all_matrices_of_the_blocks(architecture: str) -> None:
    hf = make_hf(architecture)
    found = parameters_by_role(hf, ["attn", "mlp"])
    matrices = {n for n, p in hf.named_parameters() if p.ndim == 2 and (".layers." in n or ".h." in n)}
    assert set(found) == matrices


def test_neox_names() -> None:
    found = parameters_by_role(GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)), ["attn.o", "mlp.down"], [1])
    assert set(found) == {"gpt_neox.layers.1.attention.dense.weight", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"}


@pytest.mark.parametrize("roles", [["attn.q"], ["mlp.down", "mlp.gate"], ["down"], []])
def test_role_without_match_is_refused_and_lists_what_exists(roles: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"attn\.o, attn\.qkv, mlp\.down, mlp\.up"):
        parameters_by_role(make_hf("gpt2"), roles)


@pytest.mark.parametrize("layers", [[3], [-1], [0, 7]])
def test_layers_out_of_range_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="0 to 2"):
        parameters_by_role(make_hf("llama"), ["mlp.down"], layers)


def test_encoder_decoder_is_refused() -> None:
    hf = T5(T5Config(vocab_size=20, d_model=16, d_ff=24, d_kv=8, num_layers=2, num_heads=2))
    with pytest.raises(CheckpointError, match="decoder-only"):
        resolve_architecture(hf)
