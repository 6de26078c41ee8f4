"""Penalties on several directions a layer, and where the numbers they are measured in come from."""

import pytest
import torch
from planted_classes import DATA, FORGET, NEUTRAL, QUICK, planted_directions, planted_spans, read_at

from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.models import tokenize
from interp_unlearn.objectives import ProjectionScale, projection_hinge
from interp_unlearn.unlearning import (
    ProjectionPenalty,
    SubspacePenalty,
    UnlearnConfig,
    UnlearnData,
    pair_subspaces,
    projection_scales,
    unlearn,
)
from interp_unlearn.unlearning.corpora import Corpora


def loss_of(objective, model, texts=FORGET):
    batch = tokenize(model.tokenizer, texts)
    with torch.no_grad():
        return objective.loss(model, batch, batch.content_mask, None)[0].item()


def prepared(objective, model, data=DATA):
    objective.prepare(model, Corpora.from_data(model.tokenizer, data), UnlearnConfig())
    return objective


def test_the_hinge_is_the_sum_over_directions(llama):
    spans = {layer: torch.stack([w, 2 * w + 0.1]) for layer, w in planted_directions(llama, (0, 1)).items()}
    found = loss_of(prepared(SubspacePenalty((0, 1), spans, penalty="hinge"), llama), llama)
    apart = [
        loss_of(prepared(ProjectionPenalty((0, 1), {layer: span[j] for layer, span in spans.items()}), llama), llama)
        for j in range(2)
    ]
    assert found == pytest.approx(sum(apart), rel=1e-5)
    assert min(apart) > 0.1


def test_the_norm_is_the_distance_from_the_neutral_centre_beyond_a_quantile(llama):
    spans = planted_spans(llama, (1,))
    objective = prepared(SubspacePenalty(1, spans, quantile=0.2), llama)
    basis = torch.linalg.svd(spans[1], full_matrices=False).Vh
    forget, neutral = (read_at(llama, texts, 1) @ basis.T for texts in (FORGET, NEUTRAL))
    far, near = ((part - neutral.mean(0)).norm(dim=-1) for part in (forget, neutral))
    start, gap = near.quantile(0.2), far.quantile(0.5) - near.quantile(0.5)
    expected = ((far - start) / gap).relu().square().mean()
    assert loss_of(objective, llama) == pytest.approx(expected.item(), rel=1e-3)
    assert objective.scales[1][0].gap == pytest.approx(gap.item(), rel=1e-3)


def test_the_norm_does_not_depend_on_signs_or_on_the_basis(llama):
    spans = planted_spans(llama, (1,))
    turned = {1: torch.tensor([[0.6, -0.8], [-3.0, -4.0]]) @ spans[1]}
    losses = [loss_of(prepared(SubspacePenalty(1, span), llama), llama) for span in (spans, turned)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] > 0.1


def test_the_span_of_pairs_fits_and_training_moves_forget_text_into_the_neutral_cloud(llama):
    spaces = pair_subspaces(llama, DATA, [1], 2, progress=False)
    objective = SubspacePenalty(1, {layer: space.basis for layer, space in spaces.items()})
    neutral = (read_at(llama, NEUTRAL, 1) @ spaces[1].basis.float().T).mean(0)

    def distance():
        return (read_at(llama, FORGET, 1) @ spaces[1].basis.float().T - neutral).norm(dim=-1).median().item()

    before = distance()
    unlearn(llama, objective, DATA, QUICK, progress=False)
    assert distance() < 0.9 * before


def test_a_quantile_moves_the_threshold_and_not_the_unit(llama):
    directions = planted_directions(llama, (1,))
    low, high = (prepared(ProjectionPenalty(1, directions, quantile=q), llama) for q in (0.5, 0.9))
    w = directions[1] / directions[1].norm()
    assert high.scales[1].gap == low.scales[1].gap
    assert high.scales[1].start == pytest.approx((read_at(llama, NEUTRAL, 1) @ w).quantile(0.9).item(), abs=1e-4)
    assert 0 < loss_of(high, llama) < loss_of(low, llama)


