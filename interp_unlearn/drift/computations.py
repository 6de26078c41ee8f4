"""How each measure of drift is computed from a comparison; `measures` says what they are."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.drift.comparison import TWIN, UNLEARNED, Comparison, Measured
from interp_unlearn.drift.depth import unlearning_depth
from interp_unlearn.drift.determinism import check_determinism
from interp_unlearn.drift.displacement import displacement
from interp_unlearn.drift.lens import answer_lens
from interp_unlearn.drift.massive import massive_activations
from interp_unlearn.drift.retrained import retrained_probes
from interp_unlearn.drift.similarity import representation_similarity
from interp_unlearn.drift.subspaces import Subspace, principal_angles
from interp_unlearn.drift.tuned_lens import TunedLens, fit_tuned_lens
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.statistics import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd


def of_depth(comparison: Comparison) -> Measured:
    """Unlearning depth: by layer, as one score, and by text."""
    import pandas as pd

    setup, stores = comparison.setup, comparison.of_each("answered")
    answers = setup.answers
    assert answers is not None
    options: dict[str, Any] = {"groups": answers.groups, "batch_size": setup.batch_size, "seed": setup.seed}
    prompts = (answers.prompts, answers.answers, stores[TWIN], stores[UNLEARNED])
    found = unlearning_depth(comparison.model, *prompts, progress=setup.progress, **options)
    score = {"score": found.score, "low": found.low, "high": found.high, "n": found.n}
    score |= {"patched": found.patched, "reason": found.reason}
    table = pd.DataFrame([score]).astype({"score": float, "reason": "string"})
    return Measured({"unlearning_depth": found.layers, "score": table, "texts": found.texts})


def of_weights(comparison: Comparison) -> Measured:
    """The exact list of changed tensors, with the directions that they are compared with."""
    import pandas as pd

    delta = comparison.delta
    count = pd.DataFrame([{"n_changed": len(delta.changed), "n_tensors": delta.n_tensors}])
    return Measured({"weight_delta": delta.table, "alignments": delta.alignments, "count": count})


def of_determinism(comparison: Comparison) -> Measured:
    """The control: by site, and whether it passed."""
    import pandas as pd

    check = check_determinism(*comparison.streams, comparison.delta)
    row = {"passed": check.passed, "largest_below": check.largest_below, "first_tensor": check.first_tensor}
    result = pd.DataFrame([row]).astype({"passed": "boolean", "first_tensor": "string"})
    return Measured({"determinism": check.table, "result": result})


def of_massive(comparison: Comparison) -> Measured:
    """Dimensions that stand out, and the displacement without them, of each corpus."""
    import pandas as pd

    names, streams = comparison.setup.texts.names, comparison.streams
    tables = [massive_activations(*streams, **comparison.of_corpus(name)) for name in names]
    return Measured({"massive_activations": pd.concat(tables, ignore_index=True)})


def of_displacement(comparison: Comparison) -> Measured:
    """How far each corpus' tokens moved."""
    return _by_corpus("displacement", displacement, comparison)


def of_spectrum(comparison: Comparison) -> Measured:
    """Along how many directions they moved, the leading ones, and the main direction of each corpus."""
    import pandas as pd

    spectra = comparison.spectra
    tables = {
        "spectrum": pd.concat([found.table for found in spectra.values()], ignore_index=True),
        "components": pd.concat([found.components for found in spectra.values()], ignore_index=True),
    }
    moved = {name: found.to_directions() for name, found in spectra.items() if found.directions}
    return Measured(tables, {f"direction_{_file_name(name)}.safetensors": found for name, found in moved.items()})


def of_cka(comparison: Comparison) -> Measured:
    """Debiased CKA of each corpus."""
    return _by_corpus("cka", representation_similarity, comparison, **comparison.setup.null_draws)


def _file_name(corpus: str) -> str:
    return re.sub(r"\W+", "_", corpus)


