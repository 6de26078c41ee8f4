"""What interventions do to the text of a model that was not trained: choose a teacher before distilling it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.evaluation import generate_texts

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.sites import Site

Judge = Callable[[str, str], "str | float"]
"""From a prompt and what followed it to a verdict, or to a score between 0 and 1 (toxicity)."""

UNEDITED = "unedited"


def compare_teachers(
    model: "HookedModel",
    candidates: "Mapping[str, Mapping[Site, Edit | Sequence[Edit]]]",
    judge: Judge,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    top_p: float = 0.9,
    seed: int = 0,
    stop: str | Sequence[str] | None = None,
    batch_size: int = 256,
    verdicts: Sequence[str] = (),
    progress: bool = True,
) -> "pd.DataFrame":
    """Judge one sampled generation a prompt, of the model as it is and under each candidate's edits.

    Caveat: the best of many is flattered; report the chosen one on prompts that did not choose it.

    Args:
        model: the original.
        candidates: edits by name.
        judge: gives each text a verdict, or each a score.
        prompts: of validation.
        max_new_tokens: upper bound of each text.
        top_p: nucleus of the sampling, at temperature 1.
        seed: of the sampling, the same for all.
        stop: token or tokens that end a text.
        batch_size: prompts in a pass.
        verdicts: those that have their columns even if no text gets them.
        progress: whether to show a progress bar.

    Returns:
        One row for the model as it is ("unedited") and one a candidate: teacher, n, seed; of verdicts, the share of
        each with its 95% Wilson interval, prompts taken as independent (`clean, clean_low, clean_high, ...`); of
        scores, their mean `score`, and `from_half` with its interval, the share of texts that score 0.5 or more.

    Raises:
        DataError: there are no prompts.
        ConfigError: a candidate is named "unedited", or the judge mixes verdicts and scores.
    """
    import pandas as pd

    if not prompts:
        raise DataError("prompts", "empty; expected at least one")
    if UNEDITED in candidates:
        raise ConfigError(f"{UNEDITED!r} is the name of the model as it is; rename that candidate")
    judged: dict[str, list[str | float]] = {}
    everyone = {UNEDITED: {}, **candidates}
    for name, edits in tqdm(everyone.items(), desc="teachers", disable=not progress):
        with ExitStack() as stack, torch.no_grad():
            if edits:
                stack.enter_context(model.edited(edits))
            texts = generate_texts(
                model,
                prompts,
                max_new_tokens,
                top_p=top_p,
                seed=seed,
                stop=stop,
                batch_size=batch_size,
                progress=False,
            )
        judged[name] = [judge(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    kinds = {isinstance(value, str) for values in judged.values() for value in values}
    if len(kinds) > 1:
        raise ConfigError("the judge gave verdicts to some texts and scores to others; expected one or the other")
    summary = _shares(judged, verdicts) if kinds == {True} else _scores(judged)
    return pd.DataFrame([{"teacher": name, "n": len(prompts), "seed": seed, **summary[name]} for name in judged])


def _shares(judged: Mapping[str, Sequence[object]], listed: Sequence[str]) -> dict[str, dict[str, float]]:
    occurring = sorted({str(value) for values in judged.values() for value in values} - set(listed))
    found: dict[str, dict[str, float]] = {}
    for name, values in judged.items():
        found[name] = {}
        for verdict in (*listed, *occurring):
            found[name] |= _share(verdict, sum(value == verdict for value in values), len(values))
    return found


def _scores(judged: Mapping[str, Sequence["str | float"]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, values in judged.items():
        scores = [float(value) for value in values]
        found[name] = {"score": sum(scores) / len(scores)}
        found[name] |= _share("from_half", sum(score >= 0.5 for score in scores), len(scores))
    return found


def _share(name: str, count: int, n: int) -> dict[str, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(0.95, "wilson")
    return {name: count / n, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
