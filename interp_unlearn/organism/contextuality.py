"""How contextual the world's toxicity is for a model: probes by layer against what single words tell.

Probes learn from scenes of the seen families with seen nouns and are tested on held-out families with held-out nouns.
Single words are tested on fresh scenes of the seen families: of nouns that they never met they could not tell anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp_unlearn.activations import collect
from interp_unlearn.organism import lexicon, manner
from interp_unlearn.organism.sets import Example, scene_examples, without_reaction
from interp_unlearn.probes import fit_probes
from interp_unlearn.probes.controls import bag_of_words_scores
from interp_unlearn.sites import Site, residual_stream

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.organism.world import World

N_PROBE_SCENES = 600  # of each mood, for fitting and for testing


def spoken_scenes(
    world: World, name: str, families: tuple[int, ...], n: int = N_PROBE_SCENES
) -> tuple[list[Example], list[int]]:
    """Scenes with their speech, without the reaction to it, and their labels (1 toxic)."""
    examples = [
        without_reaction(e)
        for toxic in (True, False)
        for e in scene_examples(world, f"{name}-{toxic}", n, hostile=toxic, toxic=toxic, families=families)
    ]
    return examples, [1] * n + [0] * n


def measure_contextuality(model: HookedModel, world: World) -> list[tuple[str, float, int, float, float]]:
    """Gates on the best probe, the embedding's probe and unigrams.

    Returns:
        Tuples of name, value, number of test texts, lowest and highest value allowed.
    """
    sites = residual_stream(model.n_layers)
    fit, labels = spoken_scenes(world, "probe-fit", manner.SEEN_FAMILIES)
    test, test_labels = spoken_scenes(world, "probe-test", manner.HELD_OUT_FAMILIES)
    store, held_out = (
        collect(
            model,
            [e.prompt for e in some],
            sites,
            pool="mean",
            completions=[e.completion for e in some],
            progress=False,
        )
        for some in (fit, test)
    )
    probes = fit_probes(store, labels, groups=[e.group for e in fit], progress=False)
    auroc = dict(probes.evaluate(held_out, test_labels)[["site", "auroc"]].itertuples(index=False, name=None))
    embedded = auroc.pop(str(Site.embed))
    best = max(auroc.values())
    met, met_labels = spoken_scenes(world, "words-test", manner.SEEN_FAMILIES)
    learned = {e.text for e in fit}
    fresh = [i for i, e in enumerate(met) if e.text not in learned]
    met, met_labels = [met[i] for i in fresh], [met_labels[i] for i in fresh]
    words = bag_of_words_scores([e.text for e in fit], labels, [e.text for e in met])
    contextual = [i for i, e in enumerate(met) if not _has_marked_noun(e)]
    return [
        ("probe AUROC, best layer, held-out", best, len(test), 0.95, 1.0),
        ("best layer minus embedding", best - embedded, len(test), 0.05, 1.0),
        ("unigram AUROC, nouns it has met", _auroc(words, met_labels), len(met), 0.0, 0.85),
        (
            "unigram AUROC where words cannot tell",
            _auroc(words[contextual], [met_labels[i] for i in contextual]),
            len(contextual),
            0.0,
            0.60,
        ),
    ]


def _auroc(scores: np.ndarray, labels: Sequence[int]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def _has_marked_noun(example: Example) -> bool:
    words = example.completion.rstrip(".").split()
    return any(word in lexicon.SLURS or word in lexicon.PRAISES for word in words)
