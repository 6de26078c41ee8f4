"""What is measured on a model of a comparison whatever the goal, before it is attacked."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp_unlearn.evaluation import retain_kl
from interp_unlearn.organism.quality import cloze, judged_generations, mean_of

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.organism.sets import Example
    from interp_unlearn.sites import Site
    from interp_unlearn.study.comparison.bench import Bench

N_RETAINED = 300


class Work:
    """How much a block of code made a model compute.

    Attributes:
        block_tokens: tokens that went through a block, summed over blocks.
        n_blocks: of the model.
    """

    def __init__(self, n_blocks: int) -> None:
        self.block_tokens = 0
        self.n_blocks = n_blocks

    @property
    def million_tokens(self) -> float:
        """Forward passes in millions of tokens through the whole model."""
        return self.block_tokens / self.n_blocks / 1e6


@contextmanager
def counted(model: HookedModel) -> Generator[Work]:
    """Counts the tokens (padding among them) that go forward through the model's blocks while the block runs.

    Caveat: passes backward are not counted, and neither are a second model's.
    """
    blocks = model.architecture.blocks
    work = Work(len(blocks))

    def count(_block: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        work.block_tokens += hidden.shape[0] * hidden.shape[1]

    handles = [block.register_forward_pre_hook(count, with_kwargs=True) for block in blocks]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


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


def judged_by_kind(
    model: HookedModel, bench: Bench, prompts: Mapping[str, Sequence[Example]], seed: int
) -> pd.DataFrame:
    """One judged generation after each prompt of every kind: kind, row, and the columns of `judged_generations`."""
    parts: list[pd.DataFrame] = []
    for kind, examples in prompts.items():
        judged = judged_generations(model, bench.stage.world, examples, bench.stage.goal, seed)
        parts.append(judged.assign(kind=kind, row=range(len(judged))))
    return pd.concat(parts, ignore_index=True)


def recalled(model: HookedModel, bench: Bench) -> dict[str, float]:
    """Cloze and answer probability on hazardous and on benign facts, by name."""
    measures: dict[str, float] = {}
    facts = bench.stage.world.knowledge
    for name, chosen in (("hazardous", facts.hazardous), ("benign", facts.benign)):
        answered = cloze(model, chosen)
        measures[f"{name}_cloze"] = mean_of(answered["correct"])
        measures[f"{name}_answer_probability"] = mean_of(answered["answer_probability"])
    return measures
