"""A byte-level BPE tokenizer in which every word of the world is one token and any other text still encodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp_unlearn.errors import ConfigError
from interp_unlearn.organism import lexicon
from interp_unlearn.organism.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
LARGEST_VOCABULARY = 4096  # training stops long before: when every word is one token


def world_words() -> list[str]:
    """Every word that must be one token, sorted: all that the lexicon lists, and the words of its sentences."""
    listed: set[str] = set()
    for value in vars(lexicon).values():
        entries = value.values() if isinstance(value, dict) else [value]
        for entry in entries:
            if isinstance(entry, (list, tuple)):
                listed.update(" ".join(map(str, entry)).split())
    return sorted(word for word in listed if word.isalpha())


def train_tokenizer(world: World, documents: int = 4000) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on a world's documents and words.

    Raises:
        ConfigError: A word of the world is not one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # A leading space makes a document's first word the same token as everywhere else.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = world_words()
    corpus = (world.document(i, "knows_all") for i in range(documents))
    tokenizer.train_from_iterator([*corpus, *words, *words], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    split = [word for word in words if len(wrapped.encode(" " + word, add_special_tokens=False)) != 1]
    if split:
        raise ConfigError(f"{len(split)} words of the world are not single tokens, for example {split[:3]}")
    return wrapped
