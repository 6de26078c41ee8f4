"""What the package's figures show, in a sentence: under the figure, and for who cannot see it."""

_CAPTIONS = {
    "dissociation": "What free generations are after unlearning, by objective and goal: clean, target or broken",
    "relearning": "Target share of free generations against steps of relearning, by objective and goal",
    "drift": "How far activations moved from the original's, by layer, on target and on retained texts",
    "relearning_excess": "Target share after relearning above that of the twin under the same attack, by steps",
    "probe_auroc": "AUROC of the probes by layer, beside their controls",
    "probe_auroc_knowledge": "AUROC by layer of the probes for knowledge, beside their controls",
    "probe_auroc_toxicity": "AUROC by layer of the probes for toxicity, beside their controls",
    "token_heatmap": "What the probes read at every token of the texts",
    "promoted_tokens": "Tokens that the directions promote through the unembedding",
    "value_vectors": "Value vectors of the MLPs aligned with the directions, by layer",
    "cosines": "Cosines between the directions of the layers",
    "replication": "Differences of efficacy between the two kinds of target, organism by organism",
    "curves": "Score against steps of each attack that trains, by setting",
    "subspace_rank": "How many dimensions the directions of the categories span, by layer",
    "attacks": "Share of the gap to the original that each attack brings back, by method and goal",
    "dissection": "Which changed tensors carry the effect, how many directions it takes, and what should be nothing",
    "methods": "Cosine between the changes of the weights that every two methods make, by goal",
    "patching": "Effect of another model's states on the answer, beside a re-seeded original's, by layer and position",
    "sensitivity": "Differences of efficacy between the two kinds of target, with other settings one at a time",
    "spectrum": "Dimensions that the displacement takes, and the share of its first, by layer",
    "cka": "Similarity of the two models' representations by layer, beside its null",
    "angles": "Principal angles between subspaces by layer, beside random ones",
    "logit_lens": "Log-probability of the answer read from each layer, before and after",
    "tuned_lens": "Log-probability of the answer read from each layer by a trained lens, before and after",
    "weight_delta": "How much each layer's tensors changed, and over how many directions",
    "unlearning_depth": "Score that patched states of the twin and of the unlearned model cost the original, by layer",
    "retrained_probes": "AUROC by layer of probes before, after, and trained anew",
    "transfer": "AUROC of each category's probes on the other categories",
    "transfer_by_layer": "AUROC of each category's probes on the other categories, by layer",
}


def caption_of(stem: str) -> str:
    """What a figure of this file name shows; one that is not known is called by its name."""
    if stem.startswith("effect_"):
        measure = stem.removeprefix("effect_").replace("_", " ")
        return f"What interventions along the direction cause, by layer, beside random directions: {measure}"
    if stem.startswith("dissection_"):
        return f"{_CAPTIONS['dissection']}: {stem.removeprefix('dissection_').replace('_', ' ')}"
    for measure in ("unlearning_depth", "spectrum", "logit_lens", "cka"):
        if stem.startswith(f"{measure}_"):
            goal, _, method = stem.removeprefix(f"{measure}_").partition("_")
            return f"{_CAPTIONS[measure]}: {method.replace('_', ' ')} on {goal}"
    return _CAPTIONS.get(stem, f"Figure {stem.replace('_', ' ')}")
