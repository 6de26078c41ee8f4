"""docs/benchmarks.md, made from the results that the benchmarks left behind."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from interp_unlearn.artifacts import write_json

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """\
<!-- Made by `make benchmarks`; change benchmarks/, not this. -->
# Benchmarks

`make benchmarks` measures all of this again, but for what names a command of its own, and writes this page;
`.venv/bin/python -m benchmarks NAME` measures one part. What is compared is timed in turns within one process, so that
what else the machine does falls on all alike. A ratio is the median over the rounds of one time by the other, with the
quartiles in brackets. Times are those of the machine named; ratios travel better.
"""


@dataclass(frozen=True)
class Bar:
    """Something promised, and what was measured.

    Attributes:
        what: in words.
        measured: the number.
        lowest: at least this; None for no bound.
        highest: at most this; None for no bound.
    """

    what: str
    measured: float
    lowest: float | None = None
    highest: float | None = None

    @property
    def met(self) -> bool:
        return (self.lowest is None or self.measured >= self.lowest) and (
            self.highest is None or self.measured <= self.highest
        )

    def line(self) -> str:
        bounds = [f"at least {self.lowest:.3g}"] if self.lowest is not None else []
        bounds += [f"at most {self.highest:.3g}"] if self.highest is not None else []
        return f"| {self.what} | {' and '.join(bounds)} | {self.measured:.3g} | {'yes' if self.met else 'no'} |"


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        title: heading.
        text: what was measured.
        table: the frame as it is printed.
        bars: what was promised of it.
    """

    title: str
    text: str
    table: pd.DataFrame
    bars: tuple[Bar, ...] = ()


def keep_result(name: str, table: pd.DataFrame, machine: Mapping[str, Any]) -> None:
    """Leave a result for the page."""
    rows = json.loads(table.to_json(orient="records"))
    write_json(RESULTS / f"{name}.json", {"machine": dict(machine), "rows": rows})


def kept_rows(name: str, on: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a result that was left before on such a machine; none where there is none."""
    file = RESULTS / f"{name}.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"machine": None}
    return stored["rows"] if stored["machine"] == dict(on) else []


def write_page(sections: Mapping[str, Callable[[pd.DataFrame], list[Section]]]) -> None:
    """Write the page from all results there are."""
    PAGE.write_text(page_text(sections), encoding="utf-8")


def page_text(sections: Mapping[str, Callable[[pd.DataFrame], list[Section]]]) -> str:
    """The page that all stored results make."""
    text = INTRODUCTION
    for name, describe in sections.items():
        file = RESULTS / f"{name}.json"
        if not file.is_file():
            continue
        stored = json.loads(file.read_text(encoding="utf-8"))
        for section in describe(pd.DataFrame(stored["rows"])):
            text += _markdown(section, stored["machine"])
    return text


def ratio_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of `timing.summarize` as they are printed."""
    ratio = [
        f"{row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]"
        for row in table.itertuples()  # pyright: ignore
    ]
    shown = pd.DataFrame({"": table["what"], "median ms": table["ms"].map("{:,.1f}".format), "ratio": ratio})
    if "tokens_per_second" in table and table["tokens_per_second"].notna().all():
        shown["tokens/s"] = table["tokens_per_second"].map("{:,.0f}".format)
    return shown


def _markdown(section: Section, machine: Mapping[str, Any]) -> str:
    where = (
        f"{machine['processor']}, {machine['threads']} threads, {machine['memory_gib']} GiB; Python "
        f"{machine['python']}, " + ", ".join(f"{k} {v}" for k, v in machine.items() if k in _LIBRARIES)
    ) + (f"; beside {machine['beside']}" if "beside" in machine else "")
    lines = [f"\n## {section.title}\n\n{section.text}\n", _table(section.table)]
    if section.bars:
        lines.append("\n| bar | bound | measured | met |\n|---|---|---|---|")
        lines += [bar.line() for bar in section.bars]
    return "\n".join(lines) + f"\n\n*{where}.*\n"


_LIBRARIES = ("torch", "transformers", "transformer-lens", "nnsight", "scikit-learn")


def _table(table: pd.DataFrame) -> str:
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
