"""`python -m benchmarks.mutation`: small faults are put into the code, one at a time; how many do the tests notice?

A seeded sample of the places in objectives, probes, drift and statistics where cosmic-ray can make a fault, and of one
of the faults at each. It is put into a copy of the repository and the tests that reach its line are run, those about
its module or part first, until one fails. Which tests reach a line is read from the coverage of the whole suite (`make
coverage`), so a fault on a line that no test reaches counts as unnoticed, as does one that no test notices. A copy that
does not end in the time allowed is noticed: a fault that hangs is no silent one. A test that fails has to pass without
the fault. What was tried is kept in runs/mutation, and the same command goes on from there.

Left out are faults that any test would notice (names that are not there, bits of floats), and those that cannot change
what a caller gets: in annotations, `is` for `==`, and `strict=` of a `zip`. Other equivalent ones count against the
tests; each survivor is listed, to be looked at.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from benchmarks import machine
from benchmarks.page import Bar, Section, keep_result, write_page

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("objectives", "probes", "drift", "statistics")
SAMPLE, SEED, SECONDS = 300, 2, 1800
RUN = ROOT / "runs" / "mutation"
NEAREST, DRAWN = 80, 40
SIGNATURES = "tests/test_public_signatures.py"
SKIPPED = ("Variable", "RemoveDecorator", "ExceptionReplacer", "Bit", "Shift", "Pow", "_Is_", "_IsNot_")
KEPT = ("Is_IsNot", "IsNot_Is", "Delete_")


@dataclass(frozen=True)
class Fault:
    """One fault: the operator's occurrence in a file, and where it is."""

    path: str
    operator: str
    occurrence: int
    line: int
    column: int


@dataclass(frozen=True)
class Outcome:
    """What became of a fault: noticed, by a failing test or by hanging, or not; and how many tests reach it."""

    fault: Fault
    noticed: bool
    how: str
    tests: int


def faults_of(path: Path) -> Iterator[Fault]:
    """Every fault that can be put into a file, but for those of `SKIPPED`."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast_from_path(path)
    for name in sorted(operator_names()):
        left_out = any(part in name for part in SKIPPED) or name.endswith(("_Is", "_IsNot"))
        if left_out and not name.endswith(KEPT):
            continue
        operator = get_operator(name)()
        places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, ((line, column), _) in enumerate(places):
            yield Fault(str(path.relative_to(ROOT)), name, occurrence, line, column)


def sampled(parts: Sequence[str], size: int, seed: int) -> list[Fault]:
    """One fault at each of a sample of places."""
    draw = random.Random(seed)
    files = sorted(file for part in parts for file in (ROOT / "interp_unlearn" / part).rglob("*.py"))
    places: dict[tuple[str, int, int], list[Fault]] = {}
    for file in files:
        for fault in faults_of(file):
            if _counts(file, fault):
                places.setdefault((fault.path, fault.line, fault.column), []).append(fault)
    chosen = draw.sample(sorted(places), min(size, len(places)))
    return [draw.choice(places[place]) for place in chosen]


def _counts(file: Path, fault: Fault) -> bool:
    """Whether a fault is where something is done; those of definitions are their annotations', and a `zip` that need
    not be strict gives the same."""
    line = file.read_text(encoding="utf-8").splitlines()[fault.line - 1]
    nothing = ("def ", "@", "from ", "import ", "class ", ") ->", "if TYPE")
    return not line.strip().startswith(nothing) and not line[: fault.column].endswith("strict=")


def reaching(coverage: Path, faults: Sequence[Fault]) -> dict[tuple[str, int], list[str]]:
    """The tests that reach each fault's line, from the contexts of a coverage file; those that run least code first.

    What a fixture runs is in the context of the first test that asked for it: all tests of its file are taken. A line
    that is run on import alone, or is of a function's head, such as a default, is reached by what reaches its file, and
    by the test of signatures.
    """
    from coverage import CoverageData

    data = CoverageData(str(coverage))
    data.read()
    measured = {Path(file).resolve(): file for file in data.measured_files()}
    by_line = {file: data.contexts_by_lineno(file) for file in measured.values()}
    seen = [context for lines in by_line.values() for each in lines.values() for context in each if "::" in context]
    breadth = Counter(_test(context) for context in seen)
    of_module: dict[str, set[str]] = {}
    for test in breadth:
        of_module.setdefault(_module(test), set()).add(test)
    found: dict[tuple[str, int], list[str]] = {}
    for fault in faults:
        lines = by_line.get(measured.get((ROOT / fault.path).resolve(), ""), {})
        contexts = {context for context in lines.get(fault.line, []) if "::" in context}
        on_import = not contexts and (fault.line in lines or fault.line in heads(ROOT / fault.path))
        if on_import:
            contexts = {context for each in lines.values() for context in each if "::" in context}
        names = {_test(context) for context in contexts}
        names |= {test for each in contexts if each.endswith("|setup") for test in of_module[_module(each)]}
        names |= {SIGNATURES} if on_import else set()
        found[fault.path, fault.line] = sorted(names, key=lambda name: (breadth[name], name))
    return found


@cache
def heads(path: Path) -> frozenset[int]:
    """The lines of a file on which functions' heads stand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(line for node in functions for line in range(node.lineno, node.body[0].lineno))


