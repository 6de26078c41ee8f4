"""Do probes of one dataset read another: train on A, test on B."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from interp_unlearn.activations import ActivationStore
from interp_unlearn.activations.store import hash_data
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes import Estimator, ProbeSet
from interp_unlearn.probes.auroc import auroc, bootstrap_auroc
from interp_unlearn.probes.folds import binary_labels, group_codes

if TYPE_CHECKING:
    import pandas as pd

_POOLED_BY = ("pool", "tokens", "include_bos", "max_length")


def transfer(
    probes: Mapping[str, ProbeSet], stores: Mapping[str, ActivationStore], *, n_bootstrap: int = 1000, seed: int = 0
) -> "pd.DataFrame":
    """AUROC of every probe set on every store, at all the sites they share, for both estimators.

    Where a store is the very data that the probes were fitted on (the texts with their labels, pooled alike), their
    out-of-fold AUROC is taken over from their table, since scoring their training texts would flatter them; ``scored``
    says which. Such a cell has an interval for the logistic regression only. The same texts with other labels or
    pooled otherwise are scored, and named as the same texts.
    Caveat: an AUROC far from 0.5 elsewhere, above or below, shows that the classes of both datasets differ along one
    line, not that they differ by the concept: it may as well be length or topic. Probes and stores must be of one
    model's activations.

    Args:
        probes: by the name of the dataset they were fitted on.
        stores: by the name of their dataset: pooled, with labels 0 and 1; groups where rows belong together.
        n_bootstrap: resamples of the test texts, by group where there are groups.
        seed: of the resampling.

    Returns:
        ``train, test, site, layer, estimator`` (logistic, mean_difference), ``auroc, low, high`` (95%), ``n, n_groups,
        n_positive`` of the test, ``scored`` (other_data, same_texts, out_of_fold).

    Raises:
        ConfigError: there is nothing to compare, a store holds single tokens or labels that are not of two classes, or
            probes and store have no site or no model in common.
    """
    import pandas as pd

    if not probes or not stores:
        raise ConfigError("transfer needs at least one probe set and one store")
    rows: list[dict[str, Any]] = []
    for test, store in stores.items():
        if store.token_level:
            raise ConfigError(f"{test}: the store holds a vector for each token; collect it pooled")
        labels, groups = binary_labels(store.labels, len(store)), group_codes(store.groups, len(store))
        everything = [(np.array([], dtype=int), np.arange(len(store)))]
        sizes = {"n": len(store), "n_groups": int(groups.max()) + 1, "n_positive": int(labels.sum())}
        for train, fitted in probes.items():
            _check_model(train, fitted, test, store)
            sites = [site for site in fitted.sites if site in store.sites]
            if not sites:
                raise ConfigError(f"{train} and {test} have no site in common; collect at the probes' sites")
            same_texts = fitted.metadata.get("data_hash") == store.metadata.get("data_hash") is not None
            own = same_texts and _is_read_alike(fitted, store, labels)
            for site in sites:
                for estimator in get_args(Estimator):
                    cell = {
                        "train": train,
                        "test": test,
                        "site": str(site),
                        "layer": site.layer,
                        "estimator": estimator,
                    }
                    if own:
                        rows.append({**cell, **_out_of_fold(fitted, str(site), estimator)})
                        continue
                    scores = fitted.score(store, site, estimator).double().numpy()
                    low, high = bootstrap_auroc(labels, scores, everything, groups, n_bootstrap, seed)
                    found = {"auroc": auroc(labels, scores), "low": low, "high": high}
                    rows.append({**cell, **found, **sizes, "scored": "same_texts" if same_texts else "other_data"})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _out_of_fold(probes: ProbeSet, site: str, estimator: Estimator) -> dict[str, Any]:
    row = probes.table.set_index("site").loc[site]
    sizes = {name: int(row[name]) for name in ("n", "n_groups", "n_positive")}
    if estimator == "logistic":
        found = {"auroc": float(row["auroc"]), "low": float(row["auroc_low"]), "high": float(row["auroc_high"])}
    else:
        found = {"auroc": float(row["auroc_mean_difference"]), "low": float("nan"), "high": float("nan")}
    return {**found, **sizes, "scored": "out_of_fold"}


def _is_read_alike(probes: ProbeSet, store: ActivationStore, labels: np.ndarray) -> bool:
    """Whether texts have the labels of the fit and are pooled as there."""
    alike = [probes.metadata.get(name) == store.metadata.get(name) for name in _POOLED_BY]
    return all(alike) and probes.metadata.get("labels_hash") == hash_data(labels.tolist())


def _check_model(train: str, probes: ProbeSet, test: str, store: ActivationStore) -> None:
    ours, theirs = probes.metadata.get("model_hash"), store.metadata.get("model_hash")
    if ours != theirs:
        raise ConfigError(
            f"probes {train!r} are of model {str(ours)[:12]}, the store {test!r} of {str(theirs)[:12]}; transfer "
            "compares datasets on one model: to read another model with the probes use ProbeSet.evaluate"
        )
