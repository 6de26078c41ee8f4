"""On every backend and architecture: padding does nothing and rows do not mix."""

import pytest
import torch
from backend_matrix import BACKENDS, distance, shared_model
from conftest import ALL_ARCHITECTURES, TEXTS
from explicit_forward import every_site

from interp_unlearn import Add, Scale, Site
from interp_unlearn.models import TokenBatch

pytestmark = [
    pytest.mark.parametrize("backend", BACKENDS),
    pytest.mark.parametrize("architecture", ALL_ARCHITECTURES),
]


@torch.no_grad()
@pytest.mark.parametrize("edited", [False, True], ids=["plain", "edited"])
def test_each_row_alone_gives_the_same(architecture: str, backend: str, batch: TokenBatch, edited: bool) -> None:
    model, sites = shared_model(architecture, backend), every_site(architecture)
    edits = {}
    if edited:
        edits = {
            Site(0, "resid_post"): Add(torch.linspace(-1, 2, 32), tokens="last"),
            Site(1, "z"): Scale(-1.0, heads=[1]),
        }
    together = model.run(batch, sites, edits)
    for row, text in enumerate(TEXTS):
        single = model.tokenize([text])
        alone = model.run(single, sites, edits)
        for site in sites:
            in_batch = together[site][row][batch.mask[row]][None]
            assert distance(alone[site], in_batch, single.mask) <= 1e-5, (site, text)


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(architecture: str, backend: str, batch: TokenBatch) -> None:
    model, sites = shared_model(architecture, backend), every_site(architecture)
    other = TokenBatch(
        torch.where(batch.mask, batch.input_ids, 7), batch.attention_mask, batch.position_ids, batch.bos_token_id
    )
    assert not torch.equal(batch.input_ids, other.input_ids)
    edits = {Site(0, "mlp_post"): Scale(2.0, include_bos=True)}
    first, second = (model.run(tokens, sites, edits) for tokens in (batch, other))
    assert not torch.equal(first[Site.embed], second[Site.embed])
    for site in sites:
        assert torch.equal(first[site][batch.mask], second[site][batch.mask]), site
        assert torch.isfinite(first[site]).all(), site
