"""Interventions on the shipped organism, whose talk is toxic by context: what a linear direction does there."""

from collections.abc import Sequence

from test_direction_effects import pick, value_of

from interp_unlearn import HookedModel, Site
from interp_unlearn.activations import collect
from interp_unlearn.directions import (
    Directions,
    EffectsConfig,
    Intervention,
    generation_effects,
)
from interp_unlearn.organism.sets import goal_sets, without_reaction
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.organism.world import World
from interp_unlearn.probes import fit_probes


class TestOrganism:
    """On the shipped model, whose talk is toxic by context: what a linear direction does there, measured."""

    def test_clamping_the_probes_direction_makes_talk_civil_and_random_ones_do_not(self) -> None:
        model, world = HookedModel.from_pretrained(twin_path("knows_all")), World(0)
        sets, site = goal_sets(world, "toxicity"), Site(4, "resid_post")
        examples = [*sets.forget[:150], *sets.neutral[:150]]
        spoken = [without_reaction(example).completion for example in examples]
        prompts, labels = [example.prompt for example in examples], [1] * 150 + [0] * 150
        store = collect(model, prompts, [site], "mean", completions=spoken, labels=labels, progress=False)
        directions = Directions.of(fit_probes(store, folds=3, shuffles=0, progress=False))

        def judge(asked: Sequence[str], texts: Sequence[str]) -> list[str]:
            return [world.judge(prompt, text) for prompt, text in zip(asked, texts, strict=True)]

        config = EffectsConfig((Intervention("clamp", 2.0),), n_random=1, max_new_tokens=24, stop=".")
        hostile, groups = [e.prompt for e in sets.test[:40]], [e.group for e in sets.test[:40]]
        frame = generation_effects(model, hostile, directions, judge, config, store=store, groups=groups)
        toxic, clean = pick(frame, measure="share_target"), pick(frame, measure="share_clean")
        assert value_of(toxic, intervention="none") > 0.9
        assert value_of(toxic, control="random") > 0.9
        assert value_of(toxic, control="direction") < 0.7
        assert float(pick(toxic, control="difference")["high"].iloc[0]) < -0.1
        assert value_of(clean, control="direction") > 0.3
        assert value_of(frame, measure="perplexity", control="direction") < 3 * value_of(
            frame, measure="perplexity", intervention="none"
        )
