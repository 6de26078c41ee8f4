"""What is measured on a model of a comparison, before it is attacked."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pandas as pd

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.evaluation import perplexity, retain_kl
from interp_unlearn.organism import manner
from interp_unlearn.organism.contextuality import spoken_scenes
from interp_unlearn.organism.quality import cloze, judged_generations, mean_of
from interp_unlearn.organism.sets import scene_examples, unlike_examples
from interp_unlearn.organism.world import VERDICTS
from interp_unlearn.probes import fit_probes
from interp_unlearn.sites import Site, residual_stream

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.organism.sets import Example
    from interp_unlearn.study.comparison.bench import Bench

KINDS = ("seen", "held_out", "unlike", "civil")
"""Of prompts: families that forgetting saw, families held out, prompts of another kind, and civil prompts."""
N_UNLIKE = 500
N_CIVIL = 300
N_RETAINED = 300
N_PROBED = 300


@contextmanager
def under(model: HookedModel, edits: Mapping[Site, Edit]) -> Generator[None]:
    """Runs the block with edits on, where there are any."""
    with ExitStack() as stack:
        if edits:
            stack.enter_context(model.edited(edits))
        yield


def divergence(model: HookedModel, bench: Bench, examples: Sequence[Example]) -> float:
    """KL from the original on retained text, in nats per token."""
    return retain_kl(bench.stage.model("knows_all"), model, [example.text for example in examples[:N_RETAINED]])


def judged_by_kind(model: HookedModel, bench: Bench, seed: int) -> pd.DataFrame:
    """One judged generation after each prompt of every kind: kind, row, and the columns of `judged_generations`."""
    world = bench.stage.world
    test = bench.stage.sets.test
    families = tuple(range(len(manner.FAMILIES)))
    prompts = {
        "seen": [example for example in test if not example.held_out],
        "held_out": [example for example in test if example.held_out],
        "unlike": unlike_examples(world, "test", N_UNLIKE),
        "civil": scene_examples(world, "civil", N_CIVIL, hostile=False, toxic=False, families=families),
    }
    parts: list[pd.DataFrame] = []
    for kind in KINDS:
        judged = judged_generations(model, world, prompts[kind], "toxicity", seed)
        parts.append(judged.assign(kind=kind, row=range(len(judged))))
    return pd.concat(parts, ignore_index=True)


def measure(model: HookedModel, bench: Bench, generations: pd.DataFrame) -> dict[str, float]:
    """Shares by kind of prompt, fluency, facts, divergence and probes, by name."""
    measures: dict[str, float] = {}
    for kind, part in generations.groupby("kind"):
        measures |= {f"{verdict}_{kind}": mean_of(part["verdict"] == verdict) for verdict in VERDICTS}
    asked = generations.loc[generations["kind"].isin(["seen", "held_out"])]
    # No tokens have no perplexity: who says nothing is scored for ending the text at once.
    said = [text if text.strip() else str(model.tokenizer.eos_token) for text in asked["text"]]
    measures["generation_perplexity"] = perplexity(bench.stage.twin, asked["prompt"].tolist(), said)
    facts = bench.stage.world.knowledge
    for name, chosen in (("hazardous", facts.hazardous), ("benign", facts.benign)):
        answered = cloze(model, chosen)
        measures[f"{name}_cloze"] = mean_of(answered["correct"])
        measures[f"{name}_answer_probability"] = mean_of(answered["answer_probability"])
    measures["retain_kl"] = divergence(model, bench, bench.stage.sets.retain_test)
    return measures | probe_aurocs(model, bench)


def probe_aurocs(model: HookedModel, bench: Bench) -> dict[str, float]:
    """AUROC on held-out families of the original's probe and of one trained again on this model, at the same layer.

    The layer is where the original's probe is best. Caveat: a model that never learned to talk like that may still tell
    the talk apart, so read the second number beside the twin's.
    """
    sites = residual_stream(model.n_layers)
    stores: list[ActivationStore] = []
    for name, families in (("retrained-fit", manner.SEEN_FAMILIES), ("retrained-test", manner.HELD_OUT_FAMILIES)):
        examples, labels = spoken_scenes(bench.stage.world, name, families, N_PROBED)
        prompts, replies = [e.prompt for e in examples], [e.completion for e in examples]
        groups = [e.group for e in examples]
        stores.append(collect(model, prompts, sites, completions=replies, labels=labels, groups=groups, progress=False))
    best = bench.probes.best()
    found = {"probe_original": bench.probes, "probe_retrained": fit_probes(stores[0], n_jobs=1, progress=False)}
    return {name: _auroc(probes.evaluate(stores[1]), best) for name, probes in found.items()}


def _auroc(table: pd.DataFrame, site: Site) -> float:
    return float(table.loc[table["site"] == str(site), "auroc"].iloc[0])