def _by_corpus(name: str, measure: Callable[..., "pd.DataFrame"], comparison: Comparison, **options: Any) -> Measured:
    import pandas as pd

    corpora = comparison.setup.texts.names
    parts = [measure(*comparison.streams, **comparison.of_corpus(corpus), **options) for corpus in corpora]
    return Measured({name: pd.concat(parts, ignore_index=True)})


def of_angles(comparison: Comparison) -> Measured:
    """Between probes, the target corpus' displacement and what changed matrices write."""
    setup = comparison.setup
    corpus = setup.texts.names[0]
    subspaces: dict[str, Subspace] = {} if setup.probes is None else {"probe": setup.probes}
    subspaces["displacement"] = comparison.spectra[corpus].to_subspaces(setup.rank)
    try:
        subspaces["weight delta"] = comparison.delta.to_subspaces(setup.rank)
    except (CheckpointError, ConfigError):  # its own row says why the weights cannot be compared
        if setup.probes is None:
            raise
    table = principal_angles({name: s for name, s in subspaces.items() if name == "probe" or s}, **setup.null_draws)
    return Measured({"angles": table.assign(corpus=corpus)})


def of_logit_lens(comparison: Comparison) -> Measured:
    """Every model's stream by its own head."""
    return _lens(comparison, comparison.of_each("lens"))


def of_tuned_lens(comparison: Comparison) -> Measured:
    """Every model's stream by the original's lens, which is fitted on the other corpora's texts where there are any."""
    setup, texts, stream = comparison.setup, comparison.setup.texts, comparison.streams[0]
    general = np.array(texts.corpora) != texts.names[0]
    store = stream.select(general) if general.any() else stream
    fitted: TunedLens = fit_tuned_lens(comparison.model, store, setup.lens, progress=setup.progress)
    assert setup.answers is not None
    read = {
        name: answer_lens(comparison.model, prompts, setup.answers.answers, lens=fitted)
        for name, prompts in comparison.of_each("prompts").items()
    }
    found = _lens(comparison, read)
    return Measured({**found.tables, "fit": fitted.table}, {"tuned_lens.safetensors": fitted})


def _lens(comparison: Comparison, read: "dict[str, pd.DataFrame]") -> Measured:
    """Every text's reading, and the mean of each model and layer with its interval over groups of prompts."""
    import pandas as pd

    answers = comparison.setup.answers
    assert answers is not None
    texts = pd.concat([table.assign(model=name) for name, table in read.items()], ignore_index=True)
    units = len(answers.prompts) if answers.groups is None else len(set(answers.groups))
    rows: list[dict[str, Any]] = []
    for name, table in read.items():
        for site, part in table.groupby("site", sort=False):
            values = part.sort_values("row")["log_probability"].to_numpy()
            place = {"site": site, "layer": part["layer"].iloc[0], "lens": part["lens"].iloc[0], "model": name}
            low, high = float("nan"), float("nan")
            if units > 1:
                interval = bootstrap_mean(values, answers.groups, seed=comparison.setup.seed)
                low, high = interval.low, interval.high
            means = {"log_probability": float(values.mean()), "low": low, "high": high}
            rows.append(place | means | {"median_rank": float(np.median(part["rank"].to_numpy())), "n": len(values)})
    return Measured({"lens": pd.DataFrame(rows).astype({"layer": "Int64"}), "texts": texts})


def of_retrained(comparison: Comparison) -> Measured:
    """The original's probes and new ones on the unlearned model, and on the twin."""
    setup, stores = comparison.setup, comparison.of_each("pooled")
    probes = setup.probes
    assert probes is not None
    known = ("folds", "C", "seed", "shuffles", "bootstrap")  # trained again as they were trained
    options: dict[str, Any] = {name: probes.metadata[name] for name in known if name in probes.metadata}
    options["C_sites"] = probes.strength_sites or None
    changed = stores[UNLEARNED]
    floor = stores.get(TWIN)
    table = retrained_probes(probes, changed, never_knew=floor, sites=changed.sites, progress=setup.progress, **options)
    return Measured({"retrained_probes": table})
