"""Ctrl-C, a full disk, a file removed in mid-run: one clear line, nothing half-written, and the same command goes on.

Killed runs are compared byte for byte by `python -m benchmarks.interruption`.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_hf
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from interp_unlearn.artifacts import replaced, write_json
from interp_unlearn.errors import DiskError
from interp_unlearn.interventions import HookedModel

# The background job of a script has Ctrl-C ignored, and so would what the tests start from there.
LISTEN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
VERB = f"""{LISTEN}
import resource, sys
from interp_unlearn.activations import plan
from interp_unlearn.cli.app import main

plan.SHARD_ROWS = 8
if limit := int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""
POOL = f"""{LISTEN}
import sys, time
from typing import Annotated
import typer
from interp_unlearn.cli.app import app, main
from interp_unlearn.study.workers import run_side_by_side

def sleep(out: Annotated[str, typer.Option()]) -> None:
    run_side_by_side(time.sleep, [(600,)] * 4, 2, "naps")

if __name__ == "__main__":
    app.command("sleep")(sleep)
    sys.exit(main(["sleep", "--out", "x"]))
"""
INTERRUPTED = "interrupted; what was finished is kept, and the same command goes on from there"


@pytest.fixture(scope="module")
def made(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, texts that are collected into a hundred shards, and what an uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("made")
    HookedModel(make_hf("llama"), tokenizer).save_pretrained(folder / "model")
    lines = [f'{{"text": "the ship number {number} sails at noon"}}\n' for number in range(400)]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    assert end_of(collecting(folder, "whole")) == (0, "")
    return folder


@pytest.fixture
def workplace(made: Path, tmp_path: Path) -> Path:
    """The model and the texts."""
    return Path(shutil.copytree(made, tmp_path / "workplace", ignore=shutil.ignore_patterns("whole")))


@pytest.fixture
def whole(made: Path) -> dict[str, bytes]:
    return contents(made / "whole")


def collecting(workplace: Path, out: str, limit: int = 0) -> subprocess.Popen[str]:
    data = ["--data", "texts.jsonl", "--layout", "texts", "--neutral", "texts.jsonl"]
    options = [*data, "--batch-tokens", "64", "--out", out]
    return subprocess.Popen(
        [sys.executable, "-c", VERB, str(limit), "collect", "model", *options],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what stderr holds but for progress."""
    stderr = process.communicate(timeout=300)[1]
    lines = [line.rpartition("\r")[2].strip() for line in stderr.splitlines()]
    beside = ("interp_unlearn.", "collect: ", "naps: ")  # the log and the bar
    return process.returncode, "\n".join(line for line in lines if line and not line.startswith(beside))


def wait_for(shards: int, folder: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and len(list(folder.glob("rows-*"))) < shards:
        time.sleep(0.005)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(workplace: Path, whole: dict[str, bytes]) -> None:
    process = collecting(workplace, "out")
    wait_for(2, workplace / "out", process)
    os.killpg(process.pid, signal.SIGINT)
    code, said = end_of(process)
    left = contents(workplace / "out")
    assert code == 130 and said == INTERRUPTED
    assert 2 <= len(left) < len(whole) and not [name for name in left if name.startswith(".")]
    assert end_of(collecting(workplace, "out")) == (0, "")
    assert contents(workplace / "out") == whole


def test_a_disk_that_takes_no_more_is_one_line_and_room_lets_it_go_on(workplace: Path, whole: dict[str, bytes]) -> None:
    smallest = min(len(content) for name, content in whole.items() if name.startswith("rows-"))
    code, said = end_of(collecting(workplace, "out", limit=smallest // 2))  # the kernel refuses larger files
    assert code == 2 and len(said.splitlines()) == 1
    assert re.fullmatch(
        r"error: \S+rows-000000000\.safetensors: cannot be written \(File too large\), and nothing of it was; "
        r"see to the disk, then give the same command again",
        said,
    )
    assert set(contents(workplace / "out")) == {"index.json"}
    assert end_of(collecting(workplace, "out")) == (0, "")
    assert contents(workplace / "out") == whole


@pytest.mark.parametrize("removed", ["rows-000000000.safetensors", "index.json"])
def test_a_file_removed_in_mid_run_is_one_line(workplace: Path, removed: str) -> None:
    process = collecting(workplace, "out")
    wait_for(2, workplace / "out", process)
    (workplace / "out" / removed).unlink()
    code, said = end_of(process)
    assert code == 2 and len(said.splitlines()) == 1 and removed in said and said.startswith("error: ")


@pytest.mark.parametrize("wait", [0, 8])  # before the workers have imported what they need, and after
def test_ctrl_c_stops_the_processes_of_a_study_at_once(wait: int, tmp_path: Path) -> None:
    process = napping(tmp_path)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    try:
        code, said = end_of(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert code == 130 and said == "interrupted; nothing was written; the same command begins anew"
    wait_for_the_end_of_all(process)


@pytest.mark.parametrize("wait", [0, 8])
def test_a_study_that_is_killed_leaves_no_process_behind(wait: int, tmp_path: Path) -> None:
    process = napping(tmp_path)
    time.sleep(wait)
    process.kill()
    process.wait()
    try:
        wait_for_the_end_of_all(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def napping(folder: Path) -> subprocess.Popen[str]:
    """A study whose two processes have been started and sleep for ten minutes."""
    (folder / "pool.py").write_text(POOL)
    process = subprocess.Popen(
        [sys.executable, "pool.py"], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and len(children.read_text().split()) < 3:  # two workers and multiprocessing's tracker
        time.sleep(0.05)
    assert process.poll() is None
    return process


def wait_for_the_end_of_all(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30  # against naps of 600
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def _full(path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _full_for_rust(path: Path) -> None:
    path.write_text("half")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("write", [_full, _full_for_rust])
def test_a_full_disk_leaves_what_was_there(write: Callable[[Path], None], tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": 1})
    before = (tmp_path / "x.json").read_bytes()
    with (
        pytest.raises(DiskError, match=r"x\.json: cannot be written \(No space left on device\), and nothing"),
        replaced(tmp_path / "x.json") as temporary,
    ):
        write(temporary)
    assert contents(tmp_path) == {"x.json": before}


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "none", "y"), SafetensorError("no header"), KeyError("k")):
        with pytest.raises(type(error)) as raised, replaced(tmp_path / "x.json"):
            raise error
        assert raised.value is error
    assert not contents(tmp_path)


def test_only_the_output_is_blamed(tmp_path: Path) -> None:
    """What cannot be read is told by its own name, wherever it was read."""
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "forget.jsonl"))
    for error in (denied, OSError(errno.EIO, "of no file")):
        with pytest.raises(OSError) as raised, replaced(tmp_path / "x.json"):
            raise error
        assert raised.value is error
    with pytest.raises(DiskError, match="Permission denied"), replaced(tmp_path / "out") as temporary:
        raise PermissionError(errno.EACCES, "x", str(temporary / "table.parquet"))
    with pytest.raises(DiskError, match="No space left"), replaced(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "of no file")
