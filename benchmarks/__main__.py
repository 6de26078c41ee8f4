"""`python -m benchmarks [NAME ...]`: measure all or some, and write docs/benchmarks.md.

With --check nothing is measured or written: exit code 1 says that the page is not what the stored results make.
"""

import argparse
import os

import pandas as pd

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import determinism, gpu, importing, interventions, machine, probes, unlearning
from benchmarks.page import PAGE, keep_result, page_text, write_page
from benchmarks.sections import DESCRIBED

MEASURED = {
    "importing": importing.measure,
    "reading": interventions.measure_reading,
    "collecting": interventions.measure_collecting,
    "memory": interventions.measure_memory,
    "probes": probes.measure,
    "probes_on_demand": probes.measure_on_demand,
    "update": unlearning.measure_step,
    "training_memory": unlearning.measure_training_memory,
    "unlearning_8b": unlearning.measure_8b,
    "determinism": determinism.measure,
    "gpu": gpu.measure_reading,
    "gpu_collecting": gpu.measure_collecting,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURED)}; all without any")
    parser.add_argument("--check", action="store_true", help="is the page what the stored results make?")
    parser.add_argument("--beside", metavar="TEXT", help="what else the machine is doing, told on the page")
    given = parser.parse_args()
    if given.check:
        if PAGE.read_text(encoding="utf-8") != page_text(DESCRIBED):
            parser.exit(1, f"{PAGE.name} is not what benchmarks/results makes; run `make benchmarks`\n")
        return
    names = given.names or list(MEASURED)
    if unknown := [name for name in names if name not in MEASURED]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; expected of {', '.join(MEASURED)}")
    for name in names:
        table: pd.DataFrame | None = MEASURED[name]()
        if table is None:
            print(f"{name}: cannot be measured on this machine; the page keeps what was measured before")
            continue
        facts = machine.facts(str(table["device"].iloc[0]) if "device" in table else "cpu")
        keep_result(name, table, facts | ({"beside": given.beside} if given.beside else {}))
        print(table.to_string(index=False))
    write_page(DESCRIBED)


if __name__ == "__main__":
    main()
