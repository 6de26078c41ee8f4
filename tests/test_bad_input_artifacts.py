"""Bad input, other results: directions, toxicity records, interrupted runs, run folders, plain files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from damaged_files import Act, changed, replacing

from interp_unlearn import Site
from interp_unlearn.artifacts import claim_folder, read_json, read_parquet, read_tensors, write_json, write_tensors
from interp_unlearn.directions import Directions, read_directions
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.evaluation import ToxicityResult
from interp_unlearn.figures import plot_probe_auroc
from interp_unlearn.unlearning import Checkpoints

HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,), }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of directions, a plain vector and the record of a toxicity evaluation."""
    Directions({Site(0, "resid_post"): torch.ones(32)}).save(tmp_path / "d.safetensors")
    np.save(tmp_path / "v.npy", np.ones(32))
    np.savez(tmp_path / "several.npz", a=np.ones(3), b=np.ones(3))
    (tmp_path / "probes").mkdir()
    write_json(tmp_path / "toxicity.json", {"config": {}, "scorers": [], "model_hash": "x", "judge_hash": None})
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "generations.parquet")
    write_json(tmp_path / "other" / "x.json", {})
    return tmp_path


def take(file: str, **options: Any) -> Callable[[Path], Directions]:
    """Read directions."""
    return lambda folder: read_directions(f"{folder}/{file}", **options)


def loaded(metadata: dict[str, str]) -> Callable[[Path], Directions]:
    """Load a file of directions with another record."""

    def act(folder: Path) -> Directions:
        write_tensors(folder / "d.safetensors", {"embed": torch.ones(3)}, metadata)
        return Directions.load(folder / "d.safetensors")

    return act


def claimed_twice(folder: Path) -> None:
    for seed in (0, 1):
        claim_folder(folder / "run", {"seed": seed})


def resumed(record: object) -> Act:
    """Take a run up from a state with another record."""

    def act(folder: Path) -> object:
        write_json(folder / "state" / "state.json", record)
        return Checkpoints(folder / "state").load({"seed": 0})

    return act


def toxicity(**change: object) -> Act:
    return changed("toxicity.json", ToxicityResult.load, **change)


def sparse(name: str, size: int, read: Callable[[Path], object]) -> Act:
    """Read a file that claims to be large and takes no room on the disk."""

    def act(folder: Path) -> object:
        with (folder / name).open("wb") as file:
            file.truncate(size)
        return read(folder / name)

    return act