def _module(test: str) -> str:
    return test.split("::")[0]


def _test(context: str) -> str:
    """The test of a context, which names its phase too."""
    return context.split("|")[0]


def is_about(test: str, path: str) -> bool:
    """Whether a test's file is named after the module, or after its part of the package."""
    name, part, stem = Path(_module(test)).stem, Path(path).parts[1], Path(path).stem
    return name.startswith(f"test_{part}") or f"_{stem}" in name


def try_fault(fault: Fault, tests: Sequence[str], seconds: int) -> Outcome:
    """Puts a fault into a copy of the package and runs the tests that reach it."""
    from cosmic_ray.mutating import apply_mutation
    from cosmic_ray.plugins import get_operator

    if not tests:
        return Outcome(fault, False, "no test reaches it", 0)
    # Where very many reach a line, some of the others by a fixed draw: what the rest would notice counts as unnoticed.
    about = [test for test in tests if is_about(test, fault.path)]
    elsewhere = [test for test in tests if not is_about(test, fault.path)]
    others = elsewhere[NEAREST:]
    drawn = random.Random(f"{fault}").sample(others, min(DRAWN, len(others)))
    chosen = [*about, *elsewhere[:NEAREST], *drawn]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "repository"
        copy_repository(copy)
        _, mutated = apply_mutation(copy / fault.path, get_operator(fault.operator)(), fault.occurrence)
        if mutated is None:
            raise RuntimeError(f"{fault}: there is nothing to change at that place")
        try:
            failed, how = first_failing(copy, chosen, seconds), "a test fails"
        except subprocess.TimeoutExpired:
            failed, how = chosen, "it hangs"
    if failed and not passes_unchanged(tuple(failed), seconds):
        raise RuntimeError(f"fails, or takes as long, without {fault} too, mend it first: {' '.join(failed)}")
    return Outcome(fault, bool(failed), how if failed else "no test fails", len(tests))


