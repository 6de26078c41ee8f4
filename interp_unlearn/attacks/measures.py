"""The measures that the package's evaluation offers, item by item: cloze, multiple choice, facts, completions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float

from interp_unlearn.attacks.prompted_measure import PromptedMeasure
from interp_unlearn.data import FactQuestion, Question
from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation import answer_freely, continuation_nll, score_answers, score_questions, token_nll
from interp_unlearn.evaluation.exam import WITH_CHOICES
from interp_unlearn.evaluation.free_answers import words
from interp_unlearn.evaluation.multiple_choice import LETTERS, TEMPLATE, fill_template

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

QuestionForm = Literal["text", "text_after_choices", "letter"]
QUESTION_FORMS: tuple[QuestionForm, ...] = get_args(QuestionForm)
"""The choices' words scored after the question alone, or after question and choices; or their letters after both."""

CHOICE_SCORES = ("correct", "answer_probability")
COMPLETION_SCORES = ("log_probability", "probability")
FACT_SCORES = ("probability", "rouge_l")


@dataclass(frozen=True, eq=False)
class Cloze(PromptedMeasure):
    """Whether the true answer is the likeliest of a pool ("correct"), or how likely of them all; `score_answers`.

    Attributes:
        pools: the possible answers of each prompt, with their leading space.
        answers: index of the true one in its pool.
    """

    pools: Sequence[Sequence[str]]
    answers: Sequence[int]
    score: str = field(default="correct", kw_only=True)

    @staticmethod
    def scores_offered() -> tuple[str, ...]:
        return CHOICE_SCORES

    def score_all(self, model: "HookedModel") -> Float[np.ndarray, " item"]:
        return _chosen(score_answers(model, self.prompts, self.pools, self.answers, self.batch_size), self.score)

    def followed_by(self, row: int) -> Sequence[str]:
        return self.pools[row]

    def solution(self, row: int) -> str:
        return self.pools[row][self.answers[row]]


@dataclass(frozen=True, eq=False)
class MultipleChoice(PromptedMeasure):
    """Questions with choices, by their words or letters; `score_questions`. Made by `MultipleChoice.of`.

    Caveat: many questions can be answered from the choices alone, so a model that never knew is above chance.

    Attributes:
        questions: asked after the prompts.
        form: what is shown and scored.
    """

    questions: Sequence[Question]
    form: QuestionForm = "text"
    score: str = field(default="correct", kw_only=True)

    @classmethod
    def of(
        cls,
        questions: Sequence[Question],
        form: QuestionForm = "text",
        *,
        score: str = "correct",
        by_subject: bool = False,
        batch_size: int = 64,
    ) -> "MultipleChoice":
        """Questions in one form.

        Args:
            questions: asked.
            form: what is shown and scored.
            score: "correct" or "answer_probability".
            by_subject: whether questions of one subject are resampled together; for many subjects only.
            batch_size: rows in a pass.

        Raises:
            ConfigError: there is no such form or score.
        """
        if form not in QUESTION_FORMS:
            raise ConfigError(f"no form {form!r}; expected {' or '.join(QUESTION_FORMS)}")
        template = TEMPLATE if form == "text" else WITH_CHOICES
        return cls(
            [fill_template(template, question) for question in questions],
            questions,
            form,
            score=score,
            groups=[question.subject for question in questions] if by_subject else None,
            batch_size=batch_size,
        )

    @staticmethod
    def scores_offered() -> tuple[str, ...]:
        return CHOICE_SCORES

    def in_form(self, form: QuestionForm) -> "MultipleChoice":
        """The same questions in another form."""
        other = MultipleChoice.of(self.questions, form)
        return replace(self, prompts=other.prompts, form=form)

    def score_all(self, model: "HookedModel") -> Float[np.ndarray, " item"]:
        asked = [
            replace(question, question=prompt) for question, prompt in zip(self.questions, self.prompts, strict=True)
        ]
        letters = self.form == "letter"
        found = score_questions(model, asked, "{question}", letters=letters, batch_size=self.batch_size)
        return _chosen(found, self.score)

    def followed_by(self, row: int) -> Sequence[str]:
        choices = self.questions[row].choices
        return [f" {LETTERS[i]}" for i in range(len(choices))] if self.form == "letter" else [f" {c}" for c in choices]

    def solution(self, row: int) -> str:
        return self.followed_by(row)[self.questions[row].answer]


