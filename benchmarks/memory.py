"""Peak memory of `collect` by the number of texts, each in a process of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from interp_unlearn import HookedModel, collect
from interp_unlearn.organism.knowledge import Fact
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.organism.world import World
from interp_unlearn.sites import residual_stream


def measure(counts: tuple[int, ...] = (1_000, 100_000)) -> pd.DataFrame:
    """Peak resident memory, in MB, of collecting that many short texts from the organism to disk."""
    rows: list[dict[str, float]] = []
    for count in counts:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(count)], capture_output=True, text=True, check=True
        )
        rows.append({"texts": count, "peak_mb": float(done.stdout.split()[-1])})
    return pd.DataFrame(rows).assign(added_mb=lambda table: table["peak_mb"] - table["peak_mb"].iloc[0])


def peak_of(n_texts: int) -> float:
    """Collects in this process and returns its peak, in MB."""
    facts: list[Fact] = World(0).knowledge.hazardous
    sentences = [fact.sentence(i) for fact in facts for i in range(6)]
    n = len(sentences)
    texts = [f"{sentences[i % n]} {sentences[(i // n + 7 * i) % n]}" for i in range(n_texts)]
    model = HookedModel.from_pretrained(twin_path("knows_all"))
    with tempfile.TemporaryDirectory() as folder:
        collect(model, texts, residual_stream(model.n_layers), out=Path(folder) / "store", progress=False)
    # Not getrusage: its maximum outlives exec, and so counts the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(peak_of(int(sys.argv[1])))