def tracked() -> list[str]:
    """What git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted(filter(None, listed.split("\0")))


def copy_repository(to: Path) -> None:
    """Copies what git tracks."""
    for name in tracked():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)


def first_failing(copy: Path, tests: Sequence[str], seconds: int | None = None) -> Sequence[str]:
    """The first of the tests that fails in a copy, in one process of one thread; all where none can be named.

    Raises:
        RuntimeError: the tests were killed, or could not be run to an end.
        TimeoutExpired: they took longer than that.
    """
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=seconds, start_new_session=True
    )
    if not done.returncode:
        return ()
    if done.returncode < 0 or "KeyboardInterrupt" in done.stdout[-2000:]:
        raise RuntimeError(f"the tests in {copy} were stopped (exit code {done.returncode}): {' '.join(tests)}")
    named = re.search(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return (named[1],) if named and {named[1], _module(named[1])} & set(tests) else tests


@cache
def passes_unchanged(tests: tuple[str, ...], seconds: int) -> bool:
    """Whether the tests pass without any fault, in that time."""
    with tempfile.TemporaryDirectory() as place:
        copy_repository(Path(place))
        try:
            return not first_failing(Path(place), tests, seconds)
        except subprocess.TimeoutExpired:
            return False


def describe(rows: pd.DataFrame) -> list[Section]:
    """The section on faults: the share noticed with its 95% interval (Wilson), by part of the package."""
    from scipy.stats import binomtest

    def line(name: str, part: pd.DataFrame) -> dict[str, object]:
        found = binomtest(int(part["noticed"].sum()), len(part))
        interval = found.proportion_ci(0.95, method="wilson")
        unnoticed = part.loc[~part["noticed"], "how"].value_counts().to_dict()
        return {
            "part": name,
            "faults": len(part),
            "noticed": found.k,
            "share [95%]": f"{found.statistic:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
            "unnoticed because": ", ".join(f"{how} ({count})" for how, count in unnoticed.items()),
        }

    parts = rows["path"].str.split("/").str[1]
    table = pd.DataFrame([line(name, rows.loc[parts == name]) for name in PARTS] + [line("all", rows)])
    text = (
        f"One small fault at each of {len(rows)} places drawn by a seed from {', '.join(PARTS)}: the tests that reach "
        f"it are run, all that are about its module or part, of the others the {NEAREST} that run least code and "
        f"{DRAWN} drawn, until one fails. "
        "Some of the unnoticed change nothing that a caller could see; they are counted all the same, and listed in "
        "benchmarks/results/mutation.json. Earlier samples, of seeds 0 and 1, were looked at while tests were written. "
        "`make coverage`, then `make mutation`, measures it."
    )
    bar = Bar("share of the faults that the tests notice", float(rows["noticed"].mean()), lowest=0.85)
    return [Section("Faults that the tests notice", text, table, (bar,))]


def kept(fault: Fault, number: int, tests: Sequence[str], run: Path) -> Outcome:
    """What became of a fault, tried now or before."""
    from interp_unlearn.artifacts import read_json, write_json

    file = run / f"fault-{number:03d}.json"
    if not file.exists():
        write_json(file, asdict(try_fault(fault, tests, SECONDS)))
    found = read_json(file)
    if found["fault"] != asdict(fault):
        raise RuntimeError(f"{file} is about another fault; remove {run} and begin anew")
    return Outcome(**found | {"fault": fault})


def main() -> None:
    """Reads the options, tries the sample, and prints and stores what became of it."""
    from tqdm import tqdm

    from benchmarks.sections import DESCRIBED
    from interp_unlearn.artifacts import claimed, hash_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage", help="of `make coverage`")
    parser.add_argument("--parts", nargs="+", default=list(PARTS))
    parser.add_argument("--n", type=int, default=SAMPLE)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", type=Path, default=RUN, help="where what was tried is kept")
    told = parser.parse_args()
    if not told.coverage.is_file():
        raise SystemExit(f"{told.coverage}: no coverage of the tests there; run `make coverage` first")
    faults = sampled(told.parts, told.n, told.seed)
    tests = reaching(told.coverage, faults)
    code = {path: hash_file(ROOT / path) for path in tracked() if path.endswith(".py")}
    identity = {"task": "mutation", "parts": told.parts, "n": told.n, "seed": told.seed, "code": code}
    with claimed(told.run, identity), ThreadPoolExecutor(told.workers) as pool:
        calls = [pool.submit(kept, fault, n, tests[fault.path, fault.line], told.run) for n, fault in enumerate(faults)]
        try:
            for call in tqdm(as_completed(calls), total=len(calls), desc="faults"):
                call.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        outcomes = [call.result() for call in calls]
    rows = [asdict(outcome.fault) | {k: v for k, v in asdict(outcome).items() if k != "fault"} for outcome in outcomes]
    table = pd.DataFrame(rows)
    print(describe(table)[0].table.to_string(index=False))
    if (told.parts, told.n, told.seed) == (list(PARTS), SAMPLE, SEED):
        keep_result("mutation", table, machine.facts())
        write_page(DESCRIBED)


if __name__ == "__main__":
    main()