@dataclass(frozen=True, eq=False)
class Facts(PromptedMeasure):
    """Questions answered in sentences, two of the measures of `score_facts`. Made by `Facts.of`.

    "probability" is that of the true answer, the geometric mean over its tokens; "rouge_l" how much of it is said.
    Caveat: a probability near 0 does not say what the model says instead.

    Attributes:
        facts: asked after the prompts.
        max_new_tokens: most tokens of a free answer.
    """

    facts: Sequence[FactQuestion]
    max_new_tokens: int = 64
    score: str = field(default="probability", kw_only=True)

    @classmethod
    def of(
        cls,
        facts: Sequence[FactQuestion],
        template: str = TEMPLATE,
        *,
        score: str = "probability",
        groups: Sequence[str] | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
    ) -> "Facts":
        """Facts after a template that may use {question}."""
        prompts = [template.format(question=fact.question) for fact in facts]
        return cls(prompts, facts, max_new_tokens, score=score, groups=groups, batch_size=batch_size)

    @staticmethod
    def scores_offered() -> tuple[str, ...]:
        return FACT_SCORES

    def score_all(self, model: "HookedModel") -> Float[np.ndarray, " item"]:
        answers = [fact.answer for fact in self.facts]
        nll = continuation_nll(model, self.prompts, [f" {answer}" for answer in answers], batch_size=self.batch_size)
        probability = _per_token(nll, exponential=True)
        if self.score == "probability":
            return probability
        rows, recall = np.flatnonzero(np.isfinite(probability)).tolist(), np.full(len(answers), np.nan)
        if rows:  # from logits that are no numbers nothing can be said
            asked, wanted = [self.prompts[row] for row in rows], [answers[row] for row in rows]
            said = answer_freely(model, asked, wanted, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
            recall[rows] = said["rouge_l"]
        return recall

    def followed_by(self, row: int) -> Sequence[str]:
        return [f" {self.facts[row].answer}"]

    def solution(self, row: int) -> str:
        return f" {self.facts[row].answer}"

    @property
    def n_generated(self) -> int:
        return self.max_new_tokens if self.score == "rouge_l" else 0

    def _objections(self, model: "HookedModel") -> dict[int, str]:
        wordless = {row: "the answer has no words" for row, fact in enumerate(self.facts) if not words(fact.answer)}
        return super()._objections(model) | wordless


@dataclass(frozen=True, eq=False)
class Completions(PromptedMeasure):
    """Mean log-probability of a completion's tokens (nats), or its exponential; `token_nll`.

    Caveat: unlearning that makes all text improbable lowers this too; it does not say what is said instead.

    Attributes:
        completions: after each prompt, with their leading space; whole texts after empty prompts.
    """

    completions: Sequence[str]
    score: str = field(default="log_probability", kw_only=True)

    @staticmethod
    def scores_offered() -> tuple[str, ...]:
        return COMPLETION_SCORES

    def score_all(self, model: "HookedModel") -> Float[np.ndarray, " item"]:
        found = token_nll(model, self.prompts, self.completions, batch_size=self.batch_size)
        return _per_token(found, exponential=self.score == "probability")

    def followed_by(self, row: int) -> Sequence[str]:
        return [self.completions[row]]

    def solution(self, row: int) -> str:
        return self.completions[row]


def _chosen(found: "pd.DataFrame", score: str) -> Float[np.ndarray, " item"]:
    """A score of choices; where probabilities are no numbers, the likeliest answer is none either."""
    return np.where(np.isfinite(found["answer_probability"]), found[score].astype(float), np.nan)


def _per_token(nll: "pd.DataFrame", *, exponential: bool) -> Float[np.ndarray, " item"]:
    """Mean log-probability of the tokens, or its exponential; no number where no token was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = -nll["nll"].to_numpy(dtype=float) / nll["tokens"].to_numpy(dtype=float)
    return np.exp(mean) if exponential else mean
