"""How alike the geometry of two models' activations is: debiased CKA, and where the first principal component went."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions.nulls import cosine_quantile
from interp_unlearn.drift.paired import TokenMask, check_paired, token_chunks
from interp_unlearn.drift.spectrum import leading_left
from interp_unlearn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

LEAST_TOKENS = 4
"""Fewest tokens of which the unbiased estimator exists."""


def representation_similarity(
    original: ActivationStore,
    changed: ActivationStore,
    *,
    corpus: str = "all",
    keep: TokenMask | None = None,
    max_tokens: int = 2048,
    n_null: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> "pd.DataFrame":
    """Debiased linear CKA of both models at each site, with what remains of their first principal component.

    The debiased estimator only (`debiased_cka`). The usual one adds to every similarity a term that grows with
    dimensions per token: for independent Gaussians in 4,096 dimensions it gives 0.99 at 40 tokens and still 0.67 at
    2,000, where nothing is shared. It would find any two models alike.
    The null deals one model's tokens out anew. Its mean is exactly 0 and its standard deviation exactly
    ``sqrt(2 / (n (n - 3)))``, whatever the data (Szekely and Rizzo 2013, who use it for the distance correlation); its
    shape depends on the spectra, hence the permutations.
    Caveat: CKA says whether tokens lie to one another as before, not what can be read from them: an unlearned fact may
    leave it at 0.99, and in the faithfulness test of arXiv 2605.24614 it parted models that know from models that do
    not little better than chance (AUC 0.648). A few dimensions of huge variance dominate it and the components, see
    ``cka_standardised``. Tokens of one text are not independent, and the band takes them to be.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        corpus: what the corpus is called in the table.
        keep: which tokens count; None for all. BOS, should the stores hold it, ought not to.
        max_tokens: tokens used, drawn at random where there are more; a site's are held in memory, and for the null of
            more dimensions than tokens some matrices of their number squared.
        n_null: permutations of the null; 0 leaves it out.
        seed: of the draw and the permutations.
        progress: whether to show a progress bar.

    Returns:
        One row a site: ``site, layer`` (null for the embedding), ``corpus``; ``cka`` (1 for activations that are a
        rotation of the original's, shifted or scaled; about 0 without relation, and then as often below 0),
        ``null_low, null_high`` (central 95% of the permutations), ``cka_standardised`` (each dimension divided by its
        standard deviation in its own model; the null has the same standard deviation); ``pca_similarity`` (absolute
        cosine of both first principal components, whose signs are arbitrary) and ``pca_null_high`` (95% quantile for
        random directions); ``pca_shift`` (how far the mean moved along the original's first component, absolute, in
        standard deviations of the original along it; our reading of Xu et al. 2025, arXiv 2505.16831);
        ``n_tokens, d``. NaN where the activations do not vary.

    Raises:
        ConfigError: the stores do not fit each other, or a number is out of range.
        DataError: the texts or tokens differ, or fewer than four tokens count.
    """
    import pandas as pd

    if max_tokens < LEAST_TOKENS or n_null < 0:
        raise ConfigError(
            f"expected max_tokens of at least {LEAST_TOKENS}, n_null of at least 0; got {max_tokens}, {n_null}"
        )
    sites = check_paired(original, changed)
    rng = np.random.default_rng(seed)
    drawn = _drawn(int(original.rows["n_tokens"].to_numpy().sum()), keep, max_tokens, rng)
    n = int(drawn.sum())
    orders = [torch.from_numpy(rng.permutation(n)) for _ in range(n_null)]
    rows: list[dict[str, Any]] = []
    for site in tqdm(sites, desc="similarity", disable=not progress):
        x, y = (torch.cat(list(token_chunks(store, site, drawn))) for store in (original, changed))
        low, high = _null_band(x, y, orders)
        rows.append(
            {
                "site": str(site),
                "layer": site.layer,
                "corpus": corpus,
                "cka": debiased_cka(x, y),
                "null_low": low,
                "null_high": high,
                "cka_standardised": debiased_cka(_standardised(x), _standardised(y)),
                **_components(x, y),
                "n_tokens": n,
                "d": x.shape[1],
            }
        )
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def debiased_cka(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> float:
    """Linear CKA of the same n tokens in two representations, both its terms by the unbiased estimator of HSIC.

    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with K = x x^T, L = y y^T and HSIC by the unbiased estimator
    of Song et al. 2012 (JMLR 13: 1393, their HSIC_1); its use in CKA: Murphy et al. 2024, arXiv 2405.01012. Computed
    from the features, so that nothing of size n x n is made. Invariant to rotations, shifts and one scale of either
    side. May be negative; NaN where a side does not vary.

    Raises:
        ConfigError: the tokens do not match.
        DataError: there are fewer than four.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ConfigError(f"CKA needs [n, p] and [n, q] of the same tokens, got {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) < LEAST_TOKENS:
        raise DataError("tokens", f"debiased CKA needs at least {LEAST_TOKENS}, got {len(x)}")
    x, y = _centred(x), _centred(y)
    scale = _hsic(x, x) * _hsic(y, y)
    return _hsic(x, y) / scale**0.5 if scale > 0 else float("nan")


def _hsic(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> float:
    return _unbiased((x.T @ y).square().sum(), x.square().sum(1), y.square().sum(1))


def _unbiased(product: Tensor, a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """``tr(K L) + (1 K 1)(1 L 1) / ((n - 1)(n - 2)) - 2 (1 K L 1) / (n - 2)``, over ``n (n - 3)``; K, L of diagonal 0.

    Both sides are centred: it changes nothing, but a row of K without its diagonal then sums to ``-a``, the squared
    norms, and no large numbers cancel. ``product`` is tr(K L) with the diagonals in, ``||x^T y||^2``.
    """
    n = len(a)
    trace = product - a @ b
    return float((trace + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b) / (n - 2)) / (n * (n - 3)))


def _null_band(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], orders: list[Tensor]) -> tuple[float, float]:
    x, y = _centred(x), _centred(y)
    scale = _hsic(x, x) * _hsic(y, y)
    if not orders or not scale > 0:
        return float("nan"), float("nan")
    a, b = x.square().sum(1), y.square().sum(1)
    if x.shape[1] > len(x):  # Gram matrices, the smaller ones there: made once, so that a draw costs no product
        k, m = x @ x.T, y @ y.T
        products = ((k * m[order[:, None], order]).sum() for order in orders)
    else:
        products = ((x.T @ y[order]).square().sum() for order in orders)
    drawn = zip(products, orders, strict=True)
    values = [_unbiased(product, a, b[order]) / scale**0.5 for product, order in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _components(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> dict[str, float]:
    (first, spread), (other, other_spread) = _first_component(x), _first_component(y)
    varies = spread > 0 and other_spread > 0
    return {
        "pca_similarity": float((first @ other).abs()) if varies else float("nan"),
        "pca_null_high": cosine_quantile(x.shape[1], 0.975),
        "pca_shift": float(((y.mean(0) - x.mean(0)) @ first).abs()) / spread if varies else float("nan"),
    }


def _first_component(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], float]:
    """The direction of largest variance, and the standard deviation along it; 0 and 0 where nothing varies."""
    squares, vectors = leading_left(_centred(x).T, 1)
    if not len(vectors):
        return x.new_zeros(x.shape[1]), 0.0
    return vectors[0], float(squares[0] / len(x)) ** 0.5


def _drawn(total: int, keep: TokenMask | None, most: int, rng: np.random.Generator) -> TokenMask:
    """The tokens that are used, as a mask of all of them."""
    if keep is not None and keep.shape != (total,):
        raise ConfigError(f"a mask of tokens needs an entry for each of {total} tokens, got shape {keep.shape}")
    candidates = np.arange(total) if keep is None else np.flatnonzero(keep)
    if len(candidates) < LEAST_TOKENS:
        raise DataError("tokens", f"a similarity needs at least {LEAST_TOKENS}, got {len(candidates)}")
    mask = np.zeros(total, dtype=bool)
    mask[candidates if len(candidates) <= most else rng.choice(candidates, most, replace=False)] = True
    return mask


def _centred(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    x = x.double()
    return x - x.mean(0)


def _standardised(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    spread = x.std(0)
    return x / torch.where(spread > 0, spread, 1.0)
