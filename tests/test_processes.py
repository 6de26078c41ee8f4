"""Two processes under torchrun do what one does alone: collect into one store, unlearn, hold a model in parts."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TEXTS, WORDS, make_hf, make_tokenizer
from planted_classes import DATA, QUICK
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase
from two_processes import CASES, SHARDED, SITES, UNEVEN, collect_texts, double_model

from interp_unlearn import HookedModel, collect, unlearn
from interp_unlearn.cli import main
from interp_unlearn.data import Pair, write_pairs
from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.models import load_model
from interp_unlearn.models.processes import ALONE, Processes
from interp_unlearn.unlearning import AdversaryConfig, CollapseComponents, Misdirection, ProjectConflicts
from interp_unlearn.unlearning.distributed import parts_of
from interp_unlearn.unlearning.sharding import shard

HERE = Path(__file__).parent
TOLERANCE = 1e-9
"""Of weights in double precision, after steps that move them by 1e-2."""
TWO = Processes(0, 2)
Alone = dict[str, tuple[HookedModel, pd.DataFrame]]
UNLEARN = "--objective random_single --layers 1 --steps 2 --batch-size 3 --kl-weight 1 --seed 3"


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left; see two_processes.py."""
    out = tmp_path_factory.mktemp("together")
    make_hf("llama").save_pretrained(out / "model")
    make_tokenizer().save_pretrained(out / "model")
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:8]]
    write_pairs(out / "pairs.tsv", [Pair(f"{start} blue small", (f"{start} mat red",)) for start in beginnings])
    given = "model --data pairs.tsv --out"
    (out / "collect.txt").write_text(f"collect {given} cli-store", encoding="utf-8")
    (out / "unlearn.txt").write_text(f"unlearn {given} cli {UNLEARN} --keep-every 1", encoding="utf-8")
    (out / "unlearn --shard.txt").write_text(f"unlearn {given} cli-sharded {UNLEARN} --shard", encoding="utf-8")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run(
        [*run, str(HERE / "two_processes.py"), str(out)], check=False, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr[-6000:]
    (out / "stdout").write_text(found.stdout, encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def alone() -> Alone:
    """The same by one process."""
    found: Alone = {}
    for case, (architecture, objective, config) in CASES.items():
        model = double_model(architecture)
        found[case] = (model, unlearn(model, objective, UNEVEN, config, progress=False).history)
    return found


def assert_same_files(ours: Path, theirs: Path) -> None:
    names = sorted(file.name for file in theirs.iterdir())
    assert sorted(file.name for file in ours.iterdir()) == names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_the_store_is_that_of_one_process_byte_for_byte(together: Path, tmp_path: Path) -> None:
    collect_texts(tmp_path / "store")
    assert len(list((tmp_path / "store").glob("rows-*.safetensors"))) == 6
    assert_same_files(together / "store", tmp_path / "store")


def test_either_takes_up_what_the_other_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of which one died: its shards are missing, and one process makes these alone."""
    monkeypatch.setattr("interp_unlearn.activations.plan.SHARD_ROWS", 3)
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    with pytest.raises(Exception, match="cannot read"):  # no shard of the second process is there to count
        collect_texts(tmp_path / "store", TWO)
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").glob("rows-*.safetensors")}
    assert len(done) == 3
    collect_texts(tmp_path / "store")
    assert all(file.stat().st_mtime_ns == written for file, written in done.items()), "finished shards are kept"
    collect_texts(tmp_path / "whole")
    assert_same_files(tmp_path / "store", tmp_path / "whole")


@pytest.mark.parametrize(("case", "way"), [*((case, "") for case in CASES), *((case, "-sharded") for case in SHARDED)])
def test_updates_and_history_are_those_of_one_process(together: Path, alone: Alone, case: str, way: str) -> None:
    model, history = alone[case]
    start = dict(make_hf(CASES[case][0]).double().named_parameters())
    weights = load_file(together / f"{case}{way}" / "model.safetensors")
    for name, parameter in model.hf.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=TOLERANCE)
        if CASES[case][2].roles is None or (".mlp." in name and ".2." not in name):
            assert (parameter - start[name]).abs().max() > 1e-4, f"{name} has not moved, so that nothing was shown"
    found = pd.read_parquet(together / f"{case}{way}" / "history.parquet")
    pd.testing.assert_frame_equal(found, history, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", SHARDED)
def test_a_sharded_model_is_read_and_saved_like_a_whole_one(together: Path, alone: Alone, case: str) -> None:
    model, _ = alone[case]
    with torch.no_grad():
        trace = model.run(model.tokenize(TEXTS), reads=SITES)
    reads = torch.load(together / f"{case}-reads.pt", weights_only=False)
    for site in SITES:
        torch.testing.assert_close(reads[site], trace[site], rtol=0, atol=TOLERANCE)
    loaded, _ = load_model(together / f"{case}-sharded")
    assert type(loaded) is type(model.hf)
    assert loaded.config.architectures == [type(model.hf).__name__]
    assert not list(together.glob("*.state")), "the state of a finished run is removed"


def test_the_commands_under_torchrun_leave_what_they_leave_alone(
    together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(together)
    assert main(["collect", "model", "--data", "pairs.tsv", "--out", str(tmp_path / "store")]) == 0
    assert_same_files(together / "cli-store", tmp_path / "store")
    assert main(["unlearn", "model", "--data", "pairs.tsv", "--out", str(tmp_path / "out"), *UNLEARN.split()]) == 0
    expected = load_file(tmp_path / "out" / "model.safetensors")
    start = load_file(together / "model" / "model.safetensors")
    moved = {name for name, value in expected.items() if not value.equal(start[name])}
    assert moved
    for way in ("cli", "cli-sharded"):
        assert {file.name for file in (together / way).iterdir()} == {p.name for p in (tmp_path / "out").iterdir()}
        found = load_file(together / way / "model.safetensors")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=2e-5)  # single precision, through AdamW
    said = (together / "stdout").read_text(encoding="utf-8")
    assert said.count("written: cli\n") == said.count("written: cli-store\n") == 1, "the first process alone speaks"


def test_parts_are_disjoint_complete_and_keep_pairs_together(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = HookedModel(make_hf("llama"), tokenizer).tokenize([*UNEVEN.forget, *(UNEVEN.counterparts or ())])
    first, second = parts_of([batch], 2, TWO)
    rows = [[batch.input_ids.tolist().index(row) for row in part.input_ids.tolist()] for part in (first, second)]
    assert rows == [[0, 2, 3, 5], [1, 4]]
    assert parts_of([batch], 2, ALONE)[0] is batch


def test_one_process_needs_no_accelerate_and_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)  # importing it would raise
    assert Processes.of_torchrun() == ALONE
    tensor = torch.ones(2)
    assert ALONE.total(tensor) is tensor and ALONE.of_first(3) == 3 and list(ALONE.own([1, 2])) == [1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match=r"interp-unlearn\[devices\]"):
        Processes.of_torchrun()
    with pytest.raises(ConfigError, match="takes its own"):
        Processes.of_torchrun("cuda:1")


def test_what_several_processes_cannot_do_is_refused(llama: HookedModel) -> None:
    before = llama.hash()
    objective, config = Misdirection(1), replace(QUICK, steps=2)
    with pytest.raises(ConfigError, match="batch_size 1 gives some of 2 processes no row"):
        unlearn(llama, objective, DATA, replace(config, batch_size=1), processes=TWO, progress=False)
    with pytest.raises(ConfigError, match="collapse_components looks at every token"):
        unlearn(llama, objective, DATA, config, rules=[CollapseComponents()], processes=TWO, progress=False)
    with pytest.raises(ConfigError, match="give out"):
        collect(llama, TEXTS, SITES, processes=TWO)
    with pytest.raises(ConfigError, match="rank from 0 to 1"):
        Processes(2, 2)
    with pytest.raises(ConfigError, match="torchrun"):
        shard(llama, ALONE)
    with pytest.raises(BackendError, match="backend torch"):
        shard(HookedModel(llama.hf, llama.tokenizer, "nnsight"), TWO)
    assert llama.hash() == before


def test_what_a_sharded_model_cannot_do_is_refused(llama: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp_unlearn.unlearning.distributed.is_sharded", lambda hf: True)
    objective, config = Misdirection(1), replace(QUICK, steps=2)
    with pytest.raises(ConfigError, match="an adversary cannot be had of a sharded model"):
        unlearn(llama, objective, DATA, replace(config, adversary=AdversaryConfig()), processes=TWO, progress=False)
    with pytest.raises(ConfigError, match="update rules cannot"):
        unlearn(llama, objective, DATA, config, rules=[ProjectConflicts()], processes=TWO, progress=False)


def test_weight_edits_and_a_lonely_shard_are_refused_by_the_command(
    together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(together)
    given = ["unlearn", "model", "--data", "pairs.tsv", "--out", str(tmp_path / "out")]
    assert main([*given, *UNLEARN.split(), "--shard"]) == 2
    assert "torchrun" in capsys.readouterr().err
    monkeypatch.setattr(Processes, "of_torchrun", classmethod(lambda cls, device: TWO))
    assert main([*given, "--objective", "profs"]) == 2
    assert "several processes share losses only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
