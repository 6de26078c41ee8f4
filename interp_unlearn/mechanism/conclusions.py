"""Sentences about a dissection, each made from its numbers, so that they change when the numbers do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]
PARTS = {"attention": "attention", "mlp": "MLPs", "embedding": "embedding", "unembedding": "head", "norm": "norms"}


def draw_conclusions(tables: Tables, goals: Sequence[str], margin: float) -> str:
    """A paragraph on what the tables show and what they do not.

    Args:
        tables: of a dissection, by name.
        goals: in its order.
        margin: of its equivalence tests.
    """
    sentences = [
        *_parts(tables["transplant"], goals),
        *_depths(tables.get("depth"), goals),
        *_ranks(tables["sufficient_rank"], goals),
        *_together(tables.get("composition"), goals, margin),
        *_carried(tables.get("carried"), goals),
        *_directions(tables.get("alignment"), goals),
        *_left_open(tables["missing"]),
    ]
    return " ".join(sentences)


def target_of(table: "pd.DataFrame", goal: str) -> "pd.DataFrame":
    """The rows of a goal's first outcome, which is its target."""
    rows = table.loc[table["goal"] == goal]
    return rows.loc[rows["outcome"] == rows["outcome"].iloc[0]]


def spelled(row: Mapping[str, Any], name: str, low: str | None = None, high: str | None = None) -> str:
    """A number with its interval."""
    value, bottom, top = (float(row[key]) for key in (name, low or f"{name}_low", high or f"{name}_high"))
    return "undefined" if value != value else f"{value:.2f} [{bottom:.2f}, {top:.2f}]"


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


def _parts(table: "pd.DataFrame", goals: Sequence[str]) -> Iterator[str]:
    for goal in goals:
        found = target_of(table, goal)
        whole = _rows(found, direction="inserted", kind="all")
        if whole:
            effect = spelled(whole[0], "effect")
            yield f"Unlearning {goal} changed {whole[0]['outcome']} by {effect} (n = {whole[0]['n']})."
        inserted = [row for row in _rows(found, direction="inserted", kind="part") if row["n_tensors"]]
        inserted = [row for row in inserted if row["share"] == row["share"]]
        if not inserted:
            yield f"No share of it can be named on {goal}, for the whole difference is not told from 0."
            continue
        shares = ", ".join(f"{PARTS[row['part']]} {spelled(row, 'share')}" for row in inserted)
        restored = [row for row in _rows(found, direction="restored", kind="part") if row["n_tensors"]]
        undone = ", ".join(f"{PARTS[row['part']]} {spelled(row, 'share')}" for row in restored)
        yield f"Shares of that by the changed tensors of one part, put into the original: {shares};"
        yield f"undone when the original's come back: {undone}."


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


def _ranks(table: "pd.DataFrame", goals: Sequence[str]) -> Iterator[str]:
    rows = {goal: _rows(target_of(table, goal))[0] for goal in goals}
    found = {goal: row for goal, row in rows.items() if row["rank"] == row["rank"]}
    if found:
        share = next(iter(found.values()))["share"]
        ranks = "; ".join(
            f"{goal} {row['rank']:.0f} [{row['low']:.0f}, {row['high']:.0f}] of {row['full']}"
            for goal, row in found.items()
        )
        yield f"Directions a matrix that carry {share:.0%} of it: {ranks}{_told_apart(list(found.values()))}."


def _told_apart(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) != 2:
        return ""
    first, second = rows
    return {True: ", intervals apart", False: ", which the intervals do not tell apart", None: ""}[apart(first, second)]


def _together(table: "pd.DataFrame | None", goals: Sequence[str], margin: float) -> Iterator[str]:
    if table is None:
        return
    targets = {goal: _first_outcome(table, goal) for goal in goals}
    crossed: list[str] = []
    for goal, outcome in targets.items():
        (other,) = (name for name in goals if name != goal)
        (row,) = _rows(table, outcome=outcome, contrast=other)
        crossed.append(f"that of {other} changes {outcome} by {spelled(row, 'mean', 'low', 'high')}, {_verdict(row)}")
    yield f"Each change alone, on the other goal (margin {margin:g}): {'; '.join(crossed)}."
    joint: list[str] = []
    for outcome in targets.values():
        (row,) = _rows(table, outcome=outcome, contrast="interaction")
        joint.append(f"{outcome} {spelled(row, 'mean', 'low', 'high')}, {_verdict(row)}")
    yield f"Both in one model, what is beyond their sum: {'; '.join(joint)}."
    decisive = [
        row
        for outcome in targets.values()
        for row in _rows(table, outcome=outcome)
        if row["contrast"] != "sum" and not outcome.startswith(f"{row['contrast']}: ")
    ]
    if all(row["equivalent"] for row in decisive):
        yield "In these runs the two changes act independently of each other, within the margin."
    else:
        yield "That the two changes act independently is not shown."


def _first_outcome(table: "pd.DataFrame", goal: str) -> str:
    return next(str(name) for name in table["outcome"] if str(name).startswith(f"{goal}: "))


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
