"""What the generations are like as text: empty, fluent, varied, repetitive. Toxicity is read beside it."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from interp_unlearn.evaluation.diversity import distinct, repetition, split_words
from interp_unlearn.evaluation.toxicity_measures import intervals, prompt_sets

if TYPE_CHECKING:
    import pandas as pd

ORDERS = (1, 2, 3)


def text_quality_table(generations: "pd.DataFrame", *, resamples: int = 2000, seed: int = 0) -> "pd.DataFrame":
    """Measures of the texts, toxic and nontoxic prompts apart.

    | measure | what |
    |---|---|
    | empty_fraction | share of generations without text |
    | words | mean words of a generation |
    | perplexity | under the judge, given the prompt, all tokens of all generations weighing the same |
    | dist_1, dist_2, dist_3 | distinct n-grams per word among a prompt's continuations, mean over prompts |
    | dist_1_overall, ... | the same over all generations together; depends on how many there are |
    | repetition_4 | share of repeated 4-grams within a generation, mean over those of at least four words |

    n-grams are of words split at white space.

    Args:
        generations: columns row, prompt_toxicity, text, and with a judge judge_nll and judge_tokens.
        resamples: of the 95% bootstrap intervals over prompts.
        seed: of the resampling.

    Returns:
        One row a set of prompts and measure: prompts, measure, value, low, high, n_prompts (those it is defined on),
        n_generations. Intervals are NaN for the overall measures and with one prompt.
    """
    import pandas as pd

    words = [split_words(text) for text in generations["text"].tolist()]
    _, first, prompt = np.unique(generations["row"].to_numpy(), return_index=True, return_inverse=True)
    toxicity = generations["prompt_toxicity"].to_numpy(dtype=float)[first]
    ratios = _ratios(generations, words, prompt)
    rows: list[dict[str, object]] = []
    for name, members in prompt_sets(toxicity).items():
        inside = members[prompt]
        for measure, columns in ratios.items():
            defined = columns[members & columns[:, 1].astype(bool)]
            if not len(defined):
                continue  # no text of this set was long enough
            function = _perplexity if measure == "perplexity" else _ratio
            found = intervals(defined, {measure: function}, resamples, seed)[measure]
            numbers = {"value": found.mean, "low": found.low, "high": found.high, "n_prompts": found.n}
            rows.append({"prompts": name, "measure": measure, **numbers, "n_generations": int(inside.sum())})
        texts = [text for text, chosen in zip(words, inside, strict=True) if chosen]
        for n in ORDERS:
            numbers = {"value": distinct(texts, n), "low": np.nan, "high": np.nan, "n_prompts": int(members.sum())}
            rows.append({"prompts": name, "measure": f"dist_{n}_overall", **numbers, "n_generations": len(texts)})
    return pd.DataFrame(rows)


def _ratios(generations: "pd.DataFrame", words: list[list[str]], prompt: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure as two columns ``[prompt, 2]`` whose means are divided; the second is 0 where it is undefined."""

    def by_prompt(values: ArrayLike) -> np.ndarray:
        return np.bincount(prompt, weights=np.asarray(values, dtype=float))

    repeated = np.array([repetition(text) for text in words])
    lengths, generated = by_prompt([len(text) for text in words]), by_prompt(np.ones(len(words)))
    continuations: list[list[list[str]]] = [[] for _ in generated]
    for index, text in zip(prompt, words, strict=True):
        continuations[index].append(text)
    pairs = {"empty_fraction": (by_prompt([not text for text in words]), generated), "words": (lengths, generated)}
    if "judge_nll" in generations:
        pairs["perplexity"] = (by_prompt(generations["judge_nll"]), by_prompt(generations["judge_tokens"]))
    for n in ORDERS:
        values = [distinct(texts, n) for texts in continuations]
        pairs[f"dist_{n}"] = (np.array(values), np.sign(lengths))
    pairs["repetition_4"] = (by_prompt(np.nan_to_num(repeated)), by_prompt(~np.isnan(repeated)))
    return {measure: np.stack(columns, axis=1) for measure, columns in pairs.items()}


def _ratio(means: np.ndarray) -> np.ndarray:
    return means[..., 0] / means[..., 1]


def _perplexity(means: np.ndarray) -> np.ndarray:
    return np.exp(_ratio(means))
