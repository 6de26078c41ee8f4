"""LoRA adapters of peft, on and off: reads, edits and generation are those of the adapted model."""

import pytest
import torch
from backend_matrix import VISIBLE, distance
from conftest import TEXTS, make_hf
from explicit_forward import Change, every_site, explicit_forward
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp_unlearn import Add, HookedModel, Scale, Site
from interp_unlearn.errors import BackendError
from interp_unlearn.interventions import Edit
from interp_unlearn.models import TokenBatch

TARGETS = {
    "llama": ["q_proj", "v_proj", "o_proj", "down_proj"],  # those whose input is z and mlp_post among them
    "gpt2": ["c_attn", "c_proj"],
    "gpt_neox": ["query_key_value", "dense", "dense_4h_to_h"],
}
VECTOR = torch.linspace(-1, 2, 32)

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft asks by the old name


def base_of(architecture: str) -> PreTrainedModel:
    hf = make_hf(architecture)
    hf.set_attn_implementation("eager")
    return hf


def config(architecture: str, task: str | None = None) -> LoraConfig:
    """Without peft's zeros at the start, which would make every adapter do nothing."""
    return LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS[architecture], init_lora_weights=False, task_type=task)


def adapted(architecture: str, task: str | None = None) -> PeftModel:
    torch.manual_seed(1)
    return get_peft_model(base_of(architecture), config(architecture, task)).eval()


def edits() -> dict[Site, Edit]:
    return {
        Site(0, "mlp_post"): Scale(2.0),
        Site(1, "z"): Scale(-1.0, heads=[0, 3], tokens="last"),
        Site(1, "resid_post"): Add(VECTOR),
    }


def by_hand(batch: TokenBatch) -> dict[Site, Change]:
    content = batch.content_mask[..., None]
    last = content & (batch.position_ids == batch.lengths[:, None] - 1)[..., None]
    head = torch.tensor([True, False, False, True])[:, None]
    return {
        Site(0, "mlp_post"): lambda x: torch.where(content, 2 * x, x),
        Site(1, "z"): lambda x: torch.where(last[..., None] & head, -x, x),
        Site(1, "resid_post"): lambda x: torch.where(content, x + VECTOR, x),
    }


def plain(model: PreTrainedModel | PeftModel, batch: TokenBatch, positional: bool = False) -> Tensor:
    rest = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
    return (model(batch.input_ids, **rest) if positional else model(input_ids=batch.input_ids, **rest)).logits


def check(model: HookedModel, peft: PeftModel, batch: TokenBatch, architecture: str) -> Tensor:
    """Reads and edits against the plain forward and the pass by hand, in the state the adapters are in."""
    sites = every_site(architecture)
    trace = model.run(batch, sites)
    assert torch.equal(trace[Site.logits], plain(peft, batch))
    inner = peft.get_base_model()
    for found, changes in ((trace, {}), (model.run(batch, sites, edits()), by_hand(batch))):
        expected = explicit_forward(inner, batch, changes)
        for site in sites:
            assert distance(expected[site], found[site], batch.mask) <= 1e-5, site
    assert distance(trace.logits, found.logits, batch.content_mask) > VISIBLE
    with model.edited(edits()):
        for called in (model.hf, peft):
            for positional in (False, True):
                assert distance(found.logits, plain(called, batch, positional), batch.mask) <= 1e-5
    assert torch.equal(plain(peft, batch), trace.logits)
    return trace.logits


@torch.no_grad()
@pytest.mark.parametrize("given", ["wrapper", "model inside"])
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("backend", ["torch", "nnsight"])
@pytest.mark.parametrize("architecture", TARGETS)
def test_adapters_on_and_off(
    architecture: str, backend: str, task: str | None, given: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    peft = adapted(architecture, task)
    model = HookedModel(peft if given == "wrapper" else peft.get_base_model(), tokenizer, backend)
    batch = model.tokenize(TEXTS, padding_side="left")
    on = check(model, peft, batch, architecture)
    with peft.disable_adapter():
        off = check(model, peft, batch, architecture)
    assert torch.equal(off, plain(base_of(architecture), batch))
    assert distance(off, on, batch.content_mask) > VISIBLE
    assert torch.equal(check(model, peft, batch, architecture), on)


@torch.no_grad()
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("given", ["wrapper", "model inside"])
def test_generation_under_edits(given: str, task: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
    peft = adapted("llama", task)
    inner = peft.get_base_model()
    inner.generation_config.top_k = 7
    model = HookedModel(peft if given == "wrapper" else inner, tokenizer)
    batch = model.tokenize(TEXTS)
    site = Site(1, "resid_post")
    without = model.generate(batch, 4)
    with model.edited({site: Add(VECTOR), Site.logits: Add(torch.linspace(0, 3, 26))}):
        found = model.generate(batch, 4)
    assert not torch.equal(found, without)
    for row in range(len(batch)):
        ids = batch.input_ids[row][batch.mask[row]].tolist()
        for token in found[row].tolist():
            whole = TokenBatch.from_rows([ids], bos_token_id=1)
            later = whole.content_mask[..., None]
            changes = {
                site: lambda x, later=later: torch.where(later, x + VECTOR, x),
                Site.logits: lambda x, later=later: torch.where(later, x + torch.linspace(0, 3, 26), x),
            }
            assert token == int(explicit_forward(inner, whole, changes)[Site.logits][0, -1].argmax())
            ids.append(token)
            if token == 2:
                break
    assert inner.generation_config.top_k == 7


def test_gradients_reach_the_adapters_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    found: list[dict[str, Tensor]] = []
    for backend in ("torch", "nnsight"):
        peft = adapted("llama")
        model = HookedModel(peft, tokenizer, backend)
        batch = model.tokenize(TEXTS)
        model.run(batch, edits=edits()).logits[batch.content_mask].logsumexp(-1).mean().backward()
        found.append({name: p.grad for name, p in peft.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and all("lora_" in name for name in found[0])
    assert len(found[0]) == 2 * 3 * len(TARGETS["llama"])
    assert all(torch.equal(found[0][name], found[1][name]) and found[0][name].any() for name in found[0])


def test_transformer_lens_refuses_adapters(tokenizer: PreTrainedTokenizerBase) -> None:
    added = base_of("llama")
    added.add_adapter(config("llama"))
    peft = adapted("llama")
    injected = inject_adapter_in_model(config("llama"), base_of("llama"))
    for hf in (peft, peft.get_base_model(), added, injected):
        with pytest.raises(BackendError, match=r"does not follow adapters; merge them, or use backend 'torch'"):
            HookedModel(hf, tokenizer, "transformer_lens")


@torch.no_grad()
def test_merged_adapters_run_through_transformer_lens(tokenizer: PreTrainedTokenizerBase) -> None:
    peft = adapted("llama")
    batch = HookedModel(peft, tokenizer).tokenize(TEXTS)
    expected = plain(peft, batch)
    model = HookedModel(peft.merge_and_unload(), tokenizer, "transformer_lens")
    assert distance(expected, model.run(batch).logits, batch.mask) <= 1e-5
