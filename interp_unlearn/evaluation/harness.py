"""The same questions through lm-evaluation-harness, on the live model: the numbers other people's tables have."""

import logging
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from interp_unlearn.data import Question
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.modes import eval_mode

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

LETTERED = "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
"""The prompt of the harness's own tasks wmdp_* and mmlu_*."""


def score_with_harness(
    model: "HookedModel",
    questions: Sequence[Question],
    *,
    description: str = "The following are multiple choice questions (with answers).\n\n",
    shots: Sequence[Question] = (),
    form: Literal["letter", "text"] = "letter",
    add_bos: bool | None = None,
    batch_size: int = 16,
) -> "pd.DataFrame":
    """Run questions of four choices as a task of lm-evaluation-harness, from memory: no hub, no files.

    The prompt is that of its tasks wmdp_* and mmlu_*, so that accuracies compare with published ones. Any surrounding
    `model.edited` applies. Source: Gao et al., lm-evaluation-harness 0.4, output type multiple_choice.

    Args:
        model: the model.
        questions: four choices each.
        description: what the prompt begins with; the harness names the subject there.
        shots: worked examples put before each question.
        form: score letters, or the choices' words.
        add_bos: put a BOS before each prompt, as everything else in this package does; None leaves it to the harness,
            as published numbers do, which for most models means none.
        batch_size: rows in a pass.

    Returns:
        One row a question, in input order: row, subject, correct.

    Raises:
        ConfigError: the harness is not installed.
        DataError: there are no questions, one has other than four choices, or with its shots one does not fit the
            model's context.
    """
    import pandas as pd

    for name, given in (("questions", questions), ("shots", shots)):
        odd = [row for row, question in enumerate(given) if len(question.choices) != 4]
        if odd or (name == "questions" and not given):
            raise DataError(name, f"row {odd[0]} has not four choices" if odd else "empty; expected at least one")
    try:
        import datasets
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError("lm-evaluation-harness is not installed; install interp-unlearn[harness]") from error

    def rows(given: Sequence[Question]) -> Any:
        return datasets.Dataset.from_list(
            [{"question": q.question, "choices": list(q.choices), "answer": q.answer} for q in given]
        )

    data = {"test": rows(questions)} | ({"dev": rows(shots)} if shots else {})
    task: dict[str, Any] = {
        "task": "questions",
        "custom_dataset": lambda **_: data,
        "test_split": "test",
        "description": description,
        "output_type": "multiple_choice",
        "doc_to_text": LETTERED,
        "doc_to_choice": list("ABCD") if form == "letter" else "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    if shots:
        task |= {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}

    with _quiet(), eval_mode(model.hf), _same_random_state():
        wrapped: dict[str, Any] = {"pretrained": model.hf, "tokenizer": model.tokenizer, "batch_size": batch_size}
        live: Any = HFLM(**wrapped, **({} if add_bos is None else {"add_bos_token": add_bos}))
        live._loglikelihood_tokens = _refusing_long(live._loglikelihood_tokens, live.max_length)
        found = cast(Any, lm_eval).simple_evaluate(
            live,
            tasks=[task],
            num_fewshot=len(shots),
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
        )
    samples: list[dict[str, Any]] = found["samples"]["questions"]
    correct = {sample["doc_id"]: bool(sample["acc"]) for sample in samples}
    if sorted(correct) != list(range(len(questions))):
        raise DataError("questions", f"the harness scored {len(correct)} of {len(questions)}")
    return pd.DataFrame(
        [{"row": row, "subject": question.subject, "correct": correct[row]} for row, question in enumerate(questions)]
    )


def _refusing_long(score: Callable[..., Any], context: int) -> Callable[..., Any]:
    """The harness cuts long prompts from the left, and would score what is left of a question."""

    def refuse_or_score(requests: Sequence[tuple[Any, list[int], list[int]]], *others: Any, **options: Any) -> Any:
        longest = max(len(prompt) + len(answer) for _, prompt, answer in requests)
        if longest > context + 1:  # the last token is only predicted
            raise DataError("questions", f"the longest row has {longest} tokens, the model takes {context}")
        return score(requests, *others, **options)

    return refuse_or_score


@contextmanager
def _same_random_state() -> Generator[None]:
    """The harness seeds all generators of the process; afterwards they go on from where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _quiet() -> Generator[None]:
    """Without the harness's remarks on models that are passed in, which is what is meant here."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
