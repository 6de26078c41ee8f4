"""`python -m benchmarks.interruption [NAME ...]`: runs are killed at random moments, and no file may tell it.

Each miniature runs once without interruption. Then it is started, killed with SIGKILL at a random moment between its
first write and its end, started again, and so on; whenever it gets through, every file but run.json (where times and
host facts live) must be what the first run wrote, byte for byte, and whatever was finished when it was killed must not
have been written again, nor may the step of a kept state ever fall. The table keeps what was measured before of the
others, and goes into docs/benchmarks.md.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import machine
from benchmarks.page import Bar, Section, keep_result, kept_rows, write_page

os.environ.setdefault("HF_HUB_OFFLINE", "1")
KILLS = 30
HOST_FACTS = "run.json"
"""The file that may differ: it holds times."""


def run(name: str, data: Path, out: Path) -> None:
    """One miniature, or what another one reads, in this process."""
    from interp_unlearn.cli.app import main as interp_unlearn
    from interp_unlearn.organism.shipped import twin_path

    model, pairs = str(twin_path("knows_all")), ["--data", str(data / "pairs.tsv")]
    facts = ["--data", str(data / "forget_knowledge.jsonl"), "--layout", "texts"]
    facts += ["--neutral", str(data / "retain_knowledge.jsonl")]
    kinds = ("resid_mid", "resid_post", "z", "attn_out", "mlp_post", "mlp_out")
    sites = [part for layer in range(6) for kind in kinds for part in ("--site", f"{layer}.{kind}")]
    arguments: dict[str, list[str]] = {
        "collect": ["collect", model, *pairs, *sites, "--batch-tokens", "128"],
        "store": ["collect", model, *pairs, "--batch-tokens", "512"],
        "probe": ["probe", str(data / "store"), "--resamples", "100", "--leace"],
        "unlearn": ["unlearn", model, *facts, *"--objective cosine_rmu --layers 3 --steps 120 --keep-every 10".split()],
        "evaluate": ["evaluate", str(twin_path("never_knew")), "--against", model, *facts],
        "attack": ["attack", "all", str(data / "unlearn"), "--against", model, *facts, "--limit", "64"],
    }
    if name in ("collect", "store"):
        from interp_unlearn.activations import plan

        plan.SHARD_ROWS = 64
    if name == "reproduce":
        _reproduce(out)
    elif code := interp_unlearn([*arguments[name], "--out", str(out)]):
        raise SystemExit(code)


def measure(name: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill a miniature until it was killed so many times, and compare every run that got through."""
    draw = random.Random(f"{name}-{seed}")
    with tempfile.TemporaryDirectory() as place:
        data, folder = Path(place) / "data", Path(place)
        _prepare(name, data)
        before_it = set(folder.iterdir())
        started = time.monotonic()
        process = _start(name, data, folder / "whole")
        while process.poll() is None and not _wrote(folder, before_it):
            time.sleep(0.01)
        first = time.monotonic() - started
        if process.wait():
            raise RuntimeError(f"{name} failed without having been killed")
        seconds = time.monotonic() - started
        whole = _contents(folder / "whole")
        killed, through, differing, redone, finished = 0, 0, set[str](), set[str](), set[str]()
        while killed < kills:
            out = folder / f"killed-{through}"
            while True:
                before, step = _finished(out), _kept_step(out)
                process = _start(name, data, out)
                try:
                    code = process.wait(draw.uniform(first, seconds) if killed < kills else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed += 1
                    code = None
                after = _finished(out)
                redone |= {file for file, when in before.items() if after.get(file) != when}
                finished |= before.keys() | ({f"step {step}"} if step else set())
                if code is None and not out.exists() and _kept_step(out) < step:
                    redone.add(f"steps up to {step}")
                if code is None:
                    continue
                if code:
                    raise RuntimeError(f"{name} failed with exit code {code} after it had been killed {killed} times")
                break
            through += 1
            found = _contents(out)
            differing |= {file for file in {*whole, *found} if whole.get(file) != found.get(file)}
    return {
        "command": name,
        "seconds": round(seconds, 1),
        "first write": round(first, 1),
        "killed": killed,
        "got through": through,
        "files": len(whole),
        "different": ", ".join(sorted(differing)) or "none",
        "finished before a kill": len(finished),
        "written again": ", ".join(sorted(redone)) or "none",
    }


def describe(rows: pd.DataFrame) -> list[Section]:
    """The section on runs that are killed."""
    text = (
        "A miniature of each command runs once through, then is killed (SIGKILL) at random moments between the first "
        "write and the end of such a run and started again, until it has been killed so often; each time it gets "
        "through, its files are compared with those of the first run byte for byte (but for run.json, which holds "
        "times and facts of the host), and what was finished before a kill (files that are written once, steps of a "
        "kept state) must not have been done again; probe and evaluate write all or nothing. "
        "`.venv/bin/python -m benchmarks.interruption` measures it."
    )
    wrong = rows.loc[(rows["different"] != "none") | (rows["written again"] != "none")]
    bars = (
        Bar("commands with a file that differs or was written again", float(len(wrong)), highest=0),
        Bar("kills of the command killed least often", float(rows["killed"].min()), lowest=KILLS),
    )
    return [Section("Killed and started again", text, rows, bars)]


def _prepare(name: str, data: Path) -> None:
    """The files a miniature reads."""
    from interp_unlearn.cli.app import main as interp_unlearn

    if code := interp_unlearn(["organism", "data", "--out", str(data)]):
        raise SystemExit(code)
    if made := {"probe": "store", "attack": "unlearn"}.get(name):
        run(made, data, data / made)


def _start(name: str, data: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.interruption", "--run", name, str(data), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wrote(folder: Path, before: set[Path]) -> bool:
    """Whether a run has left anything beside its lock."""
    return any(path.suffix != ".lock" for path in set(folder.iterdir()) - before)


def _kept_step(out: Path) -> int:
    """The step of the state that a run can go on from; 0 without one."""
    file = out.with_name(f"{out.name}.state") / "state.json"
    return json.loads(file.read_text(encoding="utf-8"))["step"] if file.is_file() else 0


def _files(out: Path) -> list[Path]:
    return sorted(file for file in out.rglob("*") if file.is_file()) if out.exists() else []


def _contents(out: Path) -> dict[str, str]:
    """SHA-256 of every file by its name; of those with host facts only that they are there."""
    return {
        str(file.relative_to(out)): "there"
        if file.name == HOST_FACTS
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _files(out)
    }


def _finished(out: Path) -> dict[str, int]:
    """When each file that is written once was: shards of stores, and folders that appear whole or have a done.json."""
    done = {file.parent for file in _files(out) if file.name in ("done.json", "attack.json", "record.json")}
    once = [file for file in _files(out) if file.parent in done or file.name.startswith("rows-")]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in once}


def _reproduce(out: Path) -> None:
    import importlib

    from interp_unlearn.study import StudyConfig
    from interp_unlearn.study.workers import run_side_by_side

    def side_by_side(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, label: str) -> None:
        run_side_by_side(_call_with_small_sets, [(task, *arguments) for arguments in calls], workers, label)

    module = importlib.import_module("interp_unlearn.study.reproduce")
    module.run_side_by_side = side_by_side
    _make_sets_small()
    config = StudyConfig(seeds=(0,), steps=2, batch_size=4, relearn_checkpoints=(1,), relearn_prompts=8, native=False)
    module.reproduce(out, config=config, workers=2)


def _call_with_small_sets(task: Callable[..., Any], *arguments: Any) -> None:
    """What a process of the study does."""
    _make_sets_small()
    task(*arguments)


def _make_sets_small() -> None:
    from interp_unlearn.organism import sets
    from interp_unlearn.study import measures
    from interp_unlearn.study import run as cell

    sizes: dict[Any, dict[str, Any]] = {
        sets: {"N_FORGET_SCENES": 32, "N_TEST_SCENES": 24, "N_VALIDATION_SCENES": 8, "N_RETAIN": 32, "N_NEUTRAL": 120},
        measures: {"N_TOXIC_SHARE": 8, "N_RETAINED": 8},
        cell: {"N_DRIFT": 6},
    }
    for changed, values in sizes.items():
        for name, value in values.items():
            setattr(changed, name, value)


MINIATURES = ("collect", "probe", "unlearn", "evaluate", "attack", "reproduce")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interruption", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MINIATURES)}; all without any")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs=3, metavar=("NAME", "DATA", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, data, out = arguments.run
        return run(name, Path(data), Path(out))
    from benchmarks.sections import DESCRIBED

    for name in arguments.names or MINIATURES:
        rows = {row["command"]: row for row in kept_rows("interruption", machine.facts())}
        rows[name] = measure(name, arguments.kills, arguments.seed)
        table = pd.DataFrame([rows[known] for known in MINIATURES if known in rows])
        keep_result("interruption", table, machine.facts())
        print(table.to_string(index=False))
    write_page(DESCRIBED)


if __name__ == "__main__":
    main()
