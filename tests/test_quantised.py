"""Quantised models: bitsandbytes is read and edited like any other, everything else is refused by name."""

from functools import cache

import pytest
import torch
from backend_matrix import BACKENDS, VISIBLE, distance
from conftest import TEXTS, make_hf, make_tokenizer
from explicit_forward import every_site, explicit_forward
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.models import parameters_by_role, weights_hash
from interp_unlearn.models.quantisation import PACKING
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, build_objective, unlearn

pytest.importorskip("bitsandbytes", reason="bitsandbytes has no wheel for this machine")
pytestmark = pytest.mark.filterwarnings("ignore:.*MatMul8bitLt")

VECTOR = torch.linspace(-1, 2, 32)
EDITS = {Site(0, "mlp_post"): Scale(2.0), Site(1, "z"): Scale(-1.0, heads=[0]), Site(1, "resid_mid"): Add(VECTOR)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    make_hf("llama").save_pretrained(folder)
    return str(folder)


@cache
def quantised(checkpoint: str, bits: int) -> PreTrainedModel:
    config = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True)
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, quantization_config=config, attn_implementation="eager"
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_and_edits_are_those_of_the_quantised_model(checkpoint: str, bits: int, backend: str) -> None:
    hf = quantised(checkpoint, bits)
    model = HookedModel(hf, make_tokenizer(), backend)
    batch, sites = model.tokenize(TEXTS, padding_side="left"), every_site("llama")
    plain = hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits
    original = make_hf("llama")(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
    ).logits
    assert distance(original, plain, batch.mask) > 1e-2, "quantising must show, or the test says nothing"
    content = batch.content_mask[..., None]
    head = torch.tensor([True, False, False, False])[:, None]
    changes = {
        Site(0, "mlp_post"): lambda x: torch.where(content, 2 * x, x),
        Site(1, "z"): lambda x: torch.where(content[..., None] & head, -x, x),
        Site(1, "resid_mid"): lambda x: torch.where(content, x + VECTOR, x),
    }
    for edits, by_hand in (({}, {}), (EDITS, changes)):
        expected, found = explicit_forward(hf, batch, by_hand), model.run(batch, sites, edits)
        for site in sites:
            assert distance(expected[site], found[site], batch.mask) <= 1e-5, site
    assert distance(plain, found[Site.logits], batch.content_mask) > VISIBLE


@torch.no_grad()
def test_the_codes_stay_whatever_the_processor(checkpoint: str) -> None:
    hf = quantised(checkpoint, 4)
    linears = [module for module in hf.modules() if hasattr(module, PACKING)]
    assert linears, "bitsandbytes no longer says whether it repacks"
    for module in linears:
        setattr(module, PACKING, True)  # as on a CPU that multiplies bfloat16 itself
    model, before = HookedModel(hf, make_tokenizer()), weights_hash(hf)
    batch = model.tokenize(TEXTS)
    expected = model.run(batch, [Site.logits])[Site.logits]
    assert weights_hash(hf) == before
    assert torch.equal(HookedModel(hf, make_tokenizer()).run(batch, [Site.logits])[Site.logits], expected)
    linears[0].weight.quant_state.packing_format_for_cpu = True
    try:
        with pytest.raises(CheckpointError, match=r"repacked model\.layers\.0.* load the model again"):
            HookedModel(hf, make_tokenizer())
    finally:
        linears[0].weight.quant_state.packing_format_for_cpu = False


def test_the_hash_covers_codes_and_scales(checkpoint: str) -> None:
    four, eight = (quantised(checkpoint, bits) for bits in (4, 8))
    assert len({weights_hash(four), weights_hash(eight), weights_hash(make_hf("llama"))}) == 3
    before = weights_hash(four)
    four.model.layers[0].mlp.down_proj.weight.quant_state.absmax[0] *= 2
    assert weights_hash(four) != before
    four.model.layers[0].mlp.down_proj.weight.quant_state.absmax[0] /= 2
    assert weights_hash(four) == before


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("roles", [("mlp.down",), None])
def test_training_codes_is_refused(checkpoint: str, bits: int, roles: tuple[str, ...] | None) -> None:
    model = HookedModel(quantised(checkpoint, bits), make_tokenizer())
    with pytest.raises(ConfigError, match=r"is quantised .* load the model unquantised"):
        parameters_by_role(model.hf, ["attn.q"])
    objective = build_objective("random_single", layers=[1], seed=0)
    data = UnlearnData(forget=TEXTS, retain=TEXTS)
    with pytest.raises(ConfigError, match="is quantised"):
        unlearn(model, objective, data, UnlearnConfig(steps=1, roles=roles), progress=False)


def test_other_methods_are_refused_by_name() -> None:
    hf = make_hf("llama")
    hf.is_quantized, hf.config.quantization_config = True, {"quant_method": "gptq"}
    with pytest.raises(CheckpointError, match=r"is quantised with gptq, which is not supported.*bitsandbytes"):
        HookedModel(hf, make_tokenizer())


@pytest.mark.filterwarnings("ignore")
def test_layers_quantised_by_pytorch_are_refused() -> None:
    torch.manual_seed(0)
    hf = LlamaForCausalLM(LlamaConfig(vocab_size=26, hidden_size=32, intermediate_size=48, num_hidden_layers=1))
    with torch.no_grad():
        dynamic = torch.ao.quantization.quantize_dynamic(hf, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(CheckpointError, match=r"quantised with torch\.ao"):
        HookedModel(dynamic, make_tokenizer())
