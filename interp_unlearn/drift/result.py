"""What a comparison of two models has found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.drift.measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd

SUMMARY, RECORD, FOLDER = "summary.parquet", "drift.json", "measures"


@dataclass(frozen=True, eq=False)
class DriftResult:
    """The measures of one unlearned model beside its original.

    Attributes:
        summary: see `to_frame`.
        tables: each measure's own tables, by measure and name; columns as the measure's function describes them.
        hashes: of the models' weights, by "original", "unlearned" and, where there is one, "twin".
    """

    summary: "pd.DataFrame"
    tables: "Mapping[str, Mapping[str, pd.DataFrame]]"
    hashes: Mapping[str, str]

    def to_frame(self) -> "pd.DataFrame":
        """One row a number, the measures that say most first.

        Columns: measure; evidence (causal, exact, control, descriptive); quantity, in words; place (a site, a tensor,
        or all), layer (null outside the blocks), corpus; value, with a 95% interval low, high where there is one;
        null_low, null_high, what comes out where there is nothing to find, and null, what that is (one end where the
        other is no limit); n of what is counted; reason, why there is no value; small_models, why the measure carries
        little there; cannot_show, what no value of it would mean.
        Caveat: of many layers the most extreme is extreme by chance too; choose the layer before.
        """
        return self.summary.copy()

    def overview(self) -> "pd.DataFrame":
        """Of each measure, quantity and corpus the smallest and the largest value, and where: measure, evidence,
        quantity, corpus, smallest, at, largest, at_largest, n_values."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        known = self.summary.dropna(subset=["value"])
        for _, part in known.groupby(["measure", "quantity", "corpus"], sort=False, dropna=False):
            least, most = part.loc[part["value"].idxmin()], part.loc[part["value"].idxmax()]
            said = {name: most[name] for name in ("measure", "evidence", "quantity", "corpus")}
            ends = {"smallest": least["value"], "at": least["place"], "largest": most["value"]}
            rows.append(said | ends | {"at_largest": most["place"], "n_values": len(part)})
        columns = ["measure", "evidence", "quantity", "corpus", "smallest", "at", "largest", "at_largest", "n_values"]
        return pd.DataFrame(rows, columns=columns)

    def missing(self) -> dict[str, str]:
        """Why a measure, or its one number, is not there: by measure."""
        without = self.summary.dropna(subset=["reason"])
        return dict(zip(without["measure"].tolist(), without["reason"].tolist(), strict=True))

    def save(self, folder: str | Path) -> None:
        """Write summary.parquet, drift.json, and each measure's tables under measures/, into a folder."""
        folder = Path(folder)
        for name, tables in self.tables.items():
            for table, frame in tables.items():
                write_parquet(folder / FOLDER / name / f"{table}.parquet", frame)
        save_summary(self, folder)


def save_summary(result: DriftResult, folder: Path) -> None:
    """Write what is of all measures together: summary.parquet and drift.json."""
    write_parquet(folder / SUMMARY, result.summary)
    said = {name: MEASURES[name].cannot_show for name in dict.fromkeys(result.summary["measure"].tolist())}
    record = {"hashes": dict(result.hashes), "missing": result.missing(), "cannot_show": said}
    write_json(folder / RECORD, record | {"environment": environment()})
