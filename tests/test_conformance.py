"""One suite for all backends, architectures and dtypes: reads, edits, selections, heads and early exit.

The torch backend is held against a pass written out by hand, the other backends against the torch backend.
"""

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from backend_matrix import CASES, VISIBLE, Case, distance, vector_for
from explicit_forward import Change, every_site
from torch import Tensor

from interp_unlearn import Add, Clamp, ProjectOut, Scale, Site
from interp_unlearn.interventions import Edit
from interp_unlearn.interventions.selections import Span, TokenMask, Where
from interp_unlearn.models import TokenBatch

pytestmark = pytest.mark.usefixtures("no_gradients")
Plain = Callable[[Tensor], Tensor]


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@lru_cache
def plain(case: Case) -> dict[Site, Tensor]:
    """Reads and logits without edits, through the backend itself."""
    trace = case.model.run(case.batch, every_site(case.architecture), logits=True)
    return {site: trace[site] for site in trace.sites}


def project(vector: Tensor) -> Plain:
    unit = vector / vector.norm()
    return lambda x: x - (x @ unit.to(x.dtype))[..., None] * unit.to(x.dtype)


def only(chosen: Tensor, *plains: Plain) -> Change:
    """Do plain functions one after another where chosen."""

    def change(x: Tensor) -> Tensor:
        for function in plains:
            x = torch.where(chosen.reshape(*chosen.shape, *[1] * (x.ndim - chosen.ndim)), function(x), x)
        return x

    return change


def test_every_site_is_read(case: Case) -> None:
    case.check(every_site(case.architecture), {}, {})


def test_an_edit_at_each_site_reaches_all_that_follows(case: Case) -> None:
    sites = every_site(case.architecture)
    before = plain(case)
    for site in sites:
        vector = vector_for(before[site])
        edits = {site: [ProjectOut(vector), Add(vector, 0.5)]}
        by_hand = only(case.batch.content_mask, project(vector), lambda x, v=vector: x + 0.5 * v.to(x.dtype))
        logits = case.check(sites, edits, {site: by_hand})
        assert distance(before[Site.logits], logits, case.batch.content_mask) > VISIBLE, site


def test_edits_at_one_site_are_made_in_order(case: Case) -> None:
    before = plain(case)
    for site in (Site(0, "mlp_post"), Site(1, "resid_post"), Site(2, "z")):
        vector = vector_for(before[site])
        unit = vector / vector.norm()
        edits = [Add(vector, 0.3), Scale(1.5), ProjectOut(vector.flip(0)), Clamp(vector, 0.1)]
        by_hand = [
            lambda x, v=vector: x + 0.3 * v.to(x.dtype),
            lambda x: 1.5 * x,
            project(vector.flip(0)),
            lambda x, u=unit: x - ((x @ u.to(x.dtype)) - 0.1).clamp(min=0)[..., None] * u.to(x.dtype),
        ]
        ordered, reverse = (
            case.check([site], {site: edits[::step]}, {site: only(case.batch.content_mask, *by_hand[::step])})
            for step in (1, -1)
        )
        assert distance(ordered, reverse, case.batch.content_mask) > VISIBLE, site


def some_tokens(batch: TokenBatch) -> Tensor:
    """Every third token of the batch, padding and BOS included."""
    index = torch.arange(batch.input_ids.numel()).reshape(batch.input_ids.shape)
    return index % 3 == 1


def selections(batch: TokenBatch, activation: Tensor) -> dict[str, tuple[object, Tensor]]:
    """Each kind of selection with the tokens it means, padding and BOS aside."""
    positions, mask = batch.position_ids, some_tokens(batch)
    found: dict[str, tuple[object, Tensor]] = {
        "last": ("last", positions == batch.lengths[:, None] - 1),
        "span": (Span(1, 3), (positions == 1) | (positions == 2)),
        "mask": (TokenMask(mask), mask),
    }
    if activation.ndim == 3:
        vector = vector_for(activation)
        projection = activation.float() @ (vector / vector.norm())
        ordered = projection[batch.content_mask].sort().values[5:-5]
        widest = int((ordered[1:] - ordered[:-1]).argmax())  # no rounding is to decide
        threshold = float(ordered[widest : widest + 2].mean())
        found["where"] = (Where(vector, threshold), projection > threshold)
    return {name: (tokens, chosen & batch.content_mask) for name, (tokens, chosen) in found.items()}


@pytest.mark.parametrize("selection", ["last", "span", "mask", "where"])
def test_selected_tokens_only(case: Case, selection: str) -> None:
    before = plain(case)
    for site in (Site(0, "attn_out"), Site(1, "resid_post"), Site(1, "mlp_post"), Site(2, "z"), Site(2, "resid_pre")):
        offered = selections(case.batch, before[site])
        if selection not in offered:
            continue  # a direction in the width of a head selects no tokens
        tokens, chosen = offered[selection]
        vector = 3 * vector_for(before[site])
        by_hand = only(chosen, lambda x, v=vector: x + v.to(x.dtype))
        logits = case.check([site], {site: [Add(vector, tokens=tokens)]}, {site: by_hand})
        assert 0 < chosen.sum() < case.batch.content_mask.sum()
        assert distance(before[Site.logits], logits, chosen) > VISIBLE, site
        untouched = case.batch.mask & (chosen.cumsum(1) == 0)  # in a causal model nothing earlier can move at all
        assert untouched.any()
        assert torch.equal(before[Site.logits][untouched], logits[untouched]), site


def test_selected_heads_only(case: Case) -> None:
    before, site = plain(case), Site(1, "z")
    per_head = torch.linspace(-1, 2, 32).reshape(4, 8)
    edits: list[Edit] = [Scale(-1.0, heads=[1, 3]), Add(per_head, heads=[0], tokens="last")]
    content = case.batch.content_mask[..., None]
    last = (case.batch.position_ids == case.batch.lengths[:, None] - 1)[..., None] & content
    head = torch.arange(4)

    def by_hand(z: Tensor) -> Tensor:
        z = only(content & ((head == 1) | (head == 3)), lambda x: -x)(z)
        return only(last & (head == 0), lambda x: x + per_head.to(x.dtype))(z)

    logits = case.check([site], {site: edits}, {site: by_hand})
    assert distance(before[Site.logits], logits, case.batch.content_mask) > VISIBLE
    z = case.model.run(case.batch, [site], {site: edits})[site]
    assert torch.equal(z[..., 2, :], before[site][..., 2, :])
    assert torch.equal(z[..., 0, :][~last[..., 0]], before[site][..., 0, :][~last[..., 0]])


def test_early_exit_at_each_site(case: Case) -> None:
    sites = every_site(case.architecture)
    edits: dict[Site, list[Edit]] = {site: [Scale(1.5)] for site in sites}
    changes = {site: only(case.batch.content_mask, lambda x: 1.5 * x) for site in sites}
    case.check(sites, edits, changes)
    whole = case.model.run(case.batch, sites, edits)
    for site in sites:
        trace = case.model.run(case.batch, [site], edits)
        assert (trace.logits is None) == (site != Site.logits)
        assert torch.equal(whole[site], trace[site]), site
        assert distance(plain(case)[site], trace[site], case.batch.content_mask) > VISIBLE, site
