"""One set of questions in several forms: what a model knows must not depend on how it is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.data import Question
from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation.free_answers import answer_freely
from interp_unlearn.evaluation.multiple_choice import TEMPLATE, fill_template, score_questions
from interp_unlearn.interventions.buckets import token_rows
from interp_unlearn.models.encoding import encode_continuations
from interp_unlearn.statistics import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

Form = Literal["text", "letter", "choices_only", "generation"]
FORMS: tuple[Form, ...] = get_args(Form)
WITH_CHOICES = "{question}\n{choices}\nAnswer:"
CHOICES_ONLY = "{choices}\nAnswer:"


@dataclass(frozen=True, eq=False)
class ExamResult:
    """Answers of one model.

    Attributes:
        answers: one row a form and question: form, row, subject, correct, and answer_probability (of the right choice
            among the choices; missing for generation) or verdict (of generation alone).
        forms: asked.
        model_hash: of the weights that answered.
    """

    answers: "pd.DataFrame"
    forms: tuple[Form, ...]
    model_hash: str

    def to_frame(self) -> "pd.DataFrame":
        """The summary: form, subject ("all" for every one), accuracy with its 95% bootstrap interval, chance, n.

        Chance is what guessing among four would give, or one in as many choices as there are; 0 for generation. Where
        questions share a subject they still count as independent here.
        """
        import pandas as pd

        rows: list[dict[str, object]] = []
        for form in self.forms:
            asked = self.answers.loc[self.answers["form"] == form]
            subjects = [("all", asked), *((str(name), part) for name, part in asked.groupby("subject", sort=True))]
            for subject, part in subjects if len(subjects) > 2 else subjects[:1]:
                found, chance = (np.asarray(part[column], dtype=float) for column in ("correct", "chance"))
                interval = bootstrap_mean(found) if len(found) > 1 else None
                rows.append(
                    {
                        "form": form,
                        "subject": subject,
                        "accuracy": float(found.mean()),
                        "low": None if interval is None else interval.low,
                        "high": None if interval is None else interval.high,
                        "chance": float(chance.mean()),
                        "n": len(part),
                    }
                )
        return pd.DataFrame(rows)

    def save(self, folder: str | Path) -> None:
        """Write answers.parquet, summary.parquet and exam.json into a folder."""
        folder = Path(folder)
        write_parquet(folder / "answers.parquet", self.answers)
        write_parquet(folder / "summary.parquet", self.to_frame())
        write_json(
            folder / "exam.json", {"forms": self.forms, "model_hash": self.model_hash, "environment": environment()}
        )


def take_exam(
    model: "HookedModel",
    questions: Sequence[Question],
    forms: Sequence[Form] = FORMS,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 32,
    progress: bool = False,
) -> ExamResult:
    """Ask the same questions in several forms.

    "text" scores the choices' words after the question; "letter" their letters after question and choices, as WMDP and
    MMLU are published; "choices_only" the letters after the choices without the question: what can be told from them
    alone, so that accuracy there is the floor and not one in four; "generation" lets the model speak after the
    question and looks for a choice in what it says.

    Args:
        model: the model, under any surrounding edits.
        questions: with their choices.
        forms: those asked.
        batch_size: rows in a pass.
        max_new_tokens: most tokens of a free answer.
        progress: whether to show progress bars.

    Raises:
        ConfigError: there is no such form.
        DataError: there are no questions, or one is longer than the context (`fitting_questions` leaves those out).
    """
    import pandas as pd

    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms:
        raise ConfigError(f"no form {', '.join(unknown) or '(none given)'}; expected of {', '.join(FORMS)}")
    templates: dict[Form, tuple[str | Callable[[Question], str], bool]] = {
        "text": (TEMPLATE, False),
        "letter": (WITH_CHOICES, True),
        "choices_only": (CHOICES_ONLY, True),
    }
    tables: list[pd.DataFrame] = []
    for form in forms:
        if form == "generation":
            table = _free(model, questions, batch_size, max_new_tokens, progress)
        else:
            template, letters = templates[form]
            table = score_questions(
                model, questions, template, letters=letters, batch_size=batch_size, progress=progress
            )[["row", "subject", "correct", "answer_probability"]]
            table["chance"] = [1 / len(question.choices) for question in questions]
        tables.append(table.assign(form=form))
    return ExamResult(pd.concat(tables, ignore_index=True), tuple(forms), model.hash())


def fitting_questions(
    model: "HookedModel", questions: Sequence[Question], max_new_tokens: int = 32
) -> tuple[Question, ...]:
    """The questions that fit into a model's context in every form.

    Caveat: accuracies over what one model can read are not those of the whole benchmark; state how many are left, and
    ask models that are compared the questions that the one with the smallest context can read.

    Args:
        model: whose context and tokenizer count.
        questions: with their choices.
        max_new_tokens: most tokens of a free answer.
    """
    limit = model.architecture.context_length
    if limit is None:
        return tuple(questions)
    shown = token_rows(model, [fill_template(WITH_CHOICES, question) for question in questions])
    asked = token_rows(model, [fill_template(TEMPLATE, question) for question in questions])
    kept: list[Question] = []
    for question, with_choices, alone in zip(questions, shown, asked, strict=True):
        choices = encode_continuations(model.tokenizer, [f" {choice}" for choice in question.choices])
        longest = max(len(ids) for ids in choices)
        if max(len(with_choices) + 1, len(alone) + max(longest, max_new_tokens)) <= limit:
            kept.append(question)
    return tuple(kept)


def _free(
    model: "HookedModel", questions: Sequence[Question], batch_size: int, max_new_tokens: int, progress: bool
) -> "pd.DataFrame":
    found = answer_freely(
        model,
        [TEMPLATE.format(question=question.question) for question in questions],
        [question.choices[question.answer] for question in questions],
        [[c for i, c in enumerate(question.choices) if i != question.answer] for question in questions],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    correct = found["verdict"] == "right"
    subjects = [question.subject for question in questions]
    return found[["row", "verdict"]].assign(subject=subjects, correct=correct, chance=0.0)
