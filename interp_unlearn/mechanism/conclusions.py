"""Sentences about a dissection, each made from its numbers, so that they change when the numbers do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.statistics import spelled_interval, spelled_value

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]
LEAST = 0.05
"""Share of the difference between two models from which an effect of patching is called one."""
PARTS = {"attention": "attention", "mlp": "MLPs", "embedding": "embedding", "unembedding": "head", "norm": "norms"}


def draw_conclusions(tables: Tables, goals: Sequence[str], margin: float) -> str:
    """A paragraph on what the tables show and what they do not.

    Args:
        tables: of a dissection, by name.
        goals: in its order.
        margin: of its equivalence tests.
    """
    sentences = [
        *_parts(tables["transplant"], goals, margin),
        *_together(tables.get("composition"), goals, margin),
        *_carried(tables.get("carried"), goals),
        *patching_sentences(tables.get("patching")),
        *_depths(tables.get("depth"), goals),
        *_ranks(tables["sufficient_rank"], tables["ranks"], goals),
        *_directions(tables.get("alignment"), goals),
        *_left_open(tables["missing"]),
    ]
    return " ".join(sentences)


def target_of(table: "pd.DataFrame", goal: str) -> "pd.DataFrame":
    """The rows of a goal's first outcome, which is its target."""
    rows = table.loc[table["goal"] == goal]
    return rows.loc[rows["outcome"] == rows["outcome"].iloc[0]]


def spelled(row: Mapping[str, Any], name: str, low: str | None = None, high: str | None = None) -> str:
    """A number of a row with its interval."""
    value, bottom, top = (float(row[key]) for key in (name, low or f"{name}_low", high or f"{name}_high"))
    return "undefined" if value != value else spelled_interval(value, bottom, top)


def apart(first: Mapping[str, Any], second: Mapping[str, Any], low: str = "low", high: str = "high") -> bool | None:
    """Whether two intervals do not overlap; None where one has no bounds."""
    bounds = [float(row[key]) for row in (first, second) for key in (low, high)]
    if any(bound != bound for bound in bounds):
        return None
    return bounds[1] < bounds[2] or bounds[3] < bounds[0]


def _rows(table: "pd.DataFrame", **conditions: object) -> list[dict[str, Any]]:
    for column, value in conditions.items():
        table = table.loc[table[column] == value]
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _parts(table: "pd.DataFrame", goals: Sequence[str], margin: float) -> Iterator[str]:
    for goal in goals:
        rows, found = table.loc[table["goal"] == goal], target_of(table, goal)
        for whole in _rows(found, direction="inserted", kind="all"):
            others = [
                f"{row['outcome']} by {spelled(row, 'effect')}"
                for row in _rows(rows, direction="inserted", kind="all")
                if row["outcome"] != whole["outcome"]
            ]
            changes = ", ".join([f"{whole['outcome']} by {spelled(whole, 'effect')}", *others])
            yield f"Unlearning {goal} changed {changes} (n = {whole['n']})."
        inserted = [row for row in _rows(found, direction="inserted", kind="part") if row["n_tensors"]]
        inserted = [row for row in inserted if row["share"] == row["share"]]
        if not inserted:
            yield f"No share of it can be named on {goal}, for the whole difference is not told from 0."
            continue
        shares = ", ".join(f"{PARTS[row['part']]} {spelled(row, 'share')}{_levels(rows, row)}" for row in inserted)
        restored = [row for row in _rows(found, direction="restored", kind="part") if row["n_tensors"]]
        undone = ", ".join(f"{PARTS[row['part']]} {spelled(row, 'share')}{_levels(rows, row)}" for row in restored)
        yield f"Shares of that by the changed tensors of one part, put into the original: {shares};"
        yield f"undone when the original's come back: {undone}."
        harmed = _harmed(rows, inserted, margin)
        if harmed:
            yield f"Put in, {', '.join(harmed)}: what these do to {found['outcome'].iloc[0]} may be damage."


