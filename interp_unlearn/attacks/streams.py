"""The residual stream of a model on the forget and the neutral texts: where the unlearned model has moved to."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.errors import ConfigError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.unlearning import UnlearnData


Corpus = Literal["forget", "neutral"]


@dataclass(frozen=True, eq=False)
class Streams:
    """The stream after every block, one mean over tokens a text; BOS and padding do not count.

    Attributes:
        forget: on forget texts, with their groups.
        neutral: on neutral texts; None where there are none.
    """

    forget: ActivationStore
    neutral: ActivationStore | None

    @property
    def n_layers(self) -> int:
        return len(self.forget.sites)

    def mean(self, layer: int, corpus: Corpus = "forget") -> Float[Tensor, " d_model"]:
        """Mean over all tokens, in float64.

        Raises:
            ConfigError: there are no neutral texts.
        """
        store = self.forget if corpus == "forget" else self.neutral
        if store is None:
            raise ConfigError("there are no neutral texts; give UnlearnData(neutral=...), or --neutral")
        return token_mean(store, Site(layer, "resid_post"))


def read_streams(
    model: "HookedModel", data: "UnlearnData", n_texts: int, seed: int, folder: Path | None = None
) -> Streams:
    """Read the stream after every block.

    Args:
        model: read on its current weights.
        data: forget and neutral texts, with their completions.
        n_texts: most texts of each, drawn by the seed.
        seed: of the draw.
        folder: where the vectors are kept; None keeps them in memory.
    """
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]

    def read(corpus: Corpus) -> ActivationStore:
        return read_texts(model, data, sites, n_texts, seed, corpus, None if folder is None else folder / corpus)

    return Streams(read("forget"), read("neutral") if data.neutral else None)


def read_texts(
    model: "HookedModel",
    data: "UnlearnData",
    sites: Sequence[Site],
    n_texts: int,
    seed: int,
    corpus: Corpus = "forget",
    folder: Path | None = None,
) -> ActivationStore:
    """Read sites on some texts of a corpus, the same for every model; arguments as of `read_streams`."""
    texts, completions = data.texts_of(corpus)
    rows = sorted(random.Random(f"streams-{seed}").sample(range(len(texts)), min(n_texts, len(texts))))

    def drawn(values: Sequence[str]) -> list[str]:
        return [values[row] for row in rows]

    return collect(
        model,
        drawn(texts),
        sites,
        tokens="all",
        completions=None if completions is None else drawn(completions),
        groups=drawn(data.groups) if corpus == "forget" and data.groups is not None else None,
        keep_texts=False,
        out=folder,
        progress=False,
    )


def token_mean(store: ActivationStore, site: Site) -> Float[Tensor, " width"]:
    """Mean over all tokens of a store with one mean a text, in float64."""
    weights = torch.from_numpy(store.rows["n_tokens"].to_numpy(dtype=float))
    return (weights / weights.sum()) @ store[site].double()


def displacement(original: Streams, unlearned: Streams) -> dict[int, Float[Tensor, " d_model"]]:
    """`mean(h) - mean(h0)` on the forget texts, of the layers where it is not exactly 0, in float64.

    Raises:
        ConfigError: the models are of different shape, tokenise the texts differently, or do not differ at all.
    """
    check_alike(original, unlearned)
    found = {layer: unlearned.mean(layer) - original.mean(layer) for layer in range(original.n_layers)}
    moved = {layer: vector for layer, vector in found.items() if bool(vector.any())}
    if not moved:
        raise ConfigError("both models have the same activations on the forget texts; there is no displacement")
    return moved


def most_displaced(original: Streams, moved: dict[int, Float[Tensor, " d_model"]]) -> int:
    """The layer whose mean has moved furthest, relative to the norm of the original's mean."""
    return max(moved, key=lambda layer: float(moved[layer].norm() / original.mean(layer).norm().clamp_min(1e-300)))


def check_alike(original: Streams, unlearned: Streams) -> None:
    """Refuse streams that cannot be compared row by row.

    Raises:
        ConfigError: they are of models of different shape, or of differently tokenised texts.
    """
    shapes = [[tuple(s.forget[site].shape) for site in s.forget.sites] for s in (original, unlearned)]
    counts = [s.forget.rows["n_tokens"].tolist() for s in (original, unlearned)]
    if shapes[0] != shapes[1] or counts[0] != counts[1]:
        raise ConfigError(
            f"the models cannot be compared: {len(shapes[0])} and {len(shapes[1])} layers, {shapes[0][0][1]} and "
            f"{shapes[1][0][1]} wide, {sum(counts[0])} and {sum(counts[1])} tokens of the same texts"
        )
