"""What interventions along a direction cause: against passes made by hand, planted directions and the organism."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from backend_matrix import BACKENDS
from conftest import TEXTS, make_hf
from torch import Tensor

from interp_unlearn import Add, Clamp, HookedModel, ProjectOut, Site
from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.directions import (
    Directions,
    EffectsConfig,
    Intervention,
    causal_effects,
    continuations,
    generation_effects,
    next_token_effects,
)
from interp_unlearn.directions.controls import Recorded, random_moves, recorded, typical_distances
from interp_unlearn.directions.nulls import random_direction_at
from interp_unlearn.directions.strengths import calibrate, default_interventions, make_edit
from interp_unlearn.errors import ConfigError, DataError, SiteError
from interp_unlearn.evaluation import perplexity, sample_rows
from interp_unlearn.evaluation.generations import continuation_texts

D = 32
SITES = [Site(layer, "resid_post") for layer in range(3)]
LAST = SITES[-1]
COMPLETIONS = ["and ran", "on a red mat", "yes", "it was big"]


def unit(seed: int) -> Tensor:
    drawn = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


@pytest.fixture
def directions() -> Directions:
    return Directions({site: unit(i) for i, site in enumerate(SITES)}, dict.fromkeys(SITES, 0.0))


@pytest.fixture
def store(llama: HookedModel) -> ActivationStore:
    return collect(llama, [*TEXTS, *COMPLETIONS], SITES, pool="mean", labels=[1] * 4 + [0] * 4, progress=False)


def pick(frame: pd.DataFrame, **columns: object) -> pd.DataFrame:
    for name, value in columns.items():
        frame = frame[frame[name] == value]
    return frame


def value_of(frame: pd.DataFrame, **columns: object) -> float:
    found = pick(frame, **columns)
    assert len(found) == 1, found
    return float(found["mean"].iloc[0])


def last_logits(model: HookedModel, text: str, edits: dict | None = None) -> Tensor:
    with torch.no_grad():
        return model.run(model.tokenize([text]), edits=edits, logits=True).logits[0, -1].double()


def kl_of_completion(model: HookedModel, prompt: str, completion: str, edits: dict) -> float:
    """Mean over the completion's tokens."""
    batch = model.tokenize([prompt], completions=[completion])
    with torch.no_grad():
        p, q = (model.run(batch, edits=e, logits=True).logits[0].double().log_softmax(-1) for e in (None, edits))
    before = torch.nonzero(batch.completion_mask[0])[:, 0] - 1
    return float((p[before].exp() * (p[before] - q[before])).sum(-1).mean())


def n_hooks(model: HookedModel) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.hf.modules() for kind in kinds)


