"""Ablation, steering and scaled neurons: what was planted comes back exactly, and random directions bring nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted_unlearning import DATA, DEAD, copied, make_original, misdirected, mlp_of, n_hooks, what_it_knows

from interp_unlearn.attacks import (
    AblateDirection,
    AblateSubspace,
    Attack,
    MeasuredItems,
    NeuronScaling,
    Setup,
    SteerBack,
    run_attacks,
)
from interp_unlearn.attacks.ablation import MoveAsFar
from interp_unlearn.attacks.attack import Target
from interp_unlearn.attacks.neurons import largest, mean_neurons, sketch
from interp_unlearn.attacks.streams import displacement, read_streams
from interp_unlearn.directions import Directions, value_vectors
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import EditContext, HookedModel, ProjectOut
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import UnlearnData


@pytest.fixture(scope="module")
def original():
    return make_original()


def attacked(
    original: HookedModel, unlearned: HookedModel, *attacks: Attack, score: str = "correct", data: UnlearnData = DATA
) -> Any:
    """The table of attempts; the models come out as they went in."""
    before = unlearned.hash(), original.hash(), n_hooks(unlearned), n_hooks(original)
    result = run_attacks(unlearned, original, what_it_knows(original, score), data, attacks, progress=False)
    unlearned.mark_changed()
    original.mark_changed()
    assert (unlearned.hash(), original.hash(), n_hooks(unlearned), n_hooks(original)) == before
    assert result.unlearned.scores.mean() < 0.8 * result.original.scores.mean()
    return result.to_frame()


class TestAblation:
    @pytest.mark.parametrize("rank", [1, 3])
    def test_the_control_moves_each_token_as_far_elsewhere(self, rank: int):
        generator = torch.Generator().manual_seed(0)
        basis, others = (torch.linalg.qr(torch.randn(8, rank, generator=generator))[0].T for _ in range(2))
        h = torch.randn(2, 5, 8, generator=generator)
        every, places = torch.ones(2, 5, dtype=torch.bool), torch.arange(5).expand(2, 5)
        context = EditContext(every, every, places, torch.arange(2), torch.full((2,), 5), places)
        ours, control = ProjectOut(basis), MoveAsFar(basis, others)
        removed, moved = (edit.transform(h, context) - h for edit in (ours, control))
        assert torch.allclose(moved.norm(dim=-1), removed.norm(dim=-1), atol=1e-5) and removed.norm() > 1
        assert torch.allclose(moved, moved @ others.T @ others, atol=1e-5), "within the random directions"
        assert torch.allclose(MoveAsFar(basis, basis).transform(h, context), ours.transform(h, context), atol=1e-5)

    def test_the_planted_direction_is_found_and_taken_away(self, original: HookedModel):
        table = attacked(original, misdirected(original), AblateDirection(n_random=3))
        assert table["setting"].str.contains("own").tolist() == [True, False]
        assert table["recovered"].tolist() == [1.0, 1.0] and table["recovered_low"].tolist() == [1.0, 1.0]
        assert (table["control"] < 0.7).all() and (table["p"] < 0.02).all()
        assert (table["n"] == 24).all() and (table["n_groups"] == 12).all()

    def test_a_direction_from_lower_down_is_taken_away_at_every_layer(self, original: HookedModel):
        hidden = misdirected(original, layer=1)
        where = AblateDirection(("one",), layer=1, n_random=0, include_bos=True)
        elsewhere = AblateDirection(("one",), layer=0)
        table = attacked(original, hidden, where, elsewhere)
        assert table["recovered"].iloc[0] == 1.0
        assert table["p"].isna().all()
        assert table["reason"].iloc[1] == "layer 0 has not moved; those that have are 1, 2"
        assert table["recovered"].isna().iloc[1]

    def test_direct_and_indirect_effects_are_told_apart(self, original: HookedModel):
        split = AblateDirection(("one", "last"), layer=1, n_random=2, include_bos=True)
        passing = misdirected(original, layer=1)  # what it adds reaches the unembedding, but for this:
        with torch.no_grad():
            mlp_of(passing, 2).down_proj.bias[DEAD[0]] -= 200
        one, last = attacked(original, passing, split).to_dict("records")
        assert one["recovered"] == 1.0 and "at every layer" in one["setting"]
        assert last["recovered"] == 0.0 and "after the last block" in last["setting"], (
            "all of it went through the last block"
        )
        told: Any = {"where": ("one", "last"), "layer": 2, "n_random": 2}
        table = attacked(original, misdirected(original), AblateDirection(**told), AblateSubspace((1,), **told))
        assert table["recovered"].tolist() == [1.0] * 4 and (table["control"] < 0.7).all()

    def test_the_displacement_is_the_planted_vector(self, original: HookedModel):
        streams = [read_streams(model, DATA, 100, 0) for model in (original, misdirected(original, layer=1))]
        moved = displacement(*streams)
        assert set(moved) == {1, 2}
        expected = torch.zeros(32, dtype=torch.float64)
        expected[DEAD[0]] = 200.0
        torch.testing.assert_close(moved[1], expected, rtol=1e-6, atol=1e-4)

    def test_models_that_do_not_differ_have_none(self, original: HookedModel):
        with pytest.raises(ConfigError, match="same activations"):
            run_attacks(copied(original), original, what_it_knows(original), DATA, [AblateDirection()], progress=False)

    @pytest.mark.parametrize("rows", ["texts", "groups"])
    def test_a_subspace_needs_its_rank(self, original: HookedModel, rows: Any):
        hidden = copied(original)
        with torch.no_grad():  # what is written into the dead dimensions differs from token to token
            mlp_of(hidden, 2).down_proj.weight[list(DEAD)] = 60 * torch.randn(
                2, 48, generator=torch.Generator().manual_seed(0)
            )
        table = attacked(original, hidden, AblateSubspace((0, 1, 2, 3), rows, n_random=2), score="answer_probability")
        none, one, two, three = table.to_dict("records")
        assert none["recovered"] == 0.0 and none["score"] == none["unlearned"]
        assert one["recovered"] < 0.9
        assert two["recovered"] == pytest.approx(1.0, abs=1e-3) and two["p"] < 0.01
        assert three["score"] != three["score"] and "number of directions" in three["reason"]

    def test_groups_are_needed_for_rows_of_groups(self, original: HookedModel):
        alone = UnlearnData(forget=DATA.forget)
        attack = AblateSubspace((1,), "groups")
        table = attacked(original, misdirected(original), attack, AblateDirection(), data=alone)
        assert "no groups" in table["reason"].iloc[0]


class TestSteering:
    def test_a_constant_that_was_taken_away_is_put_back(self, original: HookedModel):
        hidden = copied(original)
        with torch.no_grad():
            mlp_of(hidden, 1).down_proj.bias[:30] -= 4 * torch.randn(30, generator=torch.Generator().manual_seed(0))
        settings: dict[str, Any] = {"coefficients": (0.0, 1.0), "layers": (1,), "n_random": 2, "include_bos": True}
        table = attacked(original, hidden, SteerBack(("displacement",), **settings), score="answer_probability")
        assert table["recovered"].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
        assert table["recovered"].iloc[0] == 0.0
        assert table["control"].iloc[1] < 0.9 * table["score"].iloc[1] and table["p"].iloc[1] < 0.01

    def test_forget_minus_neutral_is_the_originals(self, original: HookedModel):
        streams = read_streams(original, DATA, 100, 0)
        difference = streams.mean(1) - streams.mean(1, "neutral")
        hidden = copied(original)
        with torch.no_grad():
            mlp_of(hidden, 1).down_proj.bias -= 9 * difference.float()
        attack = SteerBack(("forget_minus_neutral",), (9.0,), n_random=0, include_bos=True, layers=(1,))
        table = attacked(original, hidden, attack, score="answer_probability")
        assert table["recovered"].iloc[0] == pytest.approx(1.0, abs=1e-3)

    def test_without_neutral_texts_there_is_no_such_difference(self, original: HookedModel):
        alone = UnlearnData(forget=DATA.forget, groups=DATA.groups)
        table = attacked(original, misdirected(original), SteerBack(coefficients=(1.0,), n_random=0), data=alone)
        assert table["score"].notna().tolist() == [False, True]
        assert "no neutral texts" in table["reason"].iloc[0]


class TestNeurons:
    PLANTED = ((1, 3), (2, 40))

    @pytest.fixture
    def loud(self):
        """An original in which two neurons write a great deal."""
        model = make_original()
        with torch.no_grad():
            for layer, neuron in self.PLANTED:
                mlp_of(model, layer).down_proj.weight[:30, neuron] *= 30
        return model

    @pytest.mark.parametrize("by", ["weights", "activation"])
    def test_the_neurons_that_were_turned_down_are_turned_up(self, loud: HookedModel, by: Any):
        hidden = copied(loud)
        with torch.no_grad():
            for layer, neuron in self.PLANTED:
                mlp = mlp_of(hidden, layer)
                if by == "weights":
                    mlp.down_proj.weight[:, neuron] *= 0.1
                else:
                    mlp.up_proj.weight[neuron] *= 0.1
                    mlp.up_proj.bias[neuron] *= 0.1
        attack = NeuronScaling((by,), n_neurons=2, factors=(1.0, 10.0), n_random=2)
        same, up = attacked(loud, hidden, attack, score="answer_probability").to_dict("records")
        assert same["recovered"] == 0.0 and '"layers": [1, 2]' in same["setting"]
        # The activation at BOS is not edited, and was turned down there too.
        assert up["recovered"] > 0.8 and up["p"] < 0.05 and up["control"] < up["score"]

    def test_along_a_direction(self, loud: HookedModel):
        hidden = copied(loud)
        with torch.no_grad():
            mlp_of(hidden, 2).down_proj.weight[:, 40] *= -4
        directions = Directions({Site(2, "resid_post"): value_vectors(hidden, 2)[40]})
        attack = NeuronScaling(("direction",), 1, (-0.25,), directions, n_random=0)
        row = attacked(loud, hidden, attack, score="answer_probability").iloc[0]
        assert row["recovered"] == pytest.approx(1.0, abs=1e-4)  # in the last block BOS does not matter

    def test_neurons_that_two_sites_agree_on_are_scaled_once(self, original: HookedModel):
        vector = value_vectors(original, 1)[22]
        directions = Directions({Site(1, "resid_mid"): vector, Site(1, "resid_post"): vector})
        attack, known = NeuronScaling(("direction",), 3, (0.0,), directions, n_random=0), what_it_knows(original)
        target = Target(original, Setup(known, DATA), known(original))
        chosen = attack._aligned(target)
        assert sum(map(len, chosen.values())) == 3 and 22 in chosen[1]
        assert all(len(set(neurons)) == len(neurons) for neurons in chosen.values())

    def test_what_did_not_change_is_not_scaled(self, original: HookedModel):
        table = attacked(original, misdirected(original), NeuronScaling(factors=(0.0,), n_random=0))
        assert table["score"].notna().tolist() == [True, False, False]
        assert table["reason"].iloc[2] == "no neuron differs between the original and the unlearned model"

    def test_the_sketch_keeps_the_size_of_changes(self, llama: HookedModel):
        before, values = sketch(llama, 1), value_vectors(llama, 1).clone()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            change = torch.randn(32, 48, generator=generator) * torch.logspace(-2, 1, 48)
            change[:, [7, 20, 40]] *= torch.tensor([1e3, 3e3, 1e2])
            change[:, :5] = 0
            mlp_of(llama, 1).down_proj.weight += change
        estimated = (sketch(llama, 1) - before).norm(dim=1)
        exact = (value_vectors(llama, 1) - values).norm(dim=1)
        assert (estimated[:5] == 0).all()
        assert (estimated[5:] / exact[5:] - 1).abs().mean() < 0.15
        assert largest({1: estimated}, 3)[1] == exact.argsort(descending=True)[:3].tolist()

    def test_means_are_over_all_tokens(self, llama: HookedModel):
        found = mean_neurons(
            llama, Setup(lambda model: MeasuredItems.of("x", []), UnlearnData(forget=["the cat", "a dog ran on"]))
        )
        site, rows = Site(1, "mlp_post"), []
        for text in ("the cat", "a dog ran on"):
            with torch.no_grad():
                rows.append(llama.run(llama.tokenize([text]), reads=[site])[site][0, 1:])
        torch.testing.assert_close(found[1], torch.cat(rows).double().mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: AblateDirection(n_random=-1),
        lambda: AblateDirection(where=("everywhere",)),  # pyright: ignore[reportArgumentType]
        lambda: AblateSubspace(ranks=(-1,)),
        lambda: SteerBack(coefficients=()),
        lambda: SteerBack(layers=()),
        lambda: NeuronScaling(n_neurons=0),
        lambda: NeuronScaling(factors=(float("nan"),)),
    ],
)
def test_settings_out_of_range_are_refused(settings: Callable[[], object]):
    with pytest.raises(ConfigError):
        settings()
