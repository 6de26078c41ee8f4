"""How many singular directions of a delta carry an effect, for planted ranks."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from planted_deltas import distance_from, disturbed, text_logits

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import RankConfig, Resampling, WeightDelta, rank_profile
from interp_unlearn.mechanism.rank_profile import truncations
from interp_unlearn.models import parameters_by_role

CONFIG = RankConfig(resampling=Resampling(n=100))


def planted(model: HookedModel, values: Sequence[float], role: str = "mlp.down", layer: int = 1) -> WeightDelta:
    """A change of one matrix with the given singular values."""
    name = next(iter(parameters_by_role(model.hf, [role], [layer])))
    generator = torch.Generator().manual_seed(0)
    rows, columns = model.hf.get_parameter(name).shape
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (rows, columns)
    )
    return WeightDelta({name: (left * torch.tensor(values, dtype=torch.float64)) @ right.T})


def test_a_rank_one_delta_needs_one_direction(model: HookedModel) -> None:
    own = model.hash()
    found = rank_profile(model, planted(model, [3.0]), distance_from(model), CONFIG)
    assert model.hash() == own
    ranks = found.sufficient_ranks()
    assert (ranks[["rank", "low", "high"]] == 1).to_numpy().all()
    assert ranks["full"].tolist() == [32]
    table = found.to_frame()
    assert table["rank"].unique().tolist() == [1, 2, 4, 8, 16, 32]
    assert table["energy"].tolist() == pytest.approx([1.0] * len(table))
    assert table["share"].tolist() == pytest.approx([1.0] * len(table), abs=1e-3)


@pytest.mark.parametrize(("n", "needed"), [(1, 1), (2, 2), (3, 4), (8, 8), (10, 16)])
def test_equal_directions_that_add_up_are_all_needed(llama: HookedModel, n: int, needed: int) -> None:
    delta = planted(llama, [1.0] * n)
    (name,) = delta.changes
    start = llama.hf.get_parameter(name).detach().clone()

    def along(model: HookedModel) -> Mapping[str, Sequence[float]]:
        """The length of the change along the planted one, which is linear in the weights."""
        change = (model.hf.get_parameter(name).detach() - start).double()
        total = float((change * delta.changes[name]).sum())
        return {"along": [0.9 * total, total, 1.1 * total]}

    found = rank_profile(llama, delta, along, CONFIG)
    assert found.sufficient_ranks()["rank"].tolist() == [needed]
    table = found.to_frame()
    expected = [min(rank, n) / n for rank in table["rank"].tolist()]
    assert table["share"].tolist() == pytest.approx(expected, abs=1e-4)


def test_truncations_are_the_best_approximations(model: HookedModel) -> None:
    delta = WeightDelta.between(model, disturbed(model))
    values = {n: torch.linalg.svdvals(change) for n, change in delta.changes.items() if change.ndim > 1}
    for rank, part in truncations(delta, [1, 3]):
        for name, change in delta.changes.items():
            if change.ndim < 2:
                assert torch.equal(part.changes[name], change)
                continue
            assert int(torch.linalg.matrix_rank(part.changes[name])) == rank
            lost = float((change - part.changes[name]).norm())
            assert lost == pytest.approx(float(values[name][rank:].norm()), rel=1e-6)


def test_the_whole_delta_is_the_last_rank(model: HookedModel) -> None:
    other = disturbed(model)
    seen: list[str] = []

    def outcome(hybrid: HookedModel) -> Mapping[str, Sequence[float]]:
        seen.append(hybrid.hash())
        return {"n": [float(len(seen)), 0.0]}

    rank_profile(model, WeightDelta.between(model, other), outcome, RankConfig((1, 5)))
    assert seen[0] == model.hash()
    assert seen[-1] == other.hash()
    assert len(seen) == 4


def test_failures_leave_the_weights_alone(llama: HookedModel) -> None:
    own, calls = llama.hash(), 0

    def failing(model: HookedModel) -> Mapping[str, Sequence[float]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyError
        return text_logits(model)

    with pytest.raises(KeyError):
        rank_profile(llama, planted(llama, [1.0]), failing)
    assert llama.hash() == own
    with pytest.raises(ConfigError, match="changes nothing"):
        rank_profile(llama, WeightDelta({}), text_logits)
    for ranks in ((), (2, 1), (0, 1), (1, 1)):
        with pytest.raises(ConfigError, match="ranks"):
            RankConfig(ranks)


def test_a_change_of_vectors_alone_has_one_rank(llama: HookedModel) -> None:
    delta = WeightDelta.between(llama, disturbed(llama, lambda name: "layernorm" in name))
    found = rank_profile(llama, delta, text_logits, CONFIG)
    assert found.to_frame()["rank"].unique().tolist() == [1]
