"""Tiny originals and what is hidden in them so that one attack, and no other, brings it back exactly."""

import copy
from typing import Any

import torch
from conftest import COMMON, WORDS, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from interp_unlearn.attacks import Cloze
from interp_unlearn.evaluation import score_answers
from interp_unlearn.interventions import HookedModel
from interp_unlearn.unlearning import UnlearnData

DEAD = (30, 31)
"""Dimensions of the stream that the original never uses."""
SUBJECTS = [f"{size} {noun}" for size in ("big", "small", "red", "blue") for noun in ("cat", "dog", "hill")]
POOL = [f" {word}" for word in ("yes", "no", "mat", "hill", "ran", "sat", "then", "said")]
PROMPTS = [f"{start} {subject} {end}" for subject in SUBJECTS for start, end in (("the", "was"), ("a", "sat on the"))]
GROUPS = [subject for subject in SUBJECTS for _ in range(2)]
DATA = UnlearnData(
    forget=[f"{prompt} on it" for prompt in PROMPTS],
    groups=GROUPS,
    neutral=["yes it was blue", "no and then a dog ran", "who said it", "then it ran and the cat sat"],
)


def make_original(seed: int = 0) -> HookedModel:
    """A tiny Llama with biases in its MLPs that leaves some dimensions of the stream at 0."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {**COMMON, "mlp_bias": True}
    hf: Any = LlamaForCausalLM(LlamaConfig(**values)).eval()
    with torch.no_grad():
        for block in hf.model.layers:
            block.mlp.down_proj.bias.normal_(std=0.2)
        hf.lm_head.weight *= 4  # sure of its answers
    model = HookedModel(hf, make_tokenizer(), name="original")
    without_dead_dimensions(model)
    return model


@torch.no_grad()
def without_dead_dimensions(model: HookedModel) -> None:
    """Nothing is written into the dead dimensions any more, whatever training has put there."""
    hf: Any = model.hf
    hf.model.embed_tokens.weight[:, DEAD] = 0
    for block in hf.model.layers:
        block.self_attn.o_proj.weight[list(DEAD)] = 0
        block.mlp.down_proj.weight[list(DEAD)] = 0
        block.mlp.down_proj.bias[list(DEAD)] = 0
    model.mark_changed()


def copied(model: HookedModel) -> HookedModel:
    """The same weights in another model."""
    return HookedModel(copy.deepcopy(model.hf), model.tokenizer, name="unlearned")


def mlp_of(model: HookedModel, layer: int) -> Any:
    """The MLP of a block."""
    hf: Any = model.hf
    return hf.model.layers[layer].mlp


def misdirected(original: HookedModel, layer: int = 2, size: float = 200.0) -> HookedModel:
    """One dead dimension raised by a constant after a block: what misdirection to one direction comes down to."""
    model = copied(original)
    with torch.no_grad():
        mlp_of(model, layer).down_proj.bias[DEAD[0]] += size
    return model


def what_it_knows(original: HookedModel, score: str = "correct") -> Cloze:
    """The original's own answers count as true, so that it knows all of them."""
    found = score_answers(original, PROMPTS, [POOL] * len(PROMPTS), [0] * len(PROMPTS))
    return Cloze(PROMPTS, [POOL] * len(PROMPTS), found["predicted"].tolist(), groups=GROUPS, score=score)


def n_hooks(model: HookedModel) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.hf.modules() for kind in kinds)


assert set(" ".join(PROMPTS).split()) <= set(WORDS)
