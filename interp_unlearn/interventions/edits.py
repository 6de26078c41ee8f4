"""Edits: what is done to an activation. Small, frozen, pure, out of place and differentiable.

Every edit is cast to the stream's dtype and device, leaves padding alone, leaves the leading BOS alone unless
`include_bos` is set, and touches the tokens and heads that it was told to.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_unlearn.errors import ConfigError, SiteError
from interp_unlearn.interventions.contexts import EditContext
from interp_unlearn.interventions.selections import Tokens, check_tokens, selected_tokens
from interp_unlearn.settings import is_finite
from interp_unlearn.sites import Site

__all__ = ["Add", "Clamp", "Edit", "EditContext", "EditMap", "ProjectOut", "Replace", "Scale", "merge_edits"]


@dataclass(frozen=True, eq=False)
class Edit(ABC):
    """Base of all edits; a subclass says what `transform` does and inherits which tokens it is done to.

    Attributes:
        tokens: which tokens are edited: "all", "last", "prompt", "completion", a `Span`, a `TokenMask`, a `Where`, or
            a combination of those with `&`, `|` and `~`.
        heads: heads that are edited, at the site `z` only; None for all.
        include_bos: edit the leading BOS too, if it is among the tokens.
    """

    tokens: Tokens = field(default="all", kw_only=True)
    heads: Sequence[int] | None = field(default=None, kw_only=True)
    include_bos: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_tokens(self.tokens)
        if self.heads is not None and not _are_heads(self.heads):
            raise ConfigError(f"heads: expected head numbers counted from 0, got {self.heads!r}")

    @abstractmethod
    def transform(
        self, activation: Float[Tensor, "batch pos *d"], context: EditContext
    ) -> Float[Tensor, "batch pos *d"]:
        """The edited activation at every position; positions that are not edited are discarded by the caller."""

    def __call__(
        self, activation: Float[Tensor, "batch pos *d"], context: EditContext
    ) -> Float[Tensor, "batch pos *d"]:
        """The activation with this edit applied to the real tokens selected."""
        edited = self.transform(activation, context)
        return torch.where(self._selected(activation, context), edited, activation)

    def _selected(self, activation: Tensor, context: EditContext) -> Bool[Tensor, "batch pos *one"]:
        """What is edited, with as many dimensions as the activation."""
        column = context.mask_column if self.include_bos else context.content_column
        if self.tokens != "all":
            column = column & selected_tokens(self.tokens, activation, context)[..., None]
        if activation.ndim == 3:
            if self.heads is not None:
                raise ConfigError("heads are told apart at the site z only; drop heads, or edit z")
            return column
        if self.heads is None:
            return column[..., None]
        n_heads = activation.shape[2]
        if max(self.heads) >= n_heads:
            raise ConfigError(f"heads: got {list(self.heads)}, the model has heads 0 to {n_heads - 1}")
        chosen = torch.zeros(n_heads, 1, dtype=torch.bool, device=activation.device)
        chosen[list(self.heads)] = True
        return column[..., None] & chosen


EditMap = Mapping[Site, tuple[Edit, ...]]


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Add `coefficient * vector`: a steering vector, or at the site z one for each head."""

    vector: Float[Tensor, " d"] | Float[Tensor, "head d"]
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape("vector", self.vector, 1, 2)
        _check_finite("vector", self.vector)
        _check_number("coefficient", self.coefficient)

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        return activation + self.coefficient * _per_head(_cast(self.vector, activation), activation)