class TestStrengths:
    def test_gaps_thresholds_and_norms_are_measured(
        self, llama: HookedModel, directions: Directions, store: ActivationStore
    ) -> None:
        wanted = [Intervention("add", 1.0, "gap"), Intervention("add", 0.5, "norm"), Intervention("clamp", 2.0)]
        found = calibrate(llama, TEXTS, directions, wanted, store)
        for site in SITES:
            projections = store[site] @ directions[site]
            assert found.thresholds[site] == pytest.approx(float(projections[4:].mean()), abs=1e-5)
            assert found.gaps[site] == pytest.approx(float(projections[:4].mean() - projections[4:].mean()), abs=1e-5)
            norms = []
            for text in TEXTS:
                batch = llama.tokenize([text])
                norms += llama.run(batch, [site])[site][0, 1:].norm(dim=-1).tolist()
            assert found.norms[site] == pytest.approx(np.mean(norms), rel=1e-5)
            add, scaled, clamp = (make_edit(intervention, site, directions, found) for intervention in wanted)
            assert isinstance(add, Add) and add.coefficient == pytest.approx(found.gaps[site])
            assert isinstance(scaled, Add) and scaled.coefficient == pytest.approx(found.norms[site] / 2)
            assert isinstance(clamp, Clamp) and clamp.threshold == found.thresholds[site] and clamp.overshoot == 2
            assert isinstance(make_edit(Intervention("project_out"), site, directions, found), ProjectOut)

    def test_a_store_of_tokens_counts_every_token(self, llama: HookedModel, directions: Directions) -> None:
        texts, labels = [*TEXTS, *COMPLETIONS], np.array([1] * 4 + [0] * 4)
        tokens = collect(llama, texts, SITES[:1], pool="none", labels=labels, progress=False)
        found = calibrate(llama, TEXTS, directions.at(SITES[:1]), [Intervention("clamp")], tokens)
        of_tokens = np.repeat(labels, tokens.rows["n_tokens"])
        projections = (tokens[SITES[0]] @ directions[SITES[0]]).numpy()
        assert found.thresholds[SITES[0]] == pytest.approx(projections[of_tokens == 0].mean(), abs=1e-5)
        assert len(projections) > len(texts)

    def test_without_a_store_the_border_serves_and_gaps_do_not(self, llama: HookedModel) -> None:
        with_border = Directions({LAST: 2 * unit(0)}, {LAST: 3.0})
        found = calibrate(llama, TEXTS, with_border, [Intervention("clamp")])
        assert found.thresholds[LAST] == pytest.approx(-1.5)
        assert [i.unit for i in default_interventions(with_border, None) if i.kind == "add"] == ["norm", "norm"]
        with pytest.raises(ConfigError, match="class gap needs a store"):
            calibrate(llama, TEXTS, with_border, [Intervention("add")])
        bare = Directions({LAST: unit(0)})
        assert not [i for i in default_interventions(bare, None) if i.kind == "clamp"]
        with pytest.raises(ConfigError, match=r"clamping at 2\.resid_post needs a threshold"):
            calibrate(llama, TEXTS, bare, [Intervention("clamp")])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (("rotate",), "expected one of add, clamp, project_out"),
            (("add", 1.0, "miles"), "expected gap or norm"),
            (("add", 0.0), "a strength other than 0"),
            (("clamp", -1.0), "of clamp above 0"),
            (("add", float("nan")), "a strength other than 0"),
            (("project_out", 2.0), "project_out has no strength"),
        ],
    )
    def test_settings_are_validated(self, settings: tuple, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Intervention(*settings)

    def test_config_is_validated(self) -> None:
        with pytest.raises(ConfigError, match="expected each, all or both"):
            EffectsConfig(layers="some")
        with pytest.raises(ConfigError, match="without a random direction says nothing"):
            EffectsConfig(n_random=0)
        with pytest.raises(ConfigError, match="none given"):
            EffectsConfig(interventions=())
        assert not set(EffectsConfig(seed=0).random_seeds) & set(EffectsConfig(seed=1).random_seeds)


class TestControls:
    @pytest.mark.parametrize("intervention", [Intervention("clamp", 2.0), Intervention("project_out")])
    def test_the_control_moves_every_token_as_far_at_every_site(
        self, llama: HookedModel, directions: Directions, store: ActivationStore, intervention: Intervention
    ) -> None:
        calibration = calibrate(llama, TEXTS, directions, [intervention], store)
        edits = {site: make_edit(intervention, site, directions, calibration) for site in SITES}
        batch = llama.tokenize(TEXTS)
        keeping, moves = recorded(edits, directions)
        with torch.no_grad():
            edited = llama.run(batch, SITES, keeping)
            plain = llama.run(batch, SITES, edits)
            control = random_moves(moves, directions, seed=7)
            seen: dict[Site, Tensor] = {}
            other = {s: random_direction_at(s, D, 7) for s in SITES}
            llama.run(batch, SITES, {s: Recorded(edit, other[s], s, seen) for s, edit in control.items()})
        for site in SITES:
            torch.testing.assert_close(edited[site], plain[site])  # recording changes nothing
            torch.testing.assert_close(seen[site], moves[site], atol=1e-5, rtol=1e-5)
            assert moves[site].abs().max() > 0.05
            assert not moves[site][~batch.content_mask].any()
            assert abs(float(other[site] @ directions[site])) < 0.6

    def test_typical_distances_are_root_mean_squares_of_the_passes_made_by_hand(
        self, llama: HookedModel, directions: Directions
    ) -> None:
        edits = {site: ProjectOut(directions[site]) for site in SITES[:2]}
        found = typical_distances(llama, TEXTS, edits, directions, batch_size=3)
        first, second = [], []
        for text in TEXTS:
            batch = llama.tokenize([text])
            with torch.no_grad():
                first += (llama.run(batch, SITES[:1])[SITES[0]][0, 1:] @ directions[SITES[0]]).tolist()
                trace = llama.run(batch, SITES[1:2], {SITES[0]: edits[SITES[0]]})
                second += (trace[SITES[1]][0, 1:] @ directions[SITES[1]]).tolist()
        assert found[SITES[0]] == pytest.approx(np.sqrt(np.mean(np.square(first))), rel=1e-4)
        assert found[SITES[1]] == pytest.approx(np.sqrt(np.mean(np.square(second))), rel=1e-4)


class TestNextTokens:
    def test_measures_equal_passes_made_by_hand(self, model: HookedModel, directions: Directions) -> None:
        config = EffectsConfig((Intervention("project_out"),), layers="both", n_random=1, batch_size=3)
        frame = next_token_effects(model, TEXTS, directions, config, tokens=[5, "ran"], completions=COMPLETIONS)
        ids = sorted({5, model.tokenizer.convert_tokens_to_ids("ran")})
        for place, sites in [*((str(site), [site]) for site in SITES), ("all", SITES)]:
            edits = {site: ProjectOut(directions[site]) for site in sites}
            kl, variation, follow = [], [], []
            for text in TEXTS:
                p, q = last_logits(model, text).softmax(-1), last_logits(model, text, edits).softmax(-1)
                kl.append(float((p * (p.log() - q.log())).sum()))
                variation.append(float((p - q).abs().sum() / 2))
                follow.append(float(q[ids].sum().log() - p[ids].sum().log()))
            found = pick(frame, site=place, control="direction")
            assert value_of(found, measure="kl") == pytest.approx(np.mean(kl), rel=1e-3)
            assert value_of(found, measure="total_variation") == pytest.approx(np.mean(variation), rel=1e-3)
            assert value_of(found, measure="token_set_log_probability") == pytest.approx(np.mean(follow), rel=1e-2)
            assert np.mean(kl) > 1e-5
            per_token = [kl_of_completion(model, *pair, edits) for pair in zip(TEXTS, COMPLETIONS, strict=True)]
            assert value_of(found, measure="completion_kl") == pytest.approx(np.mean(per_token), rel=1e-3)

    def test_a_planted_direction_does_more_than_its_size(self, llama: HookedModel) -> None:
        token = llama.tokenizer.convert_tokens_to_ids("hill")
        with torch.no_grad():
            llama.hf.model.norm.weight.fill_(1)
            llama.hf.lm_head.weight[token] = 4 * unit(5)
        config = EffectsConfig((Intervention("add", 0.5, "norm"),), n_random=3)
        frame = next_token_effects(llama, TEXTS, Directions({LAST: unit(5)}), config, tokens=["hill"])
        rows = pick(frame, measure="token_set_log_probability")
        assert value_of(rows, control="direction") > 1
        assert float(pick(rows, control="difference")["low"].iloc[0]) > 0.5
        random = pick(rows, control="random")
        assert len(random) == 3 and random["seed"].tolist() == [0, 1, 2] and random["mean"].nunique() == 3
        difference = value_of(rows, control="direction") - random["mean"].mean()
        assert value_of(rows, control="difference") == pytest.approx(difference)
        moved = pick(frame, measure="distance")
        assert pick(moved, control="random")["mean"].tolist() == pytest.approx(
            [value_of(moved, control="direction")] * 3
        )
        assert value_of(moved, control="difference") == pytest.approx(0, abs=1e-6)

    def test_a_random_direction_does_no_more_than_random_ones(self, llama: HookedModel) -> None:
        config = EffectsConfig((Intervention("add", 0.3, "norm"),), n_random=12)
        frame = next_token_effects(llama, TEXTS * 3, Directions({SITES[0]: unit(17)}), config, groups=[0, 1, 2, 3] * 3)
        rows = pick(frame, measure="kl")
        random = pick(rows, control="random")["mean"]
        assert random.min() <= value_of(rows, control="direction") <= random.max()
        assert (rows["n"] == 4).all()

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_every_backend_gives_the_same(self, backend: str, directions: Directions, tokenizer: object) -> None:
        config = EffectsConfig((Intervention("clamp", 2.0),), n_random=1, n_resamples=50)
        expected = next_token_effects(HookedModel(make_hf("llama"), tokenizer), TEXTS, directions, config)
        found = next_token_effects(HookedModel(make_hf("llama"), tokenizer, backend), TEXTS, directions, config)
        pd.testing.assert_frame_equal(found, expected, atol=1e-5, rtol=1e-3)
        assert pick(expected, measure="kl", control="direction")["mean"].max() > 1e-4

    def test_one_site_has_no_all_and_layers_are_chosen(self, llama: HookedModel, directions: Directions) -> None:
        quick = (Intervention("project_out"),)

        def sites(config: EffectsConfig, part: Directions) -> list[str]:
            return list(dict.fromkeys(next_token_effects(llama, TEXTS, part, config)["site"]))

        names = [str(site) for site in SITES]
        assert sites(EffectsConfig(quick, n_random=1, n_resamples=10), directions) == [*names, "all"]
        assert sites(EffectsConfig(quick, "each", n_random=1, n_resamples=10), directions) == names
        assert sites(EffectsConfig(quick, "all", n_random=1, n_resamples=10), directions) == ["all"]
        for layers in ("each", "all", "both"):
            config = EffectsConfig(quick, layers, n_random=1, n_resamples=10)
            assert sites(config, directions.at([LAST])) == [str(LAST)]

    def test_refusals(self, llama: HookedModel, directions: Directions) -> None:
        config = EffectsConfig((Intervention("project_out"),), n_random=1)
        with pytest.raises(ConfigError, match="at least two groups or rows"):
            next_token_effects(llama, TEXTS[:1], directions, config)
        with pytest.raises(ConfigError, match="is 2 tokens"):
            next_token_effects(llama, TEXTS, directions, config, tokens=["the cat"])
        with pytest.raises(ConfigError, match="tokens: expected ids"):
            next_token_effects(llama, TEXTS, directions, config, tokens=[9999])
        with pytest.raises(SiteError, match="not in the residual stream"):
            next_token_effects(llama, TEXTS, Directions({Site(0, "z"): unit(0)}), config)
        with pytest.raises(ConfigError, match="is 8 wide"):
            next_token_effects(llama, TEXTS, Directions({LAST: torch.ones(8)}), config)
        llama.tokenizer.bos_token = None
        with pytest.raises(DataError, match="prompt 1 has no tokens, not even a BOS"):
            next_token_effects(llama, ["the", ""], directions, config, completions=["cat", "dog"])
        llama.tokenizer.bos_token = "<s>"


def length_judge(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def written(model: HookedModel) -> list[str]:
    return continuation_texts(model, sample_rows(model, TEXTS, 4, seed=0, batch_size=64, progress=False))


class TestGenerations:
    quick = EffectsConfig((Intervention("project_out"),), "each", n_random=1, max_new_tokens=4, n_resamples=50)

    @pytest.mark.skipif("INTERP_UNLEARN_DATA" not in os.environ, reason="real data is not there")
    def test_what_is_scored_are_the_tokens_that_were_written(self) -> None:
        """A tokenizer that writes a space before every text, so that a continuation alone has another first token."""
        model = HookedModel.from_pretrained(Path(os.environ["INTERP_UNLEARN_DATA"]) / "models" / "stories260K")
        prompts = ["Once upon a time", "The little dog", "Lily was"]
        directions = Directions({Site(1, "resid_post"): torch.ones(model.d_model)})
        frame = generation_effects(model, prompts, directions, length_judge, self.quick)
        rows = sample_rows(model, prompts, 4, seed=0, batch_size=64, progress=False)
        nll = []
        for prompt, new in rows:
            with torch.no_grad():
                logits = model.hf(torch.tensor([prompt + new])).logits[0].double().log_softmax(-1)
            nll += [-logits[len(prompt) - 1 + k, token].item() for k, token in enumerate(new)]
        expected = math.exp(sum(nll) / len(nll))
        assert value_of(frame, intervention="none", measure="perplexity") == pytest.approx(expected, rel=1e-3)

    def test_rows_are_those_of_texts_generated_by_hand(self, llama: HookedModel, directions: Directions) -> None:
        part = directions.at([SITES[1]])
        frame = generation_effects(llama, TEXTS, part, length_judge, self.quick)
        plain = written(llama)
        with llama.edited({SITES[1]: ProjectOut(part[SITES[1]])}):
            edited = written(llama)
        assert plain != edited
        assert value_of(frame, intervention="none", measure="score") == np.mean([len(text) for text in plain])
        found = pick(frame, intervention="project_out", control="direction")
        assert value_of(found, measure="score") == np.mean([len(text) for text in edited])
        expected = perplexity(llama, TEXTS, [text or "</s>" for text in edited])
        assert value_of(found, measure="perplexity") == pytest.approx(expected, rel=1e-4)
        assert pick(frame, intervention="none")["control"].tolist() == ["plain", "plain"]

    def test_verdicts_become_shares_that_sum_to_one(self, llama: HookedModel, directions: Directions) -> None:
        def judge(prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
            return ["long" if len(text) > 15 else "short" for text in texts]

        frame = generation_effects(llama, TEXTS * 5, directions.at([LAST]), judge, self.quick, groups=[0, 1, 2, 3] * 5)
        shares = frame[frame["measure"].str.startswith("share_") & (frame["control"] != "difference")]
        assert set(shares["measure"]) == {"share_long", "share_short"}
        totals = shares.groupby(["intervention", "control"])["mean"].sum()
        assert totals.tolist() == pytest.approx([1.0] * 3)
        assert 0 < value_of(shares, intervention="none", measure="share_long") < 1
        assert (frame["n"] == 4).all()
        differences = pick(frame, control="difference")
        assert (differences["low"] <= differences["mean"]).all() and (differences["mean"] <= differences["high"]).all()

    def test_a_planted_direction_writes_its_token_and_random_ones_do_not(self, llama: HookedModel) -> None:
        token = llama.tokenizer.convert_tokens_to_ids("hill")
        with torch.no_grad():
            llama.hf.model.norm.weight.fill_(1)
            llama.hf.lm_head.weight[token] = 4 * unit(5)

        def judge(prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
            return ["hill" if text.split().count("hill") >= 3 else "other" for text in texts]

        config = EffectsConfig((Intervention("add", 3.0, "norm"),), n_random=2, max_new_tokens=4)
        frame = causal_effects(llama, TEXTS, Directions({LAST: unit(5)}), config, judge=judge, tokens=["hill"])
        share = pick(frame, measure="share_hill")
        assert value_of(share, control="direction") == 1
        assert pick(share, control="random")["mean"].max() < 1
        assert value_of(share, intervention="none") < 0.5
        assert {"kl", "token_set_log_probability", "share_hill", "perplexity"} <= set(frame["measure"])
        assert list(frame.columns) == [
            *("intervention", "strength", "unit", "site", "layer"),
            *("measure", "control", "seed", "mean", "low", "high", "n"),
        ]

    @pytest.mark.parametrize(
        ("verdicts", "message"),
        [
            ([1.0] * 3, "gave 3 verdicts for 4 texts"),
            ([float("nan"), 1.0, 1.0, 1.0], "1 numbers that are not finite"),
            ([None] * 4, "4 numbers that are not finite"),
            (["a", 1.0, "b", 2.0], "a number for each text, or a name for each"),
        ],
    )
    def test_a_judge_must_judge_every_text(
        self, llama: HookedModel, directions: Directions, verdicts: list, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            generation_effects(llama, TEXTS, directions.at([LAST]), lambda prompts, texts: verdicts, self.quick)

    def test_no_hook_survives_an_error(
        self, llama: HookedModel, directions: Directions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, seen = n_hooks(llama), []

        def failing(*args: object, **options: object) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
            seen.append(n_hooks(llama))
            if len(seen) == 2:  # the first generation is the untouched model's
                raise RuntimeError("planted")
            return [((1,), (5,))] * len(TEXTS)

        monkeypatch.setattr(continuations, "sample_rows", failing)
        with pytest.raises(RuntimeError, match="planted"):
            generation_effects(llama, TEXTS, directions, length_judge, self.quick)
        assert seen[1] > before == n_hooks(llama)
