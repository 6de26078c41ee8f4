"""Along how many directions activations have moved: one for all tokens, or each token its own."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions import Directions
from interp_unlearn.drift.paired import TOKENS_AT_ONCE, TokenMask, check_paired, paired_chunks
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.sites import Site
from interp_unlearn.statistics import effective_rank, participation_ratio

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class DisplacementSpectrum:
    """What the displacement of one corpus' tokens looks like at each site.

    Attributes:
        table: see `displacement_spectrum`.
        components: one row a site and leading direction: ``site, layer, corpus, component`` (counted from 1, the
            largest first), ``singular_value`` (NaN where nothing moved), ``share`` (of its square in the sum of them).
        directions: the leading directions at each site, orthonormal rows, the largest first; none at a site where
            nothing moved. The first points the way that tokens moved on average.
        metadata: the hashes of both models.
    """

    table: "pd.DataFrame"
    components: "pd.DataFrame"
    directions: Mapping[Site, Float[Tensor, "k width"]]
    metadata: Mapping[str, Any]

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table."""
        return self.table.copy()

    def to_directions(self, name: str = "displacement") -> Directions:
        """The first direction of each site at which anything moved.

        Raises:
            ConfigError: nothing moved anywhere.
        """
        return Directions({site: rows[0] for site, rows in self.directions.items()}, name=name, metadata=self.metadata)

    def to_subspaces(self, k: int) -> dict[Site, Float[Tensor, "width k"]]:
        """The first k directions as columns, for `principal_angles`; fewer where tokens moved along fewer.

        Raises:
            ConfigError: k is not positive.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        return {site: rows[:k].T for site, rows in self.directions.items()}


def displacement_spectrum(
    original: ActivationStore,
    changed: ActivationStore,
    *,
    corpus: str = "all",
    keep: TokenMask | None = None,
    n_directions: int = 8,
    n_null: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> DisplacementSpectrum:
    """Singular values of the displacements ``h_t - h0_t`` of a corpus' tokens, uncentred: a common shift counts.

    Only the second moment is held, [width, width], so that memory does not grow with the tokens but for one number
    each, the norm, which the null is made from. The null gives every token a displacement of the same norm along a
    direction of its own, drawn uniformly: then the first share is about ``1 / width`` and the effective rank nearly the
    width, if there are many more tokens than that. Each draw of it costs an eigenvalue decomposition.
    Source: effective rank after Roy and Vetterli 2007, of squared singular values; the share of 87% in one direction
    that RMU leaves at its own layer fades in later ones.
    Caveat: a share is one of energy, so that few tokens moved far decide it; and displacements along the directions in
    which activations vary anyway share directions too, without any common target. Neither shows what was forgotten.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        corpus: what the corpus is called in the table.
        keep: which tokens count; None for all.
        n_directions: leading directions kept at each site.
        n_null: draws of the null; 0 leaves it out.
        seed: of the draws.
        progress: whether to show a progress bar.

    Returns:
        The directions, and one row a site: ``site, layer`` (null for the embedding), ``corpus, relative_displacement``
        (mean over tokens of ``||h - h0|| / ||h0||``), ``share`` (of the first component in the sum of squares; NaN, as
        the ranks, where nothing moved), ``effective_rank`` (exp of the entropy of the normalised squares),
        ``participation_ratio``, of the null ``null_share, null_share_high`` (mean, 95% quantile) and
        ``null_effective_rank, null_effective_rank_low`` (mean, 5% quantile), ``n_tokens, d``.

    Raises:
        ConfigError: the stores do not fit each other, or a number is out of range.
        DataError: the texts or tokens differ, or no token counts.
    """
    import pandas as pd

    if n_directions < 1 or n_null < 0:
        raise ConfigError(f"expected n_directions of at least 1 and n_null of at least 0, got {n_directions}, {n_null}")
    sites = check_paired(original, changed)
    rows: list[dict[str, Any]] = []
    components: list[dict[str, Any]] = []
    directions: dict[Site, Tensor] = {}
    for site in tqdm(sites, desc="spectrum", disable=not progress):
        moved = _moved(original, changed, site, keep)
        d = len(moved.total)
        null = [spectrum_of(_random_moment(moved.norms, d, seed * 1000 + draw)) for draw in range(n_null)]
        squares, vectors = leading(moved.moment, n_directions)
        if len(vectors):
            directions[site] = (vectors if float(vectors[0] @ moved.total) >= 0 else -vectors).float()
        place = {"site": str(site), "layer": site.layer, "corpus": corpus}
        components += [place | component for component in _components(squares, n_directions)]
        rows.append(
            {
                **place,
                "relative_displacement": moved.relative,
                "share": first_share(squares),
                "effective_rank": effective_rank(squares),
                "participation_ratio": participation_ratio(squares),
                **_null_columns(null),
                "n_tokens": len(moved.norms),
                "d": d,
            }
        )
    metadata = {"source": "displacement", "corpus": corpus}
    hashes = {f"{name}_hash": store.metadata.get("model_hash") for name, store in _named(original, changed)}
    table, parts = (pd.DataFrame(found).astype({"layer": "Int64"}) for found in (rows, components))
    return DisplacementSpectrum(table, parts, directions, metadata | hashes)


def second_moment(chunks: Iterable[Float[Tensor, "tokens width"]]) -> Float[Tensor, "width width"]:
    """The sum of outer products of vectors that come some at a time.

    Raises:
        DataError: there are none.
    """
    moment: Tensor | None = None
    for chunk in chunks:
        moment = chunk.T @ chunk if moment is None else moment.addmm_(chunk.T, chunk)
    if moment is None:
        raise DataError("tokens", "none count; widen the mask, or give more texts")
    return moment


def spectrum_of(moment: Float[Tensor, "width width"]) -> Float[np.ndarray, " width"]:
    """Squared singular values of the vectors behind a second moment, the largest first."""
    return torch.linalg.eigvalsh(moment).flip(0).clamp_min(0).numpy()


def leading(
    moment: Float[Tensor, "width width"], k: int
) -> tuple[Float[np.ndarray, " width"], Float[Tensor, "found width"]]:
    """The same with the k leading directions, as rows; fewer where there is nothing in the others."""
    values, vectors = torch.linalg.eigh(moment)
    squares = values.flip(0).clamp_min(0).numpy()
    found = int((squares[:k] > 1e-12 * squares[0]).sum()) if squares[0] > 0 else 0
    return squares, vectors.flip(1).T[:found].contiguous()


def leading_left(
    matrix: Float[Tensor, "rows columns"], k: int
) -> tuple[Float[np.ndarray, " smaller"], Float[Tensor, "found rows"]]:
    """A matrix' squared singular values and k left singular vectors, as rows; from the smaller of its Gram matrices."""
    if matrix.shape[0] <= matrix.shape[1]:
        return leading(matrix @ matrix.T, k)
    squares, vectors = leading(matrix.T @ matrix, k)
    return squares, torch.nn.functional.normalize(vectors @ matrix.T, dim=1)


