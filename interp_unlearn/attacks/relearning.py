"""Relearning in the suite: several learning rates, curves, and held-out groups asked."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Setup, Target, measured
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.attacks.relearn import RelearnConfig, relearn
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True)
class Lessons:
    """What an attacker is taught and what is asked afterwards.

    Attributes:
        texts: taught, or their prompts.
        completions: what follows each.
        ids: of the items asked; None for all.
        held_out: whether all that is asked is known not to have been taught.
    """

    texts: list[str]
    completions: list[str] | None
    ids: list[str] | None
    held_out: bool


@dataclass(frozen=True)
class Relearn(Attack):
    """Fine-tune on part of the forget texts and ask about the rest; or on other text, and ask everything.

    Sources: split by group, Deeb and Roger 2024, arXiv 2410.08827; adapters and unrelated text, Lucki et al. 2024,
    arXiv 2409.18025. Texts and items belong together by their groups' names: where they have none in common, nothing
    can be held out, and the setting says so.
    Caveat: a model that never knew improves as well (it learns the form of the answers), and the best of several rates
    and steps is high by chance too; compare with a twin's curve under the same attack.

    Attributes:
        on: "forget" texts, the "neutral" ones beside them, or "unrelated" ones. Neutral texts may be so near to what
            was forgotten that they teach its form; unrelated ones teach nothing of it.
        learning_rates: of the attackers; each is reported.
        checkpoints: steps after which the model is asked.
        taught: share of the groups that is taught, of forget texts.
        attacker: everything else about them; its seed, of the batches, is added to the suite's.
        unrelated: texts that have nothing to do with what was forgotten, for `on="unrelated"`.
    """

    on: Literal["forget", "neutral", "unrelated"] = "forget"
    learning_rates: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    checkpoints: tuple[int, ...] = (10, 20, 60)
    taught: float = 0.5
    attacker: RelearnConfig = field(default_factory=RelearnConfig)
    unrelated: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.taught < 1:
            raise ConfigError(f"taught: expected a share between 0 and 1, got {self.taught}")
        if not self.learning_rates or min(self.learning_rates) <= 0 or min(self.checkpoints, default=0) < 1:
            raise ConfigError(
                f"expected positive learning_rates and checkpoints from 1, got {self.learning_rates}, "
                f"{self.checkpoints}"
            )

    @property
    def name(self) -> str:
        kind = "relearn" if self.attacker.lora is None else "relearn_lora"
        return kind if self.on == "forget" else f"{kind}_{self.on}"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        lessons = self.lessons(target.setup, target.unlearned)
        for rate in self.learning_rates:
            told = {"learning_rate": rate, "texts": len(lessons.texts), "held_out": lessons.held_out}
            found: dict[int, MeasuredItems] = {}

            def ask(step: int, model: "HookedModel", found: dict[int, MeasuredItems] = found) -> None:
                found[step] = measured(model, target.setup.measure, lessons.ids)

            try:
                relearn(
                    target.model,
                    lessons.texts,
                    lessons.completions,
                    replace(self.attacker, learning_rate=rate, seed=target.setup.seed + self.attacker.seed),
                    checkpoints=self.checkpoints,
                    callback=ask,
                    progress=False,
                )
            except ConfigError as error:  # one rate may be too high where others are not
                yield Attempt(told, None, reason=str(error))
            for step, items in found.items():
                yield Attempt(told, items, step)

    def lessons(self, setup: Setup, items: MeasuredItems) -> Lessons:
        """Split the forget texts by group; others are taught whole.

        Raises:
            ConfigError: there are no such texts, or too few groups to split.
        """
        if self.on == "unrelated":
            if not self.unrelated:
                raise ConfigError("there are no unrelated texts to learn; give Relearn(unrelated=...), or --unrelated")
            return Lessons(list(self.unrelated), None, None, True)
        texts, completions = setup.data.texts_of(self.on)
        if not texts:
            raise ConfigError("there are no neutral texts to learn; give UnlearnData(neutral=...), or --neutral")
        groups = setup.data.groups
        if self.on == "neutral" or groups is None or not set(groups) & set(items.groups):
            return Lessons(list(texts), None if completions is None else list(completions), None, self.on == "neutral")
        order = list(dict.fromkeys(groups))
        random.Random(f"relearn-{setup.seed}").shuffle(order)
        taught = set(order[: max(1, round(self.taught * len(order)))])
        rows = [row for row, group in enumerate(groups) if group in taught]
        others = set(order) - taught  # an item of a group that no text is of may have been taught under another name
        ids = [name for name, group in zip(items.ids, items.groups, strict=True) if group in others]
        if not ids:
            raise ConfigError(
                f"no item is left to ask: {len(taught)} of {len(order)} groups are taught, none of the others asked"
            )

        def chosen(values: Sequence[str]) -> list[str]:
            return [values[row] for row in rows]

        return Lessons(chosen(texts), None if completions is None else chosen(completions), ids, True)
