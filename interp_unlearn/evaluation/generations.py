"""Free generation: from prompts, in batches of similar length, or from nothing."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.buckets import TokenRow, length_buckets, token_rows
from interp_unlearn.models import TokenBatch

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


def generate_texts(
    model: "HookedModel",
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    do_sample: bool = True,
    temperature: float = 1.0,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 256,
    stop: str | Sequence[str] | None = None,
    n_continuations: int = 1,
    progress: bool = True,
) -> list[str]:
    """What the model goes on with after each prompt; the default settings are those of RealToxicityPrompts.

    Source: Gehman et al. 2020, arXiv 2009.11462 (nucleus 0.9, temperature 1). Equal seeds, prompts and batch sizes give
    equal samples; another batch size draws others.

    Args:
        model: the model, under any surrounding edits.
        prompts: what is continued.
        max_new_tokens: upper bound for each text.
        stop: token or tokens that end a text, besides the model's own; kept in the text.
        n_continuations: samples of each prompt; more than one needs sampling.
        progress: whether to show a progress bar.

    Returns:
        The new text alone, without special tokens, in input order; a prompt's continuations follow one another.

    Raises:
        ConfigError: a stop is not a single token of the tokenizer, or a sampling setting is out of range.
    """
    rows = sample_rows(
        model,
        prompts,
        max_new_tokens,
        do_sample=do_sample,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        stop=stop,
        n_continuations=n_continuations,
        progress=progress,
    )
    return _decode(model, [new for _, new in rows])


def sample_rows(
    model: "HookedModel",
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    do_sample: bool = True,
    temperature: float = 1.0,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 256,
    stop: str | Sequence[str] | None = None,
    n_continuations: int = 1,
    progress: bool = True,
) -> list[tuple[TokenRow, TokenRow]]:
    """The token ids of each prompt and of what follows it, the token that ended it included; see `generate_texts`.

    A batch holds whole prompts: as many as have `batch_size` continuations together, and at least one.
    """
    stops = [token_id(model, token) for token in ([stop] if isinstance(stop, str) else stop or ())]
    ends = {*stops, *_end_ids(model)}
    rows = token_rows(model, prompts)
    found: list[list[TokenRow]] = [[] for _ in rows]
    label = "generating" if progress else None
    per_batch = min(batch_size, max(1, batch_size // max(1, n_continuations)))
    for number, (chosen, batch) in enumerate(length_buckets(model, rows, per_batch, progress=label)):
        tokens = model.generate(
            batch,
            max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            seed=random.Random(f"{seed}-{number}").randrange(2**31) if do_sample else None,
            stop_token_ids=stops,
            n_continuations=n_continuations,
        )
        for index, new in enumerate(tokens.tolist()):
            end = next((i + 1 for i, token in enumerate(new) if token in ends), len(new))
            found[chosen[index // n_continuations]].append(tuple(new[:end]))
    return [(row, new) for row, continuations in zip(rows, found, strict=True) for new in continuations]


def sample_documents(
    model: "HookedModel",
    n: int,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
) -> list[str]:
    """Texts that the model writes from nothing: what it was trained on, as far as it remembers.

    They stand in for training data that one does not have: retained text of every kind the model knows.
    Caveat: a chat model writes what its tuning left of its pretraining; read some of them first.

    Args:
        model: the model, under any surrounding edits.
        n: how many are drawn.
        max_new_tokens: upper bound for each text.
        temperature: of the sampling.
        top_p: nucleus of the sampling; 1 draws from the model's own distribution.
        seed: of the sampling.
        batch_size: texts drawn at a time; another one draws others.
        progress: whether to show a progress bar.

    Returns:
        The texts without special tokens; those that ended at once are left out, so there may be fewer than `n`.

    Raises:
        ConfigError: the tokenizer has no BOS and no end-of-sequence token, or a sampling setting is out of range.
    """
    tokenizer = model.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if not isinstance(start, int):
        raise ConfigError("the tokenizer has no BOS and no end-of-sequence token for a text to begin with")
    ends = set(_end_ids(model))
    texts: list[str] = []
    for begin in tqdm(range(0, n, batch_size), desc="writing", disable=not progress or n == 0):
        rows = [(start,)] * min(batch_size, n - begin)
        batch = TokenBatch.from_rows(rows, bos_token_id=start, padding_side="left").to(model.device)
        drawn = random.Random(f"{seed}-document-{begin}").randrange(2**31)
        tokens = model.generate(batch, max_new_tokens, do_sample=True, temperature=temperature, top_p=top_p, seed=drawn)
        for new in tokens.tolist():
            end = next((i for i, token in enumerate(new) if token in ends), len(new))
            texts += [text for text in _decode(model, [tuple(new[:end])]) if text.strip()]
    return texts


def continuation_texts(model: "HookedModel", rows: Sequence[tuple[TokenRow, TokenRow]]) -> list[str]:
    """What `sample_rows` gave as it reads after its prompt, with the space between them, without special tokens.

    Decoded alone, the first word of a continuation loses its space under many tokenizers (SentencePiece), so each is
    decoded together with its prompt, and the prompt taken off; where that does not work out, it is decoded alone.
    """
    prompts = dict.fromkeys(prompt for prompt, _ in rows)
    starts = dict(zip(prompts, _decode(model, list(prompts)), strict=True))
    whole = _decode(model, [prompt + new for prompt, new in rows])
    alone = _decode(model, [new for _, new in rows])
    return [
        text.removeprefix(starts[prompt]) if text.startswith(starts[prompt]) else tail
        for (prompt, _), text, tail in zip(rows, whole, alone, strict=True)
    ]


def token_id(model: "HookedModel", token: str) -> int:
    """The id of a token given as it stands in the vocabulary, or as a text that is one token.

    Raises:
        ConfigError: it is neither.
    """
    vocabulary = model.tokenizer.get_vocab()
    if token in vocabulary:
        return vocabulary[token]
    ids: list[int] = model.tokenizer(token, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
    if len(ids) != 1:
        raise ConfigError(f"{token!r} is {len(ids)} tokens of this tokenizer; expected exactly one")
    return ids[0]


def _end_ids(model: "HookedModel") -> list[int]:
    stated = getattr(model.hf.generation_config, "eos_token_id", None)
    ids = stated if isinstance(stated, list) else [stated]
    return [i for i in (*ids, model.tokenizer.eos_token_id) if isinstance(i, int)]


def _decode(model: "HookedModel", rows: Sequence[TokenRow]) -> list[str]:
    ids = [list(row) for row in rows]
    texts = model.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return list(texts)