def first_share(squares: Float[np.ndarray, " width"]) -> float:
    """The first component's share of the squared singular values; NaN if they are all 0."""
    total = float(squares.sum())
    return float(squares[0]) / total if total > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class _Moved:
    """What one stream through both stores leaves of a site's displacements."""

    moment: Float[Tensor, "width width"]
    total: Float[Tensor, " width"]
    norms: Float[Tensor, " token"]
    relative: float


def _moved(original: ActivationStore, changed: ActivationStore, site: Site, keep: TokenMask | None) -> _Moved:
    norms: list[Tensor] = []
    relative: list[Tensor] = []
    sums: list[Tensor] = []

    def displacements() -> Iterator[Tensor]:
        for h0, h in paired_chunks(original, changed, site, keep):
            displacement = h - h0
            norms.append(displacement.norm(dim=1))
            relative.append(norms[-1] / h0.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny))
            sums.append(displacement.sum(0))
            yield displacement

    moment = second_moment(displacements())
    return _Moved(moment, torch.stack(sums).sum(0), torch.cat(norms), float(torch.cat(relative).mean()))


def _components(squares: Float[np.ndarray, " width"], k: int) -> list[dict[str, float]]:
    total = float(squares.sum())
    known = squares[:k] if total > 0 else np.full(min(k, len(squares)), np.nan)
    rows = enumerate(known.tolist(), start=1)
    return [{"component": index, "singular_value": s**0.5, "share": s / (total or 1.0)} for index, s in rows]


def _random_moment(norms: Float[Tensor, " token"], d: int, seed: int) -> Float[Tensor, "d d"]:
    """The second moment of displacements of these norms along directions drawn for each token."""
    generator = torch.Generator().manual_seed(seed)

    def displacements() -> Iterator[Tensor]:
        for part in norms.split(TOKENS_AT_ONCE):
            vectors = torch.randn(len(part), d, generator=generator, dtype=torch.float64)
            yield vectors * (part / vectors.norm(dim=1))[:, None]

    return second_moment(displacements())


def _null_columns(spectra: list[Float[np.ndarray, " width"]]) -> dict[str, float]:
    names = ("null_share", "null_share_high", "null_effective_rank", "null_effective_rank_low")
    if not spectra or not spectra[0].any():
        return dict.fromkeys(names, float("nan"))
    shares, ranks = [first_share(s) for s in spectra], [effective_rank(s) for s in spectra]
    values = (np.mean(shares), np.quantile(shares, 0.95), np.mean(ranks), np.quantile(ranks, 0.05))
    return dict(zip(names, map(float, values), strict=True))


def _named(original: ActivationStore, changed: ActivationStore) -> list[tuple[str, ActivationStore]]:
    return [("original", original), ("changed", changed)]
