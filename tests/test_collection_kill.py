"""A collection that was killed is taken up again, and nothing tells its store from one that never was."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_hf, make_tokenizer

SCRIPT = """
import sys, time
from interp_unlearn import HookedModel, Site, collect
from interp_unlearn.activations import plan
plan.SHARD_ROWS = 8
model = HookedModel.from_pretrained(sys.argv[1])
texts = ["the cat sat on a mat and ran " * (1 + i % 5) + "yes" for i in range(80)]
run = model.run
def slow(*arguments, **options):
    time.sleep(float(sys.argv[3]))
    return run(*arguments, **options)
model.run = slow
collect(model, texts, [Site(1, "resid_post"), Site(2, "z")], labels=[i % 2 for i in range(80)], out=sys.argv[2],
        progress=False)
"""


if sys.platform == "win32":
    pytest.skip("no SIGKILL there", allow_module_level=True)


def command(model: Path, out: Path, seconds: float) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(model), str(out), str(seconds)]


def test_killed_and_taken_up_again(tmp_path: Path) -> None:
    model, whole, killed = (tmp_path / name for name in ("model", "whole", "killed"))
    make_hf("llama").save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    process = subprocess.Popen(command(model, killed, 0.3))
    deadline = time.monotonic() + 120
    while len(list(killed.glob("rows-*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must be killed in the middle"
    done = {file: file.stat().st_mtime_ns for file in killed.glob("rows-*.safetensors")}
    assert 3 <= len(done) < 10
    for out in (killed, whole):
        subprocess.run(command(model, out, 0.0), check=True)
    assert all(file.stat().st_mtime_ns == written for file, written in done.items()), "finished shards are kept"
    names = sorted(file.name for file in whole.iterdir())
    assert len(names) == 12, "ten shards, the index and the table of rows"
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
