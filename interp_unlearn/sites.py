"""The vocabulary of places: where in a forward pass an activation is read or edited.

The names are TransformerLens's. `attn_out` and `mlp_out` are what is *added to the residual stream*, so that
`resid_mid = resid_pre + attn_out` and `resid_post = resid_mid + mlp_out` on every sequential architecture (on Gemma2
that is after the post-norms).
"""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import ClassVar

from interp_unlearn.errors import SiteError

BLOCK_COMPONENTS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")
"""Components inside a block, in the order the forward pass reaches them."""

_MOST_LAYERS = 10**6  # what a number of six digits can name
_PATTERN = re.compile(r"([0-9]{1,6})\.(\w+)")


@total_ordering
@dataclass(frozen=True)
class Site:
    """One place in a forward pass; sites compare by the order in which the pass reaches them.

    Attributes:
        layer: block, counted from 0; None for the two places outside the blocks.
        component: one of `BLOCK_COMPONENTS`, or "embed" or "logits".

    Raises:
        SiteError: the component does not exist, or the layer does not fit it.
    """

    layer: int | None
    component: str

    embed: ClassVar["Site"]
    """Output of the token embedding (on Gemma2 scaled; on GPT-2 without positions)."""
    logits: ClassVar["Site"]
    """What the model returns as logits (on Gemma2 soft-capped)."""

    def __post_init__(self) -> None:
        if self.component in ("embed", "logits"):
            if self.layer is not None:
                raise SiteError(f"{self.component} has no layer, got layer {self.layer}; use Site.{self.component}")
        elif self.component not in BLOCK_COMPONENTS:
            known = ", ".join((*BLOCK_COMPONENTS, "embed", "logits"))
            raise SiteError(f"unknown component {self.component!r}; expected one of {known}")
        elif not isinstance(self.layer, int) or isinstance(self.layer, bool) or not 0 <= self.layer < _MOST_LAYERS:
            raise SiteError(f"{self.component} needs a layer counted from 0, got {self.layer}")

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read what `str(site)` writes: "5.resid_post", "embed" or "logits".

        Raises:
            SiteError: the text names no site.
        """
        if text in ("embed", "logits"):
            return cls(None, text)
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise SiteError(f"cannot read {text!r} as a site; expected for example 5.resid_post, embed or logits")
        return cls(int(match[1]), match[2])

    def check(self, n_layers: int) -> None:
        """Refuse a layer the model does not have.

        Raises:
            SiteError: the layer is out of range.
        """
        if self.layer is not None and self.layer >= n_layers:
            raise SiteError(f"{self}: layer out of range; the model has layers 0 to {n_layers - 1}")

    def __str__(self) -> str:
        return self.component if self.layer is None else f"{self.layer}.{self.component}"

    def __lt__(self, other: "Site") -> bool:
        return self._depth < other._depth

    @property
    def _depth(self) -> tuple[float, int]:
        if self.layer is None:
            return (-1.0, 0) if self.component == "embed" else (float("inf"), 0)
        return float(self.layer), BLOCK_COMPONENTS.index(self.component)


Site.embed = Site(None, "embed")
Site.logits = Site(None, "logits")


def residual_stream(n_layers: int) -> list[Site]:
    """The embedding and the stream after every block, in the order of the pass: the places of a layer-wise analysis."""
    return [Site.embed, *(Site(layer, "resid_post") for layer in range(n_layers))]
