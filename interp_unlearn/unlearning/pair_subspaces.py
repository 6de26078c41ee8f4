"""The subspace at each layer in which texts differ from their counterparts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.activations import collect
from interp_unlearn.errors import ConfigError
from interp_unlearn.objectives import Centre, difference_subspace
from interp_unlearn.sites import Site
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.unlearning.corpora import CorpusName


@dataclass(frozen=True, eq=False)
class PairSubspace:
    """Where pairs differ at one layer.

    Attributes:
        basis: orthonormal rows in the coordinates of the stream, the widest difference first.
        shares: of the differences' squared singular values, for each row; they sum to 1 over all directions.
        n_pairs: how many pairs it is from.
    """

    basis: Float[Tensor, "rank d_model"]
    shares: Float[Tensor, " rank"]
    n_pairs: int


def pair_subspaces(
    model: "HookedModel",
    data: UnlearnData,
    layers: Sequence[int],
    rank: int,
    config: UnlearnConfig | None = None,
    *,
    n_pairs: int = 500,
    centre: Centre = "mean",
    progress: bool = True,
) -> dict[int, PairSubspace]:
    """Pool the stream after each layer over every text's tokens, and take the differences' top singular vectors.

    Tokens are those of the completions where `config.forget_on` says so, otherwise of the whole texts. Padding is never
    pooled; the authors' code of ProFS averages over it, which lets a vector depend on the longest text of its batch.

    Args:
        model: read on its current weights.
        data: forget rows with counterparts.
        layers: blocks whose output is read.
        rank: directions a layer.
        config: `forget_on`, `include_bos`, `max_length` and the `seed` of the draw.
        n_pairs: pairs drawn; all where there are fewer.
        centre: see `difference_subspace`.
        progress: whether to show progress bars.

    Raises:
        ConfigError: the data has no counterparts, or at some layer fewer independent differences than `rank`.
    """
    config = config or UnlearnConfig()
    if data.counterparts is None:
        raise ConfigError("pairs need a counterpart for each forget row; give UnlearnData(counterparts=...)")
    if n_pairs < 1:
        raise ConfigError(f"n_pairs must be at least 1, got {n_pairs}")
    if config.forget_on == "completion" and data.forget_completions is None:
        raise ConfigError("forget_on is completion and the forget texts have none; give forget_completions")
    sites = [Site(layer, "resid_post") for layer in layers]
    chosen = random.Random(f"pairs-{config.seed}").sample(range(len(data.forget)), min(n_pairs, len(data.forget)))

    def pooled(name: "CorpusName") -> dict[int, Tensor]:
        texts, completions = data.texts_of(name)
        store = collect(
            model,
            [texts[row] for row in chosen],
            sites,
            "mean",
            tokens="completion" if config.forget_on == "completion" else "all",
            completions=None if completions is None else [completions[row] for row in chosen],
            keep_texts=False,
            max_length=config.max_length,
            include_bos=config.include_bos,
            progress=progress,
        )
        return {layer: store[site] for layer, site in zip(layers, sites, strict=True)}

    toxic, civil = pooled("forget"), pooled("counterparts")
    found: dict[int, PairSubspace] = {}
    for layer in layers:
        try:
            found[layer] = PairSubspace(*difference_subspace(toxic[layer], civil[layer], rank, centre), len(chosen))
        except ConfigError as error:
            raise ConfigError(f"layer {layer}: {error}") from error
    return found
