"""`python -m benchmarks [NAME ...]`: measure all or some, and write docs/benchmarks.md."""

import argparse
import os

import pandas as pd

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import gpu, interventions, machine, probes, unlearning
from benchmarks.page import keep_result, write_page

MEASURED = {
    "reading": interventions.measure_reading,
    "collecting": interventions.measure_collecting,
    "memory": interventions.measure_memory,
    "probes": probes.measure,
    "probes_on_demand": probes.measure_on_demand,
    "update": unlearning.measure_step,
    "training_memory": unlearning.measure_training_memory,
    "unlearning_8b": unlearning.measure_8b,
    "gpu": gpu.measure,
}
DESCRIBED = {
    "reading": interventions.describe_reading,
    "collecting": interventions.describe_collecting,
    "memory": interventions.describe_memory,
    "probes": probes.describe,
    "probes_on_demand": probes.describe_on_demand,
    "update": unlearning.describe_step,
    "training_memory": unlearning.describe_training_memory,
    "unlearning_8b": unlearning.describe_8b,
    "gpu": gpu.describe,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURED)}; all without any")
    names = parser.parse_args().names or list(MEASURED)
    if unknown := [name for name in names if name not in MEASURED]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; expected of {', '.join(MEASURED)}")
    for name in names:
        table: pd.DataFrame | None = MEASURED[name]()
        if table is None:
            print(f"{name}: cannot be measured on this machine; the page keeps what was measured before")
            continue
        keep_result(name, table, machine.facts(str(table["device"].iloc[0]) if "device" in table else "cpu"))
        print(table.to_string(index=False))
    write_page(DESCRIBED)


if __name__ == "__main__":
    main()
