"""Artifacts are written whole, read back equal, and refused when they are not what they should be."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp_unlearn.artifacts import (
    claim_folder,
    claimed,
    environment,
    hash_file,
    hash_tensors,
    read_json,
    read_parquet,
    read_tensors,
    record_run,
    replaced,
    write_json,
    write_parquet,
    write_tensors,
)
from interp_unlearn.errors import ArtifactError


def test_replaced_keeps_the_old_file_when_the_block_raises(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv"
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_swaps_only_at_the_end_and_makes_folders(tmp_path: Path):
    path = tmp_path / "a" / "b" / "note.txt"
    with replaced(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_replaced_refuses_a_block_that_wrote_nothing(tmp_path: Path):
    with pytest.raises(ArtifactError, match="nothing was written"), replaced(tmp_path / "x.json"):
        pass


def test_replaced_swaps_folders_whole(tmp_path: Path):
    folder = tmp_path / "model"
    for round_, names in enumerate((["config.json", "old.txt"], ["config.json"])):
        with replaced(folder) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(str(round_))
        assert sorted(path.name for path in folder.iterdir()) == names
    with pytest.raises(RuntimeError), replaced(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert (folder / "config.json").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_json_reduces_dataclasses_paths_numpy_and_nan(tmp_path: Path):
    @dataclasses.dataclass(frozen=True)
    class Config:
        where: Path
        layers: tuple[int, ...]
        rate: float

    path = tmp_path / "x.json"
    write_json(path, {"config": Config(Path("a/b"), (1, 2), np.float32(0.5)), 3: math.nan, "n": torch.tensor(7)})
    expected = {"config": {"where": "a/b", "layers": [1, 2], "rate": 0.5}, "3": None, "n": 7}
    assert json.loads(path.read_text()) == expected
    assert read_json(path) == expected


@pytest.mark.parametrize("value", [math.inf, object(), {1, 2}])
def test_json_refuses_what_it_cannot_hold(tmp_path: Path, value: object):
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        write_json(tmp_path / "x.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_broken_json_names_file_and_line(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n"b": }\n')
    with pytest.raises(ArtifactError, match=r"x\.json:2: not valid JSON"):
        read_json(path)


def test_parquet_round_trip_drops_the_index(tmp_path: Path):
    frame = pd.DataFrame({"name": ["a", None], "value": [1.5, math.nan], "count": [1, 2]}, index=[7, 8])
    write_parquet(tmp_path / "x.parquet", frame)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "x.parquet"), frame.reset_index(drop=True))


def test_tensors_round_trip_views_ties_scalars_and_bfloat16(tmp_path: Path):
    weight = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "row": weight[1],
        "strided": weight[:, ::2],
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.randn(5, dtype=torch.bfloat16, requires_grad=True),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"model": "a name"})
    found, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"model": "a name"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name


def test_tensor_metadata_must_be_strings(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"must be strings.*folds"):
        write_tensors(tmp_path / "x.safetensors", {}, {"folds": 5})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("read", "name"), [(read_json, "x.json"), (read_parquet, "x.parquet"), (read_tensors, "x.safetensors")]
)
def test_missing_and_foreign_files_are_artifact_errors(tmp_path: Path, read, name: str):
    with pytest.raises(ArtifactError, match="no such file"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe not this format at all")
    with pytest.raises(ArtifactError, match="not") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_hash_file_is_sha256_of_the_bytes(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_tensors_ignores_order_and_layout_only():
    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(2, dtype=torch.bfloat16)
    reference = hash_tensors([("a", a), ("b", b)])
    assert reference == hash_tensors([("b", b), ("a", a.T.contiguous().T)])
    changed = a.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(torch.inf))
    different = {
        "value": hash_tensors([("a", changed), ("b", b)]),
        "name": hash_tensors([("c", a), ("b", b)]),
        "shape": hash_tensors([("a", a.reshape(3, 2)), ("b", b)]),
        "dtype": hash_tensors([("a", a.view(torch.int32)), ("b", b)]),
        "missing": hash_tensors([("a", a)]),
    }
    assert len({reference, *different.values()}) == 1 + len(different)


def test_environment_imports_nothing_heavy():
    code = (
        "import sys; from interp_unlearn.artifacts import environment; found = environment();"
        "assert found['torch'] and found['python'] == sys.version.split()[0];"
        "print(sorted({'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert environment()["transformers"].startswith("5.")


HOLDER = """
import sys, time
from interp_unlearn.artifacts import claimed, replaced
with claimed(sys.argv[1], {"task": "t"}) as folder:
    with replaced(folder / "table.txt") as temporary:
        temporary.write_text("half")
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_folder_that_another_process_writes_to_is_refused_until_that_process_is_gone(tmp_path: Path):
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ArtifactError, match=r"another process is writing to .*run; wait until it is done"),
            claimed(out, {"task": "t"}),
        ):
            pytest.fail("two processes hold one folder")
        assert len(list(out.iterdir())) == 2  # run.json and what is being written
        holder.kill()
    with claimed(out, {"task": "t"}), claimed(out, {"task": "t"}) as folder:  # one process may claim its own twice
        assert [file.name for file in folder.iterdir()] == ["run.json"], "what the killed run left is gone"
    with pytest.raises(ArtifactError, match="another run"), claimed(out, {"task": "u"}):
        pytest.fail("another run's folder")


