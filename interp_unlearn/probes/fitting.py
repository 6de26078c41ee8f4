"""Fitting one linear probe per site, cross-validated over groups, beside its controls."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp_unlearn.activations.shards import missing_site
from interp_unlearn.activations.store import hash_data
from interp_unlearn.artifacts import environment
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.controls import bag_of_words_auroc, length_auroc
from interp_unlearn.probes.cross_validation import SiteRows, choose_strengths
from interp_unlearn.probes.folds import binary_labels, group_codes, make_folds, make_inner_folds, shuffle_within_folds
from interp_unlearn.probes.parallel import map_sites
from interp_unlearn.probes.probe_set import ProbeSet, stack_rows
from interp_unlearn.probes.settings import Examples, ProbeSettings
from interp_unlearn.probes.site_probe import SiteProbe, fit_site

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.sites import Site

_LOG = logging.getLogger(__name__)
_CARRIED = ("model", "model_hash", "data_hash", "pool", "tokens", "include_bos", "max_length")


def fit_probes(
    store: "ActivationStore",
    labels: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
    *,
    folds: int = 5,
    C: float | Sequence[float] = 1.0,
    C_sites: "Sequence[Site] | None" = None,
    seed: int = 0,
    shuffles: int = 1,
    bootstrap: int = 1000,
    resamples: int = 0,
    leace: bool = False,
    texts: Sequence[str] | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> ProbeSet:
    """Fit a probe at every site of the store; labels, groups and texts default to the store's own.

    The AUROC is out of fold, the direction comes from a final fit on all rows. The columns of the table are described
    at `ProbeSet`.
    Caveat: a high AUROC says the label can be read off linearly, not that the model uses it; test that with an edit.

    A site takes ``folds * (1 + shuffles) + 1`` fits. On demand: `resamples`, three fits each; several C, three fits for
    each of them in every fold and for the whole; `leace`, a fit a fold and a covariance in double precision. Measured
    on one core at 10,000 x 4,096 with five folds: 15 seconds a site, 2 more for each resample, 47 more for four values
    of C, 32 more for LEACE. Memory: for each job two and a half times the vectors of a site, and two square matrices of
    its width (one more for every further C).

    Args:
        store: pooled activations.
        labels: 0 or 1 per row.
        groups: rows that must stay together (a subject, a pair, a template family); None for every row alone.
        folds: of the cross-validation.
        C: inverse strength of the L2 penalty on standardised coordinates. Of several, one is chosen by AUROC for each
            training fold, on three folds inside it, and in the same way for the final fit.
        C_sites: choose C at these sites only; each fit of every site then takes the median of their choices for the
            same rows (of an even number, the lower one).
        seed: of folds, controls and resamples.
        shuffles: label shufflings averaged in the control; 0 leaves it out.
        bootstrap: resamples for the interval of the AUROC; 0 leaves it out.
        resamples: refits for the stability of the direction, see `stability.direction_stability`.
        leace: erase the label with LEACE inside each training fold, and fit the probe again.
        texts: for the bag-of-words control.
        n_jobs: sites at a time, each on one core; None for one a core. Results do not depend on it.
        progress: show a progress bar.

    Raises:
        ConfigError: labels of one class or not binary, lengths that differ, too few groups, activations that are not
            finite or do not vary, a store of single tokens, or a setting out of range.
        SiteError: the store does not hold one of `C_sites`.
    """
    settings = ProbeSettings(folds, C, C_sites, seed, shuffles, bootstrap, resamples, leace)
    if n_jobs is not None and n_jobs < 1:
        raise ConfigError(f"n_jobs: expected at least 1, or None for one a core, got {n_jobs}")
    if store.token_level:
        raise ConfigError("the store holds a vector per token, a probe needs one per text; collect with another pool")
    examples = _examples(store, labels, groups, settings)
    n = len(store)
    texts = store.texts if texts is None else texts
    if texts is not None and len(texts) != n:
        raise ConfigError(f"texts: expected one per row ({n}), got {len(texts)}")
    _LOG.info("probes: %d sites, %d rows in %d groups", len(store.sites), n, int(examples.groups.max()) + 1)

    agreed = _agreed_strengths(store, examples, settings, n_jobs, progress)
    probes = map_sites(
        lambda site: fit_site(_vectors(store, site), examples, settings, agreed), store.sites, n_jobs, "probe", progress
    )
    shared = _shared_measures(store, examples, settings, texts)
    metadata = {key: store.metadata.get(key) for key in _CARRIED} | settings.to_dict()
    metadata["labels_hash"] = hash_data(examples.labels.tolist())
    metadata["C_of_folds"] = {str(site): p.strengths[:-1] for site, p in zip(store.sites, probes, strict=True)}
    return _assemble(store.sites, probes, shared, metadata | {"versions": environment()})


def _examples(
    store: "ActivationStore", labels: ArrayLike | None, groups: Sequence[object] | None, settings: ProbeSettings
) -> Examples:
    n, seed = len(store), settings.seed
    classes = binary_labels(store.labels if labels is None else labels, n)
    codes = group_codes(store.groups if groups is None else groups, n)
    folds = make_folds(classes, codes, settings.folds, seed)
    chosen_on = [*(train for train, _ in folds), np.arange(n)] if len(settings.grid) > 1 else []
    inner = tuple(make_inner_folds(classes, codes, rows, seed) for rows in chosen_on)
    shuffled = tuple(shuffle_within_folds(classes, codes, folds, seed + i) for i in range(settings.shuffles))
    return Examples(classes, codes, folds, inner, shuffled)


def _agreed_strengths(
    store: "ActivationStore", examples: Examples, settings: ProbeSettings, n_jobs: int | None, progress: bool
) -> list[float] | None:
    """C of each fold and of the whole, if all sites share them; None where each chooses its own."""
    if len(settings.grid) == 1:
        return [settings.grid[0]] * (len(examples.folds) + 1)
    if settings.C_sites is None:
        return None
    for site in settings.C_sites:
        if site not in store.sites:
            raise missing_site(site, store.sites)
    chosen = map_sites(
        lambda site: choose_strengths(SiteRows(_vectors(store, site)), examples, settings.grid),
        settings.C_sites,
        n_jobs,
        "choose C",
        progress,
    )
    return [sorted(values)[(len(values) - 1) // 2] for values in zip(*chosen, strict=True)]


def _vectors(store: "ActivationStore", site: "Site") -> Float[np.ndarray, "row d_model"]:
    return np.asarray(store.array(site), dtype=np.float32)


def _shared_measures(
    store: "ActivationStore", examples: Examples, settings: ProbeSettings, texts: Sequence[str] | None
) -> dict[str, float]:
    """What no site changes. Of several C the words get the best, which favours the control."""
    labels, folds = examples.labels, examples.folds
    lengths = store.rows["n_tokens"].to_numpy(dtype=float)
    words = [float("nan")] if texts is None else [bag_of_words_auroc(texts, labels, folds, C) for C in settings.grid]
    return {
        "auroc_bag_of_words": max(words),
        "auroc_length": length_auroc(lengths, labels, folds),
        "n": len(store),
        "n_groups": int(examples.groups.max()) + 1,
        "n_positive": int(labels.sum()),
    }


def _assemble(
    sites: "tuple[Site, ...]", probes: list[SiteProbe], shared: dict[str, float], metadata: dict[str, Any]
) -> ProbeSet:
    import pandas as pd

    rows = [
        {"site": str(site), "layer": site.layer, **probe.measures, **shared}
        for site, probe in zip(sites, probes, strict=True)
    ]
    return ProbeSet(
        sites=tuple(sites),
        directions=stack_rows([torch.from_numpy(probe.logistic.direction).float() for probe in probes]),
        biases=torch.tensor([probe.logistic.bias for probe in probes]),
        scales=torch.tensor([probe.logistic.scale for probe in probes]),
        mean_differences=stack_rows([torch.from_numpy(probe.difference.direction).float() for probe in probes]),
        mean_difference_biases=torch.tensor([probe.difference.bias for probe in probes]),
        table=pd.DataFrame(rows).astype({"layer": "Int64"}),
        metadata=metadata,
    )