def _levels(rows: "pd.DataFrame", of: Mapping[str, Any]) -> str:
    """What else the same model scored: the means of the other outcomes."""
    return _others(_rows(rows, direction=of["direction"], kind=of["kind"], group=of["group"]), of["outcome"])


def _others(same: Sequence[Mapping[str, Any]], outcome: str) -> str:
    """The means of all outcomes but one, in parentheses."""
    others = [f"{row['outcome']} {spelled_value(row['mean'])}" for row in same if row["outcome"] != outcome]
    return f" ({', '.join(others)})" if others else ""


def _harmed(rows: "pd.DataFrame", parts: Sequence[Mapping[str, Any]], margin: float) -> list[str]:
    """Parts that alone change another outcome by more than the margin, with the whole interval."""
    return [
        f"{PARTS[part['part']]} change {row['outcome']} by {spelled(row, 'effect')}"
        for part in parts
        for row in _rows(rows, direction="inserted", kind="part", group=part["group"])
        if row["outcome"] != part["outcome"] and (row["effect_low"] > margin or row["effect_high"] < -margin)
    ]


def _depths(table: "pd.DataFrame | None", goals: Sequence[str]) -> Iterator[str]:
    if table is None:
        return
    for direction, wording in (
        ("inserted", "Put in from below, half of the effect is there"),
        ("restored", "Taken out from below, half of it is gone"),
    ):
        rows = {goal: _rows(target_of(table, goal), direction=direction)[0] for goal in goals}
        rows = {goal: row for goal, row in rows.items() if row["depth"] == row["depth"]}
        if not rows:
            continue
        depths = "; ".join(f"{goal} at {spelled(row, 'depth', 'low', 'high')} blocks" for goal, row in rows.items())
        yield f"{wording}: {depths}{_told_apart(list(rows.values()))}."


def _ranks(table: "pd.DataFrame", ranks: "pd.DataFrame", goals: Sequence[str]) -> Iterator[str]:
    rows = {goal: _rows(target_of(table, goal))[0] for goal in goals}
    found = {goal: row for goal, row in rows.items() if row["rank"] == row["rank"]}
    if found:
        share = next(iter(found.values()))["share"]
        listed: list[str] = []
        for goal, row in found.items():
            beside = _others(_rows(ranks, goal=goal, rank=row["rank"]), row["outcome"])
            listed.append(f"{goal} {row['rank']:.0f} [{row['low']:.0f}, {row['high']:.0f}] of {row['full']}{beside}")
        told = _told_apart(list(found.values()))
        yield f"Directions a matrix that carry {share:.0%} of it: {'; '.join(listed)}{told}."


def _told_apart(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) != 2:
        return ""
    first, second = rows
    return {True: ", intervals apart", False: ", which the intervals do not tell apart", None: ""}[apart(first, second)]


def _together(table: "pd.DataFrame | None", goals: Sequence[str], margin: float) -> Iterator[str]:
    if table is None:
        return
    outcomes = list(dict.fromkeys(str(name) for name in table["outcome"]))
    crossed: list[str] = []
    joint: list[str] = []
    decisive: list[dict[str, Any]] = []
    for outcome in outcomes:
        (other,) = (name for name in goals if not outcome.startswith(f"{name}: "))
        (row,), (both,) = (_rows(table, outcome=outcome, contrast=name) for name in (other, "interaction"))
        crossed.append(f"that of {other} changes {outcome} by {spelled(row, 'mean', 'low', 'high')}, {_verdict(row)}")
        joint.append(f"{outcome} {spelled(both, 'mean', 'low', 'high')}, {_verdict(both)}")
        decisive += [row, both]
    yield f"Each change alone, on the other goal (margin {margin:g}): {'; '.join(crossed)}."
    yield f"Both in one model, what is beyond their sum: {'; '.join(joint)}."
    if all(row["equivalent"] for row in decisive):
        yield "In these runs the two changes act independently of each other, within the margin."
    else:
        yield "That the two changes act independently is not shown."