def test_a_claim_leaves_alone_what_is_no_half_written_file(tmp_path: Path):
    kept = [
        tmp_path / ".hidden",
        tmp_path / "run" / ".keep",
        tmp_path / "run" / "a.0123456789ab",
        tmp_path / ".other.0123456789ab",
        tmp_path / ".run.0123456789ab.5",  # a run that writes to run.5 beside this one
    ]
    for file in kept:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    left = tmp_path / ".run.0123456789ab"
    left.mkdir()
    with claimed(tmp_path / "run", None):
        assert not left.exists() and all(file.exists() for file in kept)


def test_a_folder_is_never_lost_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fill(text: str) -> None:
        with replaced(tmp_path / "run") as temporary:
            temporary.mkdir()
            (temporary / "x").write_text(text)

    fill("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill("new")
    monkeypatch.undo()
    assert (tmp_path / "run" / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    # Killed between the two renames nothing could be put back at once: the next run does.
    (tmp_path / "run").rename(tmp_path / ".run.0123456789ab.replaced")
    (tmp_path / ".run.ba9876543210").mkdir()
    with claimed(tmp_path / "run", None) as folder:
        assert (folder / "x").read_text() == "old" and not (tmp_path / ".run.ba9876543210").exists()
        (folder / ".part.0123456789ab.replaced").mkdir()
    with claimed(tmp_path / "run", None) as folder:
        assert (folder / "part").is_dir(), "within the folder too"
        (folder / ".part.0123456789ab.replaced").mkdir()
        (tmp_path / ".run.0123456789ab.replaced").mkdir()
    with claimed(tmp_path / "run", None) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["part", "x"], "the new one is there: the old one goes"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_claim_folder_admits_the_same_run_only(tmp_path: Path):
    folder = tmp_path / "run"
    claim_folder(folder, {"seed": 0, "layers": (1, 2), "model": Path("m")})
    (folder / "result.json").write_text("{}")
    claim_folder(folder, {"seed": 0, "layers": [1, 2], "model": "m"})
    with pytest.raises(ArtifactError, match=r"another run \(seed: 0 there, 1 here\); choose another --out"):
        claim_folder(folder, {"seed": 1, "layers": (1, 2), "model": "m"})
    with pytest.raises(ArtifactError, match=r"model: .* there, nothing here"):
        claim_folder(folder, {"seed": 0, "layers": (1, 2)})


def test_claim_folder_refuses_foreign_files(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match=r"holds no run\.json"):
        claim_folder(tmp_path / "full", {"seed": 0})
    with pytest.raises(ArtifactError, match="is a file"):
        claim_folder(tmp_path / "full" / "thesis.tex", {"seed": 0})
    (tmp_path / "empty").mkdir()
    claim_folder(tmp_path / "empty", {"seed": 0})
    record_run(tmp_path / "empty", {"seconds": 3})
    claim_folder(tmp_path / "empty", {"seed": 0})  # facts are no part of the identity
    record = read_json(tmp_path / "empty" / "run.json")
    assert record["identity"] == {"seed": 0} and record["seconds"] == 3 and "torch" in record["environment"]


def test_a_refused_claim_names_the_setting_that_differs(tmp_path: Path):
    before = {"task": "x", "config": {"seeds": [0, 1], "steps": 100, "inner": {"rate": 0.1}}}
    claim_folder(tmp_path / "run", before)
    other = {"task": "x", "config": {"seeds": [0, 1], "steps": 50, "inner": {"rate": 0.1}, "share": 1.0}}
    with pytest.raises(ArtifactError) as raised:
        claim_folder(tmp_path / "run", other)
    assert "holds another run (config.share: nothing there, 1.0 here; config.steps: 100 there, 50 here)" in str(
        raised.value
    )
