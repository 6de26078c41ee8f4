"""Conversations as token batches in which the assistant's turns are told apart."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.batches import PaddingSide, TokenBatch
from interp_unlearn.models.encoding import encode_continuations, encode_texts, special_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = Sequence[Mapping[str, str]]
"""Messages with "role" and "content", as chat templates take them."""


def tokenize_chats(
    tokenizer: "PreTrainedTokenizerBase",
    chats: Sequence[Chat],
    *,
    max_length: int | None = None,
    padding_side: PaddingSide = "right",
) -> TokenBatch:
    """Turn conversations into one batch by the tokenizer's chat template.

    The assistant's turns, from after the header to the end of what the template writes for the message, are the
    `completion_mask`; they are tokenised apart, so that the border falls where it falls while generating. A chat that
    ends with another role ends with the header of the assistant's turn, ready to generate.

    Args:
        tokenizer: a tokenizer with a chat template, which brings its own BOS.
        chats: the conversations.
        max_length: longest row in tokens; what is over is cut at the end.
        padding_side: where shorter rows are padded.

    Raises:
        ConfigError: the tokenizer has no chat template, or one that rewrites earlier turns.
        DataError: there are no chats, or one has no messages, begins with the assistant, or loses all its turns to
            `max_length`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("the tokenizer has no chat template; set tokenizer.chat_template, or tokenise plain texts")
    if not chats:
        raise DataError("chats", "empty; expected at least one conversation")
    rows: list[list[int]] = []
    marks: list[list[bool]] = []
    for index, chat in enumerate(chats):
        if not chat:
            raise DataError("chats", f"conversation {index} has no messages")
        if chat[0]["role"] == "assistant":
            raise DataError("chats", f"conversation {index} begins with the assistant; put another role's turn first")
        row: list[int] = []
        mark: list[bool] = []
        for text, assistant in _pieces(tokenizer, chat):
            (ids,) = (encode_continuations if row else encode_texts)(tokenizer, [text])
            row += ids
            mark += [assistant] * len(ids)
        if any(mark) and not any(mark[:max_length]):
            raise DataError("chats", f"max_length cuts away all that the assistant says in conversation {index}")
        rows.append(row[:max_length])
        marks.append(mark[:max_length])
    pad = next((i for i in (special_id(tokenizer, "pad"), special_id(tokenizer, "eos")) if i is not None), 0)
    return TokenBatch.from_rows(
        rows,
        bos_token_id=special_id(tokenizer, "bos"),
        pad_token_id=pad,
        padding_side=padding_side,
        completions=marks,
    )


def _pieces(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> list[tuple[str, bool]]:
    """The rendered conversation in pieces, each with whether it is the assistant's."""
    pieces: list[tuple[str, bool]] = []
    done = ""

    def extend(text: str, assistant: bool) -> None:
        nonlocal done
        if not text.startswith(done):
            raise ConfigError(
                "the chat template rewrites earlier turns when later ones come, so that turns cannot be told apart; "
                "tokenise prompt and completion as texts"
            )
        if len(text) > len(done):
            pieces.append((text[len(done) :], assistant))
        done = text

    for index, message in enumerate(chat):
        if message["role"] == "assistant":
            extend(_render(tokenizer, chat[:index], header=True), False)
            extend(_render(tokenizer, chat[: index + 1]), True)
    if chat[-1]["role"] != "assistant":
        extend(_render(tokenizer, chat, header=True), False)
    return pieces


def _render(tokenizer: "PreTrainedTokenizerBase", chat: Chat, header: bool = False) -> str:
    return tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=header)  # pyright: ignore[reportReturnType, reportArgumentType]
