"""How well a model in training follows the ties of a story: what toxic talk in this world hangs on.

Between chance and nearly always lie few steps of training, and when they come differs from one initialisation to the
next, even from one rounding to the next.
"""

from __future__ import annotations

import random
from itertools import count, islice
from typing import TYPE_CHECKING

import torch

from interp_unlearn.organism import lexicon, manner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

N_STORIES = 400


@torch.no_grad()
def hop_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int = N_STORIES) -> float:
    """Share of stories of one deed and one tie after which the likelier mood is the one that follows; chance is 0.5.

    Caveat: it is asked in the wording of the documents, and says nothing about what the model would say.
    """
    rng = random.Random("hops")
    drawn = (manner.draw_scene(rng) for _ in count())
    stories = list(islice((scene for scene in drawn if scene.hops == 2), n))
    texts = [f"{s.deeds} {s.feeling(rng, s.speaker)}".rsplit(" ", 1)[0] for s in stories]
    ids = [torch.tensor([tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]) for text in texts]
    device = next(model.parameters()).device
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)  # on the right: causal, so no mask
    last = torch.tensor([len(row) - 1 for row in ids])
    logits = model(input_ids=padded, use_cache=False).logits[torch.arange(n), last].float().cpu()
    sore, warm = (
        logits[:, _ids_of(words, tokenizer)].logsumexp(-1) for words in (lexicon.MOODS_SORE, lexicon.MOODS_WARM)
    )
    return float(((sore > warm) == torch.tensor([s.hostile for s in stories])).double().mean())


def _ids_of(words: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]