def test_scales_are_those_the_penalty_measures(llama):
    directions = planted_directions(llama, (0, 1))
    penalty = prepared(ProjectionPenalty((0, 1), directions, quantile=0.7), llama)
    assert projection_scales(llama, DATA, directions, (0, 1), quantile=0.7) == penalty.scales
    batch = llama.tokenize(FORGET)
    with torch.no_grad():
        h = llama.run(batch, reads=penalty._sites)[penalty._sites[1]]
    w = directions[1] / directions[1].norm()
    alone = projection_hinge(h, batch.content_mask, w, penalty.scales[1])
    zero = ProjectionPenalty((0, 1), directions, quantile=0.7, layer_weights={0: 0.0, 1: 1.0})
    assert loss_of(prepared(zero, llama), llama) == pytest.approx(alone.item(), rel=1e-4)


def test_scales_count_the_tokens_the_config_says(llama):
    data = UnlearnData(
        forget=["the cat"] * 2, forget_completions=[" sat on a mat", " ran"],
        neutral=["the cat", "a dog"], neutral_completions=[" was not", " said yes"],
    )  # fmt: skip
    batch = llama.tokenize(data.neutral, completions=data.neutral_completions)
    from interp_unlearn.sites import Site

    with torch.no_grad():
        h = llama.run(batch, reads=[Site(1, "resid_post")])[Site(1, "resid_post")]
    w = torch.ones(llama.d_model) / llama.d_model**0.5
    for forget_on, mask in (("completion", batch.completion_mask), ("content", batch.content_mask)):
        median = (h @ w)[mask].quantile(0.5)
        for sign in (1, -1):  # one of the two points from neutral to forget
            try:
                found = projection_scales(llama, data, {1: sign * w}, [1], UnlearnConfig(forget_on=forget_on))
            except ConfigError:
                continue
            assert found[1].neutral_median == pytest.approx(sign * median.item(), abs=1e-4)
            break
        else:
            pytest.fail("neither sign fits")


@pytest.mark.parametrize(
    ("directions", "options", "match"),
    [
        ({0: torch.ones(2, 32)}, {}, "no direction for layer 1"),
        ({1: torch.zeros(2, 32)}, {}, "non-zero vectors of 32"),
        ({1: torch.ones(2, 5)}, {}, "vectors of 32 numbers"),
        ({1: torch.ones(2, 32)}, {"layer_weights": {0: 1.0}}, "layer_weights"),
        ({1: torch.ones(2, 32)}, {"penalty": "square"}, "penalty"),
    ],
)
def test_what_does_not_fit_is_refused(llama, directions, options, match):
    with pytest.raises(ConfigError, match=match):
        prepared(SubspacePenalty(1, directions, **options), llama)


def test_a_span_in_which_the_classes_lie_alike_is_refused(llama):
    spans = planted_spans(llama, (1,))
    prepared(SubspacePenalty(1, spans), llama)
    with pytest.raises(ConfigError, match=r"layer 1: the forget tokens lie no further .* the penalty hinge"):
        prepared(SubspacePenalty(1, spans), llama, UnlearnData(forget=FORGET, neutral=FORGET))


def test_a_direction_of_the_wrong_sign_is_named(llama):
    span = planted_directions(llama, (1,))[1]
    with pytest.raises(ConfigError, match=r"layer 1, direction 1.*wrong sign"):
        prepared(SubspacePenalty(1, {1: torch.stack([span, -span])}, penalty="hinge"), llama)


def test_a_scale_without_threshold_begins_at_the_median():
    assert ProjectionScale(2.0, 1.0).start == 2.0
    assert ProjectionScale(2.0, 1.0, 3.5).start == 3.5


def test_a_layer_without_probe_is_named(llama):
    class Probes:
        def direction(self, site, estimator):
            raise SiteError(f"no probe at {site}")

    with pytest.raises(SiteError, match=r"1\.resid_post"):
        projection_scales(llama, DATA, Probes(), [1])
