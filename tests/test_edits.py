from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_unlearn import Add, Clamp, ProjectOut, Replace, Scale, Site
from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.interventions.contexts import context_of_batch
from interp_unlearn.interventions.edits import Edit, EditContext, merge_edits
from interp_unlearn.models import TokenBatch

D = 8


@pytest.fixture
def context() -> EditContext:
    return context_of_batch(TokenBatch.from_rows([[1, 5, 6, 7], [1, 5]], bos_token_id=1))


@pytest.fixture
def stream() -> Tensor:
    return torch.randn(2, 4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def direction(seed: int = 1) -> Tensor:
    return 3 * torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


EDITS: dict[str, Callable[[], Edit]] = {
    "add": lambda: Add(direction(), 0.7),
    "project": lambda: ProjectOut(torch.stack([direction(1), direction(2)])),
    "clamp": lambda: Clamp(direction(), -0.5, overshoot=1.5),
    "scale": lambda: Scale(0.3),
    "replace": lambda: Replace(direction()),
}


def test_add(stream: Tensor, context: EditContext) -> None:
    edited = Add(direction(), 2.0)(stream, context)
    torch.testing.assert_close(edited[0, 1:], stream[0, 1:] + 2 * direction())


def test_project_out_one_direction_of_any_norm(stream: Tensor, context: EditContext) -> None:
    unit = direction() / direction().norm()
    edited = ProjectOut(direction())(stream, context)[context.content]
    before = stream[context.content]
    torch.testing.assert_close(edited, before - (before @ unit)[:, None] * unit)


def test_project_out_removes_the_span_and_nothing_else(stream: Tensor, context: EditContext) -> None:
    rows = torch.stack([direction(1), direction(1) + 0.1 * direction(2)])
    edited = ProjectOut(rows)(stream, context)[context.content]
    before = stream[context.content]
    torch.testing.assert_close(edited @ rows.T, torch.zeros(len(edited), 2, dtype=torch.float64))
    # What was removed is the least-squares fit on the directions: a second road to the projection.
    fit = rows.T @ torch.linalg.lstsq(rows.T, before.T).solution
    torch.testing.assert_close(edited, before - fit.T)


def test_project_out_of_dependent_directions(stream: Tensor, context: EditContext) -> None:
    once = ProjectOut(direction())
    twice = ProjectOut(torch.stack([direction(), -2 * direction(), torch.zeros(D, dtype=torch.float64)]))
    assert len(twice.basis) == 1
    torch.testing.assert_close(twice(stream, context), once(stream, context))


@pytest.mark.parametrize("overshoot", [1.0, 2.0])
@pytest.mark.parametrize("side", ["above", "below"])
def test_clamp_is_one_sided(stream: Tensor, context: EditContext, side: str, overshoot: float) -> None:
    unit = direction() / direction().norm()
    edited = Clamp(direction(), 0.1, overshoot, side)(stream, context)
    before, after = (stream @ unit)[context.content], (edited @ unit)[context.content]
    beyond = before > 0.1 if side == "above" else before < 0.1
    assert beyond.any() and not beyond.all()
    torch.testing.assert_close(after[~beyond], before[~beyond])
    torch.testing.assert_close(after[beyond], before[beyond] - overshoot * (before[beyond] - 0.1))
    across = lambda x: x - (x @ unit)[..., None] * unit  # noqa: E731
    torch.testing.assert_close(across(edited), across(stream))


def test_replace_by_one_vector_or_by_a_whole_read(stream: Tensor, context: EditContext) -> None:
    assert torch.equal(Replace(direction())(stream, context)[1, 1], direction())
    other = torch.flip(stream, [2])
    assert torch.equal(Replace(other)(stream, context)[context.content], other[context.content])
    with pytest.raises(ConfigError, match="same shape"):
        Replace(other[:, :2])(stream, context)


def test_each_head_is_edited_by_itself(context: EditContext) -> None:
    z = torch.randn(2, 4, 3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    per_head, real = torch.stack([direction(seed) for seed in (1, 2, 3)]), context.content
    for head in range(3):
        for edit in (EDITS["add"](), EDITS["project"](), EDITS["clamp"](), EDITS["scale"](), EDITS["replace"]()):
            assert torch.equal(edit(z, context)[:, :, head], edit(z[:, :, head], context))
        torch.testing.assert_close(Add(per_head)(z, context)[real][:, head], z[real][:, head] + per_head[head])
        assert (Replace(per_head)(z, context)[real][:, head] == per_head[head]).all()
    other = z.flip(3)
    patched = Replace(other, heads=[1])(z, context)
    assert torch.equal(patched[real][:, 1], other[real][:, 1])
    assert torch.equal(patched[:, :, [0, 2]], z[:, :, [0, 2]])


@pytest.mark.parametrize("name", EDITS)
def test_only_content_is_edited_and_the_input_is_left_alone(name: str, stream: Tensor, context: EditContext) -> None:
    original = stream.clone()
    edited = EDITS[name]()(stream, context)
    assert torch.equal(stream, original)
    changed = (edited != stream).any(-1)
    assert torch.equal(edited[~context.content], stream[~context.content])
    assert changed[0].tolist()[0] is False and changed[context.content].any()


def test_include_bos_edits_bos_but_no_padding(stream: Tensor, context: EditContext) -> None:
    changed = (Scale(2.0, include_bos=True)(stream, context) != stream).any(-1)
    assert torch.equal(changed, context.mask)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_of_the_stream_is_kept(name: str, dtype: torch.dtype, stream: Tensor, context: EditContext) -> None:
    exact = EDITS[name]()(stream, context)
    edited = EDITS[name]()(stream.to(dtype), context)
    assert edited.dtype == dtype
    torch.testing.assert_close(edited.double(), exact, atol=0.1 if dtype != torch.float32 else 1e-5, rtol=0.02)


@pytest.mark.parametrize("name", EDITS)
def test_gradients(name: str, stream: Tensor, context: EditContext) -> None:
    assert torch.autograd.gradcheck(lambda x: EDITS[name]()(x, context), stream.requires_grad_())


def test_steering_vector_can_be_learned(stream: Tensor, context: EditContext) -> None:
    vector = direction().requires_grad_()
    Add(vector, 2.0)(stream, context).sum().backward()
    torch.testing.assert_close(vector.grad, torch.full((D,), 2.0 * context.content.sum(), dtype=torch.float64))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="dimensions"):
        Add(torch.zeros(2, 3, D))
    with pytest.raises(ConfigError, match="list"):
        ProjectOut([1.0, 2.0])
    with pytest.raises(ConfigError, match="zero"):
        ProjectOut(torch.zeros(2, D))
    with pytest.raises(ConfigError, match="zero"):
        Clamp(torch.zeros(D), 0.0)
    with pytest.raises(ConfigError, match="side"):
        Clamp(direction(), 0.0, side="left")
    with pytest.raises(ConfigError, match="detach"):
        ProjectOut(direction().requires_grad_())


@pytest.mark.parametrize("make", [Add, ProjectOut, lambda w: Clamp(w, 0.0)])
def test_vectors_that_are_not_finite_are_refused(make: Callable[[Tensor], Edit]) -> None:
    with pytest.raises(ConfigError, match="finite"):
        make(torch.full((D,), float("nan")))


def test_width_of_another_model_is_refused(stream: Tensor, context: EditContext) -> None:
    with pytest.raises(ConfigError, match=f"width 5 .* width {D}"):
        Add(torch.ones(5))(stream, context)


def test_merging_keeps_the_order() -> None:
    site = Site(0, "resid_pre")
    first, second, third = Scale(1.0), Scale(2.0), Scale(3.0)
    merged = merge_edits({site: first}, None, {site: [second, third], Site.embed: first})
    assert merged == {site: (first, second, third), Site.embed: (first,)}
    with pytest.raises(SiteError, match="keyed by Site"):
        merge_edits({"0.resid_pre": first})
    with pytest.raises(ConfigError, match="expected an edit"):
        merge_edits({site: "ablate"})