def _verdict(row: Mapping[str, Any]) -> str:
    told = "equivalent to none" if row["equivalent"] else "not shown to be equivalent to none"
    return f"{told} ({row['equivalence_low']:.3f} to {row['equivalence_high']:.3f})"


def _carried(table: "pd.DataFrame | None", goals: Sequence[str]) -> Iterator[str]:
    if table is None:
        return
    for goal in goals:
        found = table.loc[table["goal"] == goal]
        if found.empty:
            continue
        found = target_of(found, goal)
        parts: list[str] = []
        for onto in dict.fromkeys(str(name) for name in found["onto"]):
            own, there, difference = (
                _rows(found, onto=onto, contrast=name)[0] for name in ("on original", "on twin", "difference")
            )
            verdict = "the same" if difference["equivalent"] else "not shown to be the same"
            parts.append(
                f"on {onto} {spelled(there, 'mean', 'low', 'high')} instead of "
                f"{spelled(own, 'mean', 'low', 'high')}, {verdict}"
            )
        yield f"The change of {goal} does {'; '.join(parts)}, within the margin."


def patching_sentences(table: "pd.DataFrame | None") -> Iterator[str]:
    """Where the donor's states move the answer the donor's way, by enough, and further than a stranger's states do.

    Enough is `LEAST` of the difference between the two models: that an effect is above 0 says little of many places,
    whose intervals are not corrected for their number.

    Args:
        table: of patching between an original and its twins, with the columns goal and into.
    """
    if table is None:
        return
    for goal, into in dict.fromkeys(zip(table["goal"], table["into"], strict=True)):
        rows = _rows(table, goal=goal, into=into)
        donor = {"twin": "original", "original": "twin"}[into]
        difference = rows[0]["donor"] - rows[0]["recipient"]
        way = 1 if difference > 0 else -1
        floored = all(row["beyond_floor"] == row["beyond_floor"] for row in rows)
        names = ("effect", "beyond_floor") if floored else ("effect",)
        beyond = [row for row in rows if all(_beyond_zero(row, name, way) for name in names)]
        moved = [row for row in beyond if row["effect"] / difference >= LEAST]
        places: dict[str, list[int]] = {}
        for row in moved:
            places.setdefault(str(row["position"]), []).append(int(row["layer"]))
        listed = "; ".join(f"{name} tokens after block {_spans(layers)}" for name, layers in places.items())
        most = max(rows, key=lambda row: way * row["effect"])
        told = f"; of all places most by {spelled(most, 'effect')} nats of {difference:.2f}"
        by = told if _beyond_zero(most, "effect", way) else ""
        beside = " and further than a stranger's do" if floored else " (no floor: disturbance alone may do so)"
        yield (
            f"Of {goal}, the {donor}'s states in the {into} move the answer by {LEAST:.0%} of the way or more{beside}, "
            f"of {len(rows)} places, at: {listed or 'none'}{by}."
        )


def _beyond_zero(row: Mapping[str, Any], name: str, way: int) -> bool:
    return (row[f"{name}_low"] > 0) if way > 0 else (row[f"{name}_high"] < 0)


def _spans(layers: Sequence[int]) -> str:
    """Runs of whole numbers: 1, 3 to 5."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _directions(table: "pd.DataFrame | None", goals: Sequence[str]) -> Iterator[str]:
    if table is None or len(goals) < 2:
        return
    whole = table.loc[table["kind"] == "all"]
    means = {
        str(name): (float(part["cosine"].mean()), float(part["null_low"].min()), float(part["null_high"].max()))
        for name, part in whole.groupby("between", sort=False)
    }
    listed = "; ".join(f"{name} {mean:.3f} (null {low:.3f} to {high:.3f})" for name, (mean, low, high) in means.items())
    yield f"Mean cosine of changes, between seeds of a goal and between the goals: {listed}."


def _left_open(table: "pd.DataFrame") -> Iterator[str]:
    if len(table):
        listed = "; ".join(f"{row['measure']} (needs {row['needs']}; floor: {row['floor']})" for row in _rows(table))
        yield f"Not measured: {listed}."
