"""Parallel blocks, mixtures of experts, and heads wider than the stream divided by their number, on each backend."""

from functools import cache

import pytest
import torch
from backend_matrix import BACKENDS, VISIBLE, distance, vector_for
from conftest import COMMON, TEXTS, make_hf, make_tokenizer
from explicit_forward import every_site, explicit_forward
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from interp_unlearn import Add, HookedModel, ProjectOut, Scale, Site
from interp_unlearn.errors import BackendError, SiteError
from interp_unlearn.models import TokenBatch


@cache
def unusual(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "gpt_neox":
        hf = make_hf(kind)
    elif kind == "mixtral":
        hf = MixtralForCausalLM(MixtralConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2))
    elif kind == "qwen3_moe":
        sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        hf = Qwen3MoeForCausalLM(Qwen3MoeConfig(**COMMON, **sizes, head_dim=8, decoder_sparse_step=1))
    else:
        hf = Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16))
    hf.set_attn_implementation("eager")
    return hf.eval()


@cache
def shared(kind: str, backend: str) -> HookedModel:
    return HookedModel(unusual(kind), make_tokenizer(), backend)


def refusals(model: HookedModel, site: Site) -> list[str]:
    """What is said when a site is read, edited in one pass, and edited in a block."""
    batch, messages = model.tokenize(TEXTS), []
    for reads, edits in (([site], {}), ([], {site: Scale(2.0)})):
        with pytest.raises(SiteError) as error:
            model.run(batch, reads, edits)
        messages.append(str(error.value))
    with pytest.raises(SiteError) as error, model.edited({site: Scale(2.0)}):
        pass
    return [*messages, str(error.value)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_parallel_blocks_have_no_resid_mid(backend: str) -> None:
    for message in refusals(shared("gpt_neox", backend), Site(1, "resid_mid")):
        assert message.startswith("1.resid_mid: ") and "parallel" in message


@pytest.mark.parametrize(
    ("kind", "backend"), [*(("mixtral", name) for name in BACKENDS), ("qwen3_moe", "torch"), ("qwen3_moe", "nnsight")]
)
def test_a_mixture_of_experts_has_no_mlp_post(kind: str, backend: str) -> None:
    for message in refusals(shared(kind, backend), Site(2, "mlp_post")):
        assert message.startswith("2.mlp_post: ") and "mixture of experts" in message and "mlp_out" in message


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *((kind, name) for kind in ("mixtral", "wide heads") for name in BACKENDS),
        ("qwen3_moe", "torch"),
        ("qwen3_moe", "nnsight"),
    ],
)
def test_reads_and_edits_are_those_of_the_hand_written_pass(kind: str, backend: str, batch: TokenBatch) -> None:
    model = shared(kind, backend)
    sites = [site for site in every_site(kind) if kind == "wide heads" or site.component != "mlp_post"]
    plain = explicit_forward(model.hf, batch)
    real = batch.content_mask
    for site in sites:
        vector = vector_for(plain[site])
        unit = vector / vector.norm()

        def by_hand(x: torch.Tensor, unit: torch.Tensor = unit, vector: torch.Tensor = vector) -> torch.Tensor:
            edited = x - (x @ unit)[..., None] * unit + 0.5 * vector
            return torch.where(real.reshape(*real.shape, *[1] * (x.ndim - 2)), edited, x)

        expected = explicit_forward(model.hf, batch, {site: by_hand})
        found = model.run(batch, [*sites, Site.logits], {site: [ProjectOut(vector), Add(vector, 0.5)]})
        for read in sites:
            assert distance(expected[read], found[read], batch.mask) <= 2e-5, f"{read} after {site}"
        assert distance(plain[Site.logits], found.logits, real) > VISIBLE


@torch.no_grad()
@pytest.mark.parametrize("backend", BACKENDS)
def test_heads_wider_than_their_share_of_the_stream(backend: str) -> None:
    model, site = shared("wide heads", backend), Site(1, "z")
    batch = model.tokenize(TEXTS)
    z = model.run(batch, [site])[site]
    assert z.shape == (*batch.input_ids.shape, 4, 16)
    edited = model.run(batch, [site], {site: Scale(0.0, heads=[3])})[site]
    assert torch.equal(edited[..., :3, :], z[..., :3, :])
    assert not edited[batch.content_mask][:, 3].any()


def test_a_mixture_that_transformer_lens_does_not_know_is_refused() -> None:
    with pytest.raises(BackendError, match="TransformerLens does not take Qwen3MoeForCausalLM"):
        shared("qwen3_moe", "transformer_lens")