FORMAT = {"format": "interp_unlearn directions", "name": "d", "biases": "{}", "metadata": "{}"}
CASES: dict[str, tuple[Act, str]] = {
    "directions: none": (
        take("no.safetensors"),
        r"no such file or folder; expected a folder of probes, \.safetensors or",
    ),
    "directions: pickled": (
        replacing("d.pt", b"", take("d.pt")),
        r"expected .*\.npy; .*\(pickled files are not read: they",
    ),
    "directions: row of probes": (
        take("probes", row=3),
        r"name and row pick a tensor of a file, and this is a folder of p",
    ),
    "directions: no site": (
        take("v.npy"),
        r"tensor 'v' does not say where it belongs; give its site, as 12\.resid_post",
    ),
    "directions: another site": (
        take("d.safetensors", sites=Site.embed),
        r"no direction at embed; there are directions at",
    ),
    "directions: no tensor": (take("d.safetensors#w"), r"holds no tensor 'w'; it holds 0\.resid_post \(32,\)"),
    "directions: shape": (
        take("d.safetensors", name="0.resid_post", row=1, sites=Site.embed),
        r"row picks a latent of a d",
    ),
    "directions: an archive": (
        lambda f: replacing("v.npy", (f / "several.npz").read_bytes(), take("v.npy"))(f),
        r"not a NumPy array of numbers, but an archive; save one array with numpy\.save",
    ),
    "directions: terabytes": (
        replacing("v.npy", b"\x93NUMPY\x01\x00" + len(HUGE).to_bytes(2, "little") + HUGE, take("v.npy")),
        r"not a NumPy array of numbers: .*; save one with numpy\.save",
    ),
    "directions: of others": (loaded({}), r"not written by Directions\.save; use read_directions for other files"),
    "directions: no biases": (
        loaded({"format": FORMAT["format"]}),
        r"record cannot be read \('biases'\); save the direct",
    ),
    "directions: odd biases": (
        loaded(FORMAT | {"biases": "[]"}),
        r"record cannot be read .*; save the directions again",
    ),
    "directions: bias alone": (
        loaded(FORMAT | {"biases": '{"logits": 1}'}),
        r"bias at logits without a direction there",
    ),
    "directions: deep": (
        loaded(FORMAT | {"metadata": "[" * 10**5}),
        r"record cannot be read \(maximum recursion depth",
    ),
    "toxicity: no record": (
        lambda f: ToxicityResult.load(f / "probes"),
        r"toxicity\.json: no such file; expected an art",
    ),
    "toxicity: no settings": (toxicity(config=...), r"config: expected dict, got nothing; write the artifact again"),
    "toxicity: settings": (toxicity(config={"k": "x"}), r"k: expected a whole number or None, got 'x'"),
    "toxicity: unknown": (toxicity(config={"zork": 1}), r"toxicity\.json: .*'zork'; run the evaluation again"),
    "toxicity: scorers": (toxicity(scorers=[{}]), r"toxicity\.json: 'name'; run the evaluation again"),
    "toxicity: no columns": (
        ToxicityResult.load,
        r"generations\.parquet: has no column prompt_toxicity; run the evaluation again",
    ),
    "state: another run's": (
        resumed({"identity": {"seed": 1}, "step": 3}),
        r"state of another run \(seed differ\); remove",
    ),
    "state: no step": (resumed({"identity": {"seed": 0}}), r"state\.json: step: expected int, got nothing; write"),
    "state: a list": (resumed([]), r"state\.json: expected a JSON object, got list; write the artifact again"),
    "state: other files": (
        lambda f: Checkpoints(f / "other").load({}),
        r"exists and holds no state\.json; choose another",
    ),
    "run: another's": (claimed_twice, r"holds another run \(seed: 0 there, 1 here\); choose another --out"),
    "run: other files": (
        lambda f: claim_folder(f / "other", {}),
        r"is not empty and holds no run\.json; choose another",
    ),
    "run: a file": (lambda f: claim_folder(f / "v.npy", {}), r"v\.npy is a file, not a folder; choose another --out"),
    "run: below a file": (
        lambda f: write_json(f / "v.npy" / "x.json", 1),
        r"cannot make its folder \(.*\); choose another",
    ),
    "JSON: none": (
        lambda f: read_json(f / "x.json"),
        r"x\.json: no such file; expected an artifact written by an earli",
    ),
    "JSON: infinite": (
        lambda f: write_json(f / "x.json", {"a": np.inf}),
        r"cannot be written as JSON: .*not JSON compliant",
    ),
    "JSON: digits": (
        replacing("x.json", "1" * 5000, lambda f: read_json(f / "x.json")),
        r"not valid JSON: Exceeds the li",
    ),
    "JSON: large": (
        sparse("x.json", 2**40, read_json),
        r"1,099,511,627,776 bytes, expected at most 268,435,456; write",
    ),
    "Parquet: JSON": (
        lambda f: read_parquet(f / "toxicity.json"),
        r"toxicity\.json: not a Parquet file: .*; write the art",
    ),
    "Parquet: large": (
        sparse("x.parquet", 2**40, read_parquet),
        r"x\.parquet: not a Parquet file: .*; write the artifact",
    ),
    "tensors: JSON": (
        lambda f: read_tensors(f / "toxicity.json"),
        r"toxicity\.json: not a safetensors file: .*; write the",
    ),
    "figure: other columns": (
        lambda f: plot_probe_auroc(read_parquet(f / "generations.parquet")),
        r"needs the columns",
    ),
}
OTHERS: dict[str, type[Exception]] = {
    **dict.fromkeys(["directions: row of probes", "directions: no tensor", "directions: shape"], ConfigError),
    **dict.fromkeys(["directions: no site", "directions: another site", "directions: bias alone"], SiteError),
    "toxicity: settings": ConfigError,
}


@pytest.mark.parametrize("case", list(CASES))
def test_bad_artifacts_are_refused_with_one_clear_line(case: str, folder: Path) -> None:
    act, message = CASES[case]
    with pytest.raises(OTHERS.get(case, ArtifactError), match=message) as raised:
        act(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_what_was_made_is_read(folder: Path) -> None:
    assert take("d.safetensors")(folder).sites == (Site(0, "resid_post"),)
    assert take("v.npy", sites=[Site.embed])(folder).sites == (Site.embed,)
    assert loaded(FORMAT)(folder).sites == (Site.embed,)
    assert json.loads((folder / "toxicity.json").read_text())["model_hash"] == "x"