@dataclass(frozen=True, eq=False)
class ProjectOut(Edit):
    """Remove the span of one or several directions, which need be neither orthogonal nor of unit norm.

    Attributes:
        directions: one direction or k of them.
        basis: orthonormal basis of their span.
    """

    directions: Float[Tensor, " d"] | Float[Tensor, "k d"]
    basis: Float[Tensor, "rank d"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape("directions", self.directions, 1, 2)
        _check_finite("directions", self.directions)
        rows = torch.atleast_2d(self.directions)
        if rows.requires_grad:
            raise ConfigError("directions require gradients, which ProjectOut does not pass on; detach() them")
        # Singular vectors rather than QR: repeated directions then lower the rank instead of adding a random one.
        _, values, basis = torch.linalg.svd(rows.double(), full_matrices=False)
        rank = int((values > 1e-6 * values[0]).sum()) if values[0] > 0 else 0
        if rank == 0:
            raise ConfigError("all directions are zero; expected at least one direction to project out")
        object.__setattr__(self, "basis", basis[:rank].to(torch.promote_types(rows.dtype, torch.float32)))

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        basis = _cast(self.basis, activation)
        return activation - (activation @ basis.T) @ basis


@dataclass(frozen=True, eq=False)
class Clamp(Edit):
    """Push the projection on a direction back to a threshold, one-sided.

    With p the projection of a token on the direction: where p > threshold, subtract
    `overshoot * (p - threshold)` along the direction; side "below" is the mirror image.

    Attributes:
        direction: any norm; it is used at unit norm.
        threshold: in L2 units along the unit direction.
        overshoot: 1 stops at the threshold, 2 reflects to the other side of it.
    """

    direction: Float[Tensor, " d"]
    threshold: float
    overshoot: float = 1.0
    side: Literal["above", "below"] = "above"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape("direction", self.direction, 1)
        _check_finite("direction", self.direction)
        _check_number("threshold", self.threshold)
        _check_number("overshoot", self.overshoot)
        if self.side not in ("above", "below"):
            raise ConfigError(f"side must be 'above' or 'below', got {self.side!r}")
        # At least in float32: in half precision a norm may overflow, and the direction would come out as zero.
        direction = self.direction.to(torch.promote_types(self.direction.dtype, torch.float32))
        norm = direction.norm()
        if not norm > 0:
            raise ConfigError("direction is zero; expected a direction to clamp along")
        object.__setattr__(self, "direction", direction / norm)

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        direction = _cast(self.direction, activation)
        excess = (activation @ direction).unsqueeze(-1) - self.threshold
        excess = excess.clamp(min=0) if self.side == "above" else excess.clamp(max=0)
        return activation - self.overshoot * excess * direction


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Multiply by a factor."""

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("factor", self.factor)

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        return activation * self.factor


@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """Put another value there: one vector for all tokens, or another run's read at the same site (patching).

    A read is put back token by token: row by row and column by column of the batch it was read from, also while
    generating from that batch. Tokens that it does not cover, such as generated ones, stay as they are.
    """

    value: Float[Tensor, " d"] | Float[Tensor, "head d"] | Float[Tensor, "batch pos *d"]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape("value", self.value, 1, 2, 3, 4)
        if self.value.ndim < 3:  # what was read from a batch may hold NaN where there is padding
            _check_finite("value", self.value)

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        value = _cast(self.value, activation)
        if value.ndim < 3:
            return _per_head(value, activation).expand_as(activation)
        n_rows, width = value.shape[:2]
        if value.shape[2:] != activation.shape[2:] or not context.covers(n_rows, width):
            raise ConfigError(
                f"Replace holds a value of shape {tuple(value.shape)} but the activation is {tuple(activation.shape)}; "
                "read it from a batch of the same shape, or give one vector"
            )
        there = value[context.rows[:, None], context.columns.clamp(max=width - 1)]
        covered = context.columns < width
        return torch.where(covered.reshape(*covered.shape, *[1] * (activation.ndim - 2)), there, activation)


def merge_edits(*layers: Mapping[Site, Edit | Sequence[Edit]] | None) -> dict[Site, tuple[Edit, ...]]:
    """One map from site to its edits in order of application, the first argument's first.

    Raises:
        SiteError: a key is not a Site.
        ConfigError: a value is not an edit.
    """
    merged: dict[Site, tuple[Edit, ...]] = {}
    for layer in layers:
        for site, edits in (layer or {}).items():
            if not isinstance(site, Site):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SiteError(f"edits are keyed by Site, got {site!r}; use Site.parse to read one from text")
            added = tuple(edits) if isinstance(edits, Sequence) else (edits,)
            if not all(callable(edit) for edit in added):
                raise ConfigError(f"{site}: expected an edit such as ProjectOut(direction), got {edits!r}")
            merged[site] = merged.get(site, ()) + added
    return merged


def _cast(vector: Tensor, activation: Tensor) -> Tensor:
    if vector.shape[-1] != activation.shape[-1]:
        raise ConfigError(
            f"the edit has width {vector.shape[-1]} but the activation here has width {activation.shape[-1]}; "
            "was it made for another model or another site?"
        )
    return vector.to(device=activation.device, dtype=activation.dtype)


def _per_head(vector: Tensor, activation: Tensor) -> Tensor:
    """A vector [d] or one for each head [head, d], which must not be taken for one for each position."""
    if vector.ndim == 2 and (activation.ndim != 4 or len(vector) != activation.shape[2]):
        raise ConfigError(
            f"the edit has a vector for each of {len(vector)} heads but the activation here is "
            f"{tuple(activation.shape)}; give one vector [d], or edit z"
        )
    return vector


def _check_shape(name: str, tensor: Tensor, *dimensions: int) -> None:
    if not isinstance(tensor, Tensor) or tensor.ndim not in dimensions:  # pyright: ignore[reportUnnecessaryIsInstance]
        got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{name} must be a tensor with {' or '.join(map(str, dimensions))} dimensions, got {got}")


def _are_heads(heads: object) -> bool:
    if not isinstance(heads, Collection) or not heads:
        return False
    return all(isinstance(head, Integral) and head >= 0 for head in heads)  # pyright: ignore[reportOperatorIssue]


def _check_number(name: str, value: float) -> None:
    if not is_finite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")


def _check_finite(name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise ConfigError(f"{name} holds infinite values or NaN; expected finite numbers")
