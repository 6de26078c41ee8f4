"""Which tokens an edit is done to, or an activation is collected from.

A selection narrows down; padding is never among the tokens, and the leading BOS only where the edit says so.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions.contexts import EditContext
from interp_unlearn.settings import check_fields, is_finite

__all__ = ["Span", "TokenMask", "TokenSelection", "Tokens", "Where", "check_tokens", "selected_tokens"]

TokenName = Literal["all", "last", "prompt", "completion"]
"""Names of the usual selections.

"last" is the last token of each row; while generating, the last of the prompt and every token generated after it,
which is the last position of every pass. "completion" is the completion, the assistant's turns of a chat, or what was
generated; "prompt" is everything else, and both need a batch that says which is which.
"""


class TokenSelection(ABC):
    """Base of all selections; combine them with `&`, `|` and `~`."""

    @abstractmethod
    def select(self, activation: Float[Tensor, "batch pos *d"], context: EditContext) -> Bool[Tensor, "batch pos"]:
        """The tokens selected, given the activation at the site."""

    def __and__(self, other: "Tokens") -> "TokenSelection":
        return _Both(self, other)

    def __or__(self, other: "Tokens") -> "TokenSelection":
        return ~_Both(~self, _Not(other))

    def __invert__(self) -> "TokenSelection":
        return _Not(self)


Tokens = TokenName | TokenSelection


@dataclass(frozen=True, eq=False)
class Span(TokenSelection):
    """Positions `start` to `stop` (not included) of each row, BOS included in the count.

    Attributes:
        start: first position; negative counts from the row's end (while generating, from the prompt's).
        stop: position after the last one; None goes to the end, generated tokens included.
    """

    start: int
    stop: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stop is not None and (self.start < 0) == (self.stop < 0) and self.start >= self.stop:
            raise ConfigError(f"Span({self.start}, {self.stop}) is empty; expected start < stop")

    def select(self, activation: Tensor, context: EditContext) -> Tensor:
        chosen = context.positions >= self._absolute(self.start, context)
        return chosen if self.stop is None else chosen & (context.positions < self._absolute(self.stop, context))

    @staticmethod
    def _absolute(position: int, context: EditContext) -> Tensor:
        lengths = context.lengths[:, None]
        return lengths + position if position < 0 else torch.full_like(lengths, position)


@dataclass(frozen=True, eq=False)
class TokenMask(TokenSelection):
    """The tokens where a mask of the batch's own shape is True; tokens generated later are not among them."""

    mask: Bool[Tensor, "batch pos"]

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.ndim != 2 or self.mask.dtype != torch.bool:  # pyright: ignore[reportUnnecessaryIsInstance]
            got = f"{self.mask.dtype} {tuple(self.mask.shape)}" if isinstance(self.mask, Tensor) else type(self.mask)  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"TokenMask: expected a boolean tensor [batch, pos], got {got}")

    def select(self, activation: Tensor, context: EditContext) -> Tensor:
        n_rows, width = self.mask.shape
        if not context.covers(n_rows, width):
            raise ConfigError(
                f"TokenMask of shape {(n_rows, width)} does not fit a pass of {tuple(context.mask.shape)} tokens; make "
                "it for the same batch"
            )
        mask = self.mask.to(context.columns.device)
        return mask[context.rows[:, None], context.columns.clamp(max=width - 1)] & (context.columns < width)


@dataclass(frozen=True, eq=False)
class Where(TokenSelection):
    """Tokens whose projection on a direction, at the edited site, lies beyond a threshold: a conditional edit.

    Attributes:
        direction: any norm; it is used at unit norm.
        threshold: in L2 units along the unit direction.
        side: "above" or "below" the threshold.
    """

    direction: Float[Tensor, " d"]
    threshold: float
    side: Literal["above", "below"] = "above"

    def __post_init__(self) -> None:
        if not isinstance(self.direction, Tensor) or self.direction.ndim != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError("Where: expected a finite direction [d] that is not zero")
        direction = self.direction.to(torch.promote_types(self.direction.dtype, torch.float32))
        norm = direction.norm()  # in half precision it may overflow
        if not norm > 0 or not torch.isfinite(norm):
            raise ConfigError("Where: expected a finite direction [d] that is not zero")
        if self.side not in ("above", "below"):
            raise ConfigError(f"Where: side must be 'above' or 'below', got {self.side!r}")
        if not is_finite(self.threshold):
            raise ConfigError(f"Where: threshold: expected a finite number, got {self.threshold!r}")
        object.__setattr__(self, "direction", direction / norm)

    def select(self, activation: Tensor, context: EditContext) -> Tensor:
        if activation.ndim != 3 or activation.shape[-1] != len(self.direction):
            raise ConfigError(
                f"Where has a direction of width {len(self.direction)} but the activation here is "
                f"{tuple(activation.shape)}; was it made for another site?"
            )
        # The condition is no part of the function that gradients flow through.
        projection = activation.detach() @ self.direction.to(activation.device, activation.dtype)
        return projection > self.threshold if self.side == "above" else projection < self.threshold


@dataclass(frozen=True, eq=False)
class _Not(TokenSelection):
    inner: Tokens

    def __post_init__(self) -> None:
        check_tokens(self.inner)

    def select(self, activation: Tensor, context: EditContext) -> Tensor:
        return ~selected_tokens(self.inner, activation, context)


@dataclass(frozen=True, eq=False)
class _Both(TokenSelection):
    left: Tokens
    right: Tokens

    def __post_init__(self) -> None:
        check_tokens(self.right)

    def select(self, activation: Tensor, context: EditContext) -> Tensor:
        return selected_tokens(self.left, activation, context) & selected_tokens(self.right, activation, context)


def check_tokens(tokens: object) -> None:
    """Refuse what selects no tokens.

    Raises:
        ConfigError: it is neither one of the names nor a selection.
    """
    if not isinstance(tokens, TokenSelection) and tokens not in get_args(TokenName):
        names = ", ".join(get_args(TokenName))
        raise ConfigError(f"tokens: expected one of {names}, a Span, a TokenMask or a Where, got {tokens!r}")


def named_tokens(name: str) -> Tokens:
    """The selection that a store's metadata names: one of the names, or a `Span` as it is written.

    Raises:
        ConfigError: it is another selection, which its name does not hold.
    """
    if written := re.fullmatch(r"Span\(start=(-?\d+), stop=(-?\d+|None)\)", name):
        start, stop = written.groups()
        return Span(int(start), None if stop == "None" else int(stop))
    if name not in get_args(TokenName):
        raise ConfigError(f"tokens {name!r} cannot be selected by name; collect with a name or a Span")
    return cast(TokenName, name)


def selected_tokens(tokens: Tokens, activation: Tensor, context: EditContext) -> Bool[Tensor, "batch pos"]:
    """The tokens of a pass that a selection means; padding and BOS may be among them.

    Raises:
        ConfigError: the batch does not say what prompt and completion are, or the selection does not fit it.
    """
    if isinstance(tokens, TokenSelection):
        return tokens.select(activation, context)
    if tokens == "all":
        return context.mask
    if tokens == "last":
        return context.positions >= context.lengths[:, None] - 1
    if context.completion is None:
        raise ConfigError(
            f"tokens {tokens!r}: this pass does not say which tokens are the completion; give a batch tokenised with "
            "completions or as chats, or generate"
        )
    return context.completion if tokens == "completion" else ~context.completion
