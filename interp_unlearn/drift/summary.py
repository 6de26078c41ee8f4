"""One row a number, the same columns for every measure of drift: what `run_drift` shows first."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from interp_unlearn.drift.comparison import ORIGINAL, TWIN, UNLEARNED
from interp_unlearn.drift.measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("measure", "evidence", "quantity", "place", "layer", "corpus", "value", "low", "high"),
    *("null_low", "null_high", "null", "n", "counted", "reason", "small_models", "cannot_show"),
)
"""Of `DriftResult.to_frame`, which explains them."""

Tables = Mapping[str, "pd.DataFrame"]
Row = dict[str, Any]
WHOLE = "all"
"""The place of a number that is of the whole model."""


def summarise(name: str, tables: Tables) -> "pd.DataFrame":
    """The rows of a measure, from its tables."""
    return _frame(name, list(_ROWS[name](tables)))


def refused(name: str, reason: str) -> "pd.DataFrame":
    """The row of a measure that could not be made, with why."""
    return _frame(name, [{"reason": reason}])


def joined(parts: "list[pd.DataFrame]") -> "pd.DataFrame":
    """Rows of several measures in one table."""
    import pandas as pd

    return pd.DataFrame([row for part in parts for row in part.to_dict("records")], columns=list(COLUMNS)).astype(
        _TYPES
    )


def _frame(name: str, rows: list[Row]) -> "pd.DataFrame":
    import pandas as pd

    measure = MEASURES[name]
    said = {"measure": name, "evidence": measure.evidence, "cannot_show": measure.cannot_show}
    if measure.small_models is not None:
        said["small_models"] = f"carries little in small models: {measure.small_models}"
    return pd.DataFrame([said | row for row in rows], columns=list(COLUMNS)).astype(_TYPES)


_NUMBERS = ("value", "low", "high", "null_low", "null_high")
_TYPES: dict[str, str] = {
    name: "float64" if name in _NUMBERS else "Int64" if name in ("layer", "n") else "string" for name in COLUMNS
}


def _records(table: "pd.DataFrame") -> Iterator[Row]:
    """Rows as dictionaries, without what is null, so that a missing layer stays missing."""
    for row in table.to_dict("records"):
        yield {str(key): value for key, value in row.items() if value == value and value is not None}  # NaN, NA


def _at(row: Row, **values: Any) -> Row:
    place = {"place": row["site"], "layer": row.get("layer"), "corpus": row.get("corpus")}
    return place | values


def _of_depth(tables: Tables) -> Iterator[Row]:
    for row in _records(tables["score"]):
        whole = {"quantity": "unlearning depth", "place": WHOLE, "value": row.get("score")}
        ends = {"low": row.get("low"), "high": row.get("high"), "reason": row.get("reason")}
        yield whole | ends | {"n": row["n"], "counted": "texts that the original knows better"}
    n = len(tables["texts"])
    for row in _records(tables["unlearning_depth"]):
        if "erasure" in row:
            count = {"n": round(row["encoding"] * n), "counted": "texts that count at the layer"}
            yield _at(row, quantity="erasure at the layer", value=row["erasure"], **count)


def _of_weights(tables: Tables) -> Iterator[Row]:
    for row in _records(tables["count"]):
        count = {"n": row["n_tensors"], "counted": "tensors"}
        yield {"quantity": "changed tensors", "place": WHOLE, "value": row["n_changed"]} | count
    for row in _records(tables["weight_delta"]):
        tensor = {"place": row["tensor"], "layer": row.get("layer"), "n": row["elements"], "counted": "numbers"}
        yield tensor | {"quantity": "relative change", "value": row["relative_change"]}
        if "effective_rank" in row:
            yield tensor | {"quantity": "effective rank of the change", "value": row["effective_rank"]}
        if "input_energy" in row:
            ends = {"null_high": row["input_energy_null"], "null": "a change without regard to the activations"}
            yield tensor | {"quantity": "energy on activation components", "value": row["input_energy"]} | ends


def _of_determinism(tables: Tables) -> Iterator[Row]:
    n = max(tables["determinism"]["n_tokens"].tolist())
    for row in _records(tables["result"]):
        value = {"quantity": "largest difference before the first change", "place": row.get("first_tensor", WHOLE)}
        null = {"null_low": 0.0, "null_high": 0.0, "null": "exactly 0, or no drift can be believed"}
        reason = None if "passed" in row else "no site that was read lies before the first change"
        yield value | null | {"value": row.get("largest_below"), "n": n, "counted": "tokens", "reason": reason}


def _of_displacement(tables: Tables) -> Iterator[Row]:
    for row in _records(tables["displacement"]):
        count = {"n": row["n_tokens"], "counted": "tokens"}
        yield _at(row, quantity="relative displacement", value=row["relative_displacement"], **count)


def _of_massive(tables: Tables) -> Iterator[Row]:
    for row in _records(tables["massive_activations"]):
        size = {"n": row["d"], "counted": "dimensions"}
        yield _at(row, quantity="largest over median dimension, original", value=row.get("ratio"), **size)
        yield _at(row, quantity="largest over median dimension, unlearned", value=row.get("ratio_changed"), **size)
        moved = {"value": row["relative_displacement_without"], "n": row["n_tokens"], "counted": "tokens"}
        yield _at(row, quantity="relative displacement without massive dimensions", **moved)


def _of_spectrum(tables: Tables) -> Iterator[Row]:
    null = "each token along a direction of its own, 95%"
    for row in _records(tables["spectrum"]):
        if "share" in row:
            count = {"n": row["n_tokens"], "counted": "tokens", "null": null}
            share = {"value": row["share"], "null_high": row.get("null_share_high")}
            rank = {"value": row["effective_rank"], "null_low": row.get("null_effective_rank_low")}
            yield _at(row, quantity="share of the main direction", **share, **count)
            yield _at(row, quantity="effective rank", **rank, **count)


def _of_cka(tables: Tables) -> Iterator[Row]:
    for row in _records(tables["cka"]):
        count = {"n": row["n_tokens"], "counted": "tokens", "value": row.get("cka")}
        band = {"null_low": row.get("null_low"), "null_high": row.get("null_high")}
        yield _at(row, quantity="debiased CKA", null="permuted tokens, central 95%", **band, **count)


def _of_angles(tables: Tables) -> Iterator[Row]:
    table = tables["angles"]
    for row in _records(table.loc[table["angle"] == 1]):
        band = {"null_low": row["null_low"], "null_high": row["null_high"], "null": "random subspaces, central 95%"}
        pair = f"smallest angle, {row['first']} and {row['second']} (degrees)"
        yield _at(row, quantity=pair, value=row["degrees"], n=row["d"], counted="dimensions", **band)


def _of_lens(tables: Tables) -> Iterator[Row]:
    table = tables["lens"]
    floor = {row["site"]: row for row in _records(table) if row["model"] == TWIN}
    for row in _records(table):
        if row["model"] not in (ORIGINAL, UNLEARNED):
            continue
        twin = floor.get(row["site"])
        null = {} if twin is None else {"null_low": twin.get("low"), "null_high": twin.get("high")}
        said = {"null": "a model that never knew, 95%"} if twin else {"null": None}
        value = {"value": row["log_probability"], "low": row.get("low"), "high": row.get("high")}
        count = {"n": row["n"], "counted": "prompts"}
        yield _at(row, quantity=f"log-probability of the answer, {row['model']}", **value, **null, **said, **count)


def _of_retrained(tables: Tables) -> Iterator[Row]:
    table = tables["retrained_probes"]
    floor = {row["site"]: row for row in _records(table) if (row["model"], row["probe"]) == ("never_knew", "retrained")}
    for row in _records(table):
        if row["model"] == "never_knew":
            continue
        twin, shuffled = floor.get(row["site"]), row.get("auroc_shuffled")
        null = {
            "null_low": shuffled,
            "null_high": shuffled,
            "null": "shuffled labels" if shuffled is not None else None,
        }
        if twin is not None:
            null = {"null_low": twin.get("low"), "null_high": twin.get("high"), "null": "a model that never knew, 95%"}
        said = f"AUROC of the {row['probe']} probe on the {'unlearned' if row['model'] == 'changed' else row['model']}"
        value = {"value": row["auroc"], "low": row.get("low"), "high": row.get("high")}
        yield _at(row, quantity=f"{said} model", n=row["n"], counted="texts", **value, **null)


_ROWS: dict[str, Callable[[Tables], Iterator[Row]]] = {
    "unlearning_depth": _of_depth,
    "weight_delta": _of_weights,
    "determinism": _of_determinism,
    "displacement": _of_displacement,
    "massive_activations": _of_massive,
    "spectrum": _of_spectrum,
    "logit_lens": _of_lens,
    "tuned_lens": _of_lens,
    "retrained_probes": _of_retrained,
    "cka": _of_cka,
    "angles": _of_angles,
}
