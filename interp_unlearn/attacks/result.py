"""What a suite of attacks has found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.statistics import Interval, bootstrap_mean, holm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class AttackResult:
    """All attempts of all attacks on one model.

    Attributes:
        attempts: see `to_frame`.
        items: scores behind them: attack, setting, step, id, score (missing where left out), reason, original (asked
            in the same words), and control where there is one.
        original: scores of the original.
        unlearned: scores of the unlearned model before any attack.
        hashes: of the two models' weights, by "original" and "unlearned".
    """

    attempts: "pd.DataFrame"
    items: "pd.DataFrame"
    original: MeasuredItems
    unlearned: MeasuredItems
    hashes: dict[str, str]

    def to_frame(self) -> "pd.DataFrame":
        """One row an attempt, in the order in which they were made.

        Columns: attack, setting (JSON), step; score with its 95% bootstrap interval low, high; n (items scored on all
        models compared), n_groups, n_left_out; original and unlearned, their scores on the same items; recovered, the
        share of the gap with recovered_low, recovered_high; control (score under random directions) and p (one-sided,
        the attack against its control, paired by group); reason, why something is missing.
        Caveat: p is small too where an attack harms, and random directions harm more; read it beside the share.
        """
        return self.attempts

    def worst(self) -> "pd.DataFrame":
        """Of each attack the attempt that recovered most, or scored most where no share can be named.

        Ordered by the share, the largest first, missing ones last; with n_attempts, and p_adjusted, p by Holm's method
        among the attempts of the attack. Caveat: the best of many attempts is high by chance too, and its interval does
        not know of the others.
        """
        by_attack = self.attempts.groupby("attack", sort=False)
        ranked = self.attempts.assign(
            n_attempts=by_attack["attack"].transform("size"), p_adjusted=by_attack["p"].transform(_adjusted)
        )
        ranked = ranked.sort_values(["recovered", "score"], ascending=False, na_position="last", kind="stable")
        return ranked.drop_duplicates("attack").reset_index(drop=True)

    def models(self) -> "pd.DataFrame":
        """Both models before any attack: model, score (its name), mean, low, high, n, n_groups, n_left_out."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for name, items in (("original", self.original), ("unlearned", self.unlearned)):
            interval = mean_interval(items)
            rows.append(
                {
                    "model": name,
                    "score": items.score,
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "n": len(items),
                    "n_groups": len(set(items.groups)),
                    "n_left_out": len(items.left_out),
                }
            )
        return pd.DataFrame(rows)

    def notes(self) -> list[str]:
        """What a reader has to know beside the numbers."""
        found: list[str] = []
        if not self.unlearned.grouped:
            found.append("No groups were given: every item is its own group, as if all were independent.")
        left_out = self.original.left_out.keys() | self.unlearned.left_out.keys()
        if left_out:
            shown = ", ".join(sorted(left_out)[:5]) + (", ..." if len(left_out) > 5 else "")
            found.append(f"{len(left_out)} items could not be scored and are left out: {shown}")
        return found

    def save(self, folder: str | Path) -> None:
        """Write attempts.parquet, worst.parquet, items.parquet, models.parquet and attacks.json into a folder."""
        folder = Path(folder)
        write_parquet(folder / "attempts.parquet", self.attempts)
        write_parquet(folder / "worst.parquet", self.worst())
        write_parquet(folder / "items.parquet", self.items)
        parts = [("original", self.original), ("unlearned", self.unlearned)]
        write_parquet(folder / "models.parquet", self.models())
        left_out = {name: dict(items.left_out) for name, items in parts}
        record = {"hashes": self.hashes, "left_out": left_out, "notes": self.notes(), "environment": environment()}
        write_json(folder / "attacks.json", record)


def _adjusted(p_values: "pd.Series") -> np.ndarray:
    """Holm's, among those that are there."""
    found = np.array(p_values, dtype=float)
    known = ~np.isnan(found)
    if known.any():
        found[known] = holm(found[known])
    return found


def mean_interval(items: MeasuredItems) -> Interval:
    """The mean over items with its interval, which is missing where there is one group."""
    n_groups = len(set(items.groups))
    if n_groups < 2:
        mean = float(items.scores.mean()) if len(items) else float("nan")
        return Interval(mean, float("nan"), float("nan"), n_groups)
    return bootstrap_mean(items.scores, items.groups)


def joined(tables: "Sequence[pd.DataFrame]", columns: Sequence[str]) -> "pd.DataFrame":
    """Tables one below the other, of which some or all may be empty."""
    import pandas as pd

    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
