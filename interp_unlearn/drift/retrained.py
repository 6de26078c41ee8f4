"""Whether a probe trained again on the changed model finds what the original's probe no longer does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.activations import ActivationStore
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.probes import ProbeSet, fit_probes
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

_FLOOR = "never_knew"
_COLUMNS = ["model", "probe", "site", "layer", "chosen", "auroc", "low", "high", "auroc_shuffled", "scored", "n"]


def retrained_probes(
    probes: ProbeSet,
    changed: ActivationStore,
    *,
    never_knew: ActivationStore | None = None,
    site: Site | None = None,
    sites: Sequence[Site] | None = None,
    progress: bool = False,
    **options: Any,
) -> "pd.DataFrame":
    """The original's probes on a changed model, and probes trained on it anew, at the layer chosen on the original.

    Choosing the layer on the changed model would flatter the new probe. Its floor is a probe of the same texts on a
    model that never knew: what needs no knowledge of the target, such as the texts' topic, is read there too. The
    control with shuffled labels shows the spread of no signal at all.
    Source: a re-trained probe recovers detection after training against a probe, arXiv 2510.21531.
    Caveat: that a probe reads the class does not show that the model uses it, or knows the answer. Where the floor is
    near 1, as for toxicity in small models, this measure has no room to show anything.

    Args:
        probes: fitted on the original.
        changed: the changed model's pooled store with labels, and groups where rows belong together.
        never_knew: of a model that never knew, the same texts and labels; None for no floor.
        site: the layer; None for the one of the highest out-of-fold AUROC on the original.
        sites: where probes are trained again; None for that layer alone.
        progress: whether to show a progress bar.
        options: of `fit_probes`, such as folds and C; take those of the original's fit.

    Returns:
        One row a model, probe and site: ``model`` (original, changed, never_knew), ``probe`` (original, retrained),
        ``site, layer, chosen`` (whether it is the layer), ``auroc, low, high`` (95%), ``auroc_shuffled, scored``
        (out_of_fold; texts_of_the_fit where the original's probe meets the texts it was fitted on, though in another
        model; other_texts), ``n``. The original's probes on other models have no interval and no control.

    Raises:
        ConfigError: a store holds single tokens or labels of one class, or there is no probe at a site.
        DataError: the stores are of different texts or labels.
        SiteError: a store lacks the site.
    """
    import pandas as pd

    best = probes.best() if site is None else site
    chosen = list(dict.fromkeys([best, *(sites or ())]))
    stores = {"changed": changed} | ({} if never_knew is None else {_FLOOR: never_knew})
    if never_knew is not None:
        _check_same_texts(changed, never_knew)
    known = {str(place) for place in probes.sites}
    strangers = [str(place) for place in chosen if str(place) not in known]
    if strangers:
        raise ConfigError(f"the original has no probe at {strangers[0]}; it has them at {', '.join(sorted(known))}")
    parts = [_rows(probes.table, chosen, "original", "original", "out_of_fold")]
    for name, store in stores.items():
        if store.token_level:
            raise ConfigError(f"{name}: the store holds a vector for each token; collect it pooled")
        kept = ActivationStore({place: store[place] for place in sorted(chosen)}, store.rows, store.metadata)
        same = store.metadata.get("data_hash") == probes.metadata.get("data_hash") is not None
        moved = probes.evaluate(kept)
        parts.append(_rows(moved, chosen, name, "original", "texts_of_the_fit" if same else "other_texts"))
        fitted = fit_probes(kept, progress=progress, **options)
        parts.append(_rows(fitted.table, chosen, name, "retrained", "out_of_fold"))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(chosen=table["site"] == str(best)).reindex(columns=_COLUMNS)


def _rows(table: "pd.DataFrame", sites: Sequence[Site], model: str, probe: str, scored: str) -> "pd.DataFrame":
    wanted = table.loc[table["site"].isin([str(site) for site in sites])]
    wanted = wanted.reindex(columns=["site", "layer", "auroc", "auroc_low", "auroc_high", "auroc_shuffled", "n"])
    wanted.columns = ["site", "layer", "auroc", "low", "high", "auroc_shuffled", "n"]
    return wanted.assign(model=model, probe=probe, scored=scored)


def _check_same_texts(changed: ActivationStore, never_knew: ActivationStore) -> None:
    hashes = [store.metadata.get("data_hash") for store in (changed, never_knew)]  # of stores that keep no texts
    same = len(changed) == len(never_knew) and changed.texts == never_knew.texts and hashes[0] == hashes[1]
    labels = (changed.labels, never_knew.labels)
    if labels[0] is None or labels[1] is None:
        raise ConfigError("the stores hold no labels; collect them with labels")
    if not same or (labels[0] != labels[1]).any():
        raise DataError(
            "never_knew", "its texts or labels are not those of the changed model's store; collect the same"
        )
