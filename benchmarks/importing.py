"""What importing the package costs over importing torch, in processes of their own."""

import subprocess
import sys

import pandas as pd
from tqdm import tqdm

from benchmarks.page import Bar, Section

TORCH = "import torch"
PACKAGE = "import interp_unlearn"
LAYER = "its intervention layer"
AFTER_TORCH = {
    PACKAGE: PACKAGE,
    LAYER: "from interp_unlearn import HookedModel, Site",
    "all its public names": "from interp_unlearn import *",
}
_TIMED = """\
import time
begun = time.perf_counter()
import torch
between = time.perf_counter()
{statement}
print(between - begun, time.perf_counter() - between)
"""


def measure(rounds: int = 9) -> pd.DataFrame:
    """Seconds of importing torch and, after it in the same process, of the package; every round runs all in turn.

    Returns:
        One line a statement: what, s (median), s_low, s_high (quartiles), rounds. The files are in the system's
        cache from the first round, which does not count.
    """
    taken: dict[str, list[float]] = {TORCH: [], **{name: [] for name in AFTER_TORCH}}
    for number in tqdm(range(rounds + 1), desc="importing"):
        for name, statement in AFTER_TORCH.items():
            torch_seconds, seconds = _in_a_new_process(statement)
            if number:
                taken[TORCH].append(torch_seconds)
                taken[name].append(seconds)
    rows = [{"what": name, **_quartiles(pd.Series(seconds)), "rounds": rounds} for name, seconds in taken.items()]
    return pd.DataFrame(rows)


def describe(rows: pd.DataFrame) -> list[Section]:
    """The section on importing."""
    spread = [f"{1000 * row.s:,.0f} [{1000 * row.s_low:,.0f}, {1000 * row.s_high:,.0f}]" for row in rows.itertuples()]
    shown = pd.DataFrame({"": rows["what"], "median ms": spread})
    cost = rows.set_index("what")["s"]
    text = (
        f"`{TORCH}` in a new process, and what follows it there, each apart. Names are loaded on first use, the "
        f"libraries of models, probes and figures by what needs them. {rows['rounds'].iloc[0]} rounds, after one that "
        "fills the file cache."
    )
    bars = tuple(Bar(f"{name}, after torch, seconds", float(cost[name]), highest=0.5) for name in (PACKAGE, LAYER))
    return [Section("Importing", text, shown, bars)]


def _in_a_new_process(statement: str) -> tuple[float, float]:
    code = _TIMED.format(statement=statement)
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    torch_seconds, seconds = map(float, run.stdout.split())
    return torch_seconds, seconds


def _quartiles(seconds: pd.Series) -> dict[str, float]:
    low, median, high = seconds.quantile([0.25, 0.5, 0.75])
    return {"s": median, "s_low": low, "s_high": high}
