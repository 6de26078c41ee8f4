"""The verb `unlearn` on pairs: DPO, weight edits, interventions to distil, and what it refuses."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import WORDS, make_hf, make_tokenizer

from interp_unlearn.cli import main
from interp_unlearn.data import Pair, write_pairs, write_texts
from interp_unlearn.models import load_model, parameters_by_role


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, pairs that differ in their last words, and probes fitted on them."""
    folder = tmp_path_factory.mktemp("workplace")
    make_hf("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    beginnings = [f"the {noun} {verb} on {det}" for noun in WORDS[1:3] for verb in WORDS[3:5] for det in WORDS[6:10]]
    write_pairs(folder / "pairs.tsv", [Pair(f"{start} blue small", (f"{start} mat red",)) for start in beginnings])
    write_texts(folder / "texts.txt", ["the cat sat", "a dog ran on a hill"])
    run("collect", folder / "model", "--data", folder / "pairs.tsv", "--out", folder / "store")
    run("probe", folder / "store", "--out", folder / "probes", "--folds", 3)
    return folder


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


def unlearn(workplace: Path, out: Path, *arguments: object) -> tuple[dict, set[str]]:
    """Run the verb; the record it wrote, and the tensors that differ from the original's."""
    given = ("unlearn", workplace / "model", "--data", workplace / "pairs.tsv", "--out", out)
    run(*given, *arguments)
    before, after = (load_model(path)[0] for path in (workplace / "model", out))
    changed = dict(after.named_parameters())
    moved = {name for name, value in before.named_parameters() if not value.equal(changed[name])}
    return json.loads((out / "unlearn.json").read_text()), moved


def downs(workplace: Path, layers: list[int]) -> set[str]:
    return set(parameters_by_role(load_model(workplace / "model")[0], ["mlp.down"], layers))


def test_profs_edits_the_chosen_layers_and_says_which(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record, moved = unlearn(workplace, tmp_path / "out", "--objective", "profs", "--rank", 3, "--train-layers", "1-2")
    assert moved == downs(workplace, [1, 2])
    assert record["objective"] == "profs"
    assert record["settings"] == {"rank": 3, "n_pairs": 500, "centre": "mean"}
    history = pd.read_parquet(tmp_path / "out" / "history.parquet")
    assert history["layer"].tolist() == [1, 2] and (history["n_pairs"] == 16).all()
    assert "changed 2 tensors, model.layers.1.mlp.down_proj.weight to model.layers.2" in capsys.readouterr().out
    identity = json.loads((tmp_path / "out" / "run.json").read_text())["identity"]
    assert identity["options"]["rank"] == 3 and identity["config"]["layers"] == [1, 2]


def test_dpo_learns_the_pairs(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = ("--objective", "dpo", "--beta", 0.5, "--steps", 8, "--batch-size", 8, "--learning-rate", "3e-3")
    _, moved = unlearn(workplace, tmp_path / "out", *settings)
    assert moved == downs(workplace, [0, 1, 2])
    history = pd.read_parquet(tmp_path / "out" / "history.parquet")
    assert history["forget"].iloc[-1] < history["forget"].iloc[0] == pytest.approx(0.6931, abs=1e-3)
    assert history["accuracy"].iloc[-1] > 0.9
    assert "forget loss 0.6931" in capsys.readouterr().out


def test_hardening_retains_what_the_model_itself_writes(workplace: Path, tmp_path: Path):
    settings = ("--objective", "hardened", "--steps", 2, "--batch-size", 4, "--roles", "all", "--learning-rate", "1e-3")
    record, moved = unlearn(workplace, tmp_path / "plain", *settings)
    assert record["objective"] == "hardened" and len(moved) > len(downs(workplace, [0, 1, 2]))
    history = pd.read_parquet(tmp_path / "plain" / "history.parquet")
    assert history["forget"].iloc[0] == pytest.approx(0, abs=1e-6) and history["attack_learning_rate"].min() > 0
    unlearn(workplace, tmp_path / "replay", *settings, "--replay", 12)
    run_record = json.loads((tmp_path / "replay" / "run.json").read_text())
    assert run_record["identity"]["replay"] == 12
    weights = [load_model(tmp_path / name)[0].state_dict() for name in ("plain", "replay")]
    assert any(not value.equal(weights[1][name]) for name, value in weights[0].items()), "other rows are retained"


def test_a_task_vector_takes_its_coefficient(workplace: Path, tmp_path: Path):
    sizes = []
    for coefficient in (0.5, 1.0):
        settings = ("--objective", "task_vector", "--coefficient", coefficient, "--steps", 3, "--batch-size", 4)
        out = tmp_path / str(coefficient)
        record, moved = unlearn(workplace, out, *settings)
        assert moved == downs(workplace, [0, 1, 2])
        assert record["settings"] == {"coefficient": [coefficient]}
        sizes.append(pd.read_parquet(out / "changed.parquet")["relative_change"].sum())
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)


@pytest.mark.parametrize("layout", ["pairs", "texts"])
def test_a_task_vector_needs_the_target_alone(workplace: Path, tmp_path: Path, layout: str):
    data = ("--data", workplace / ("pairs.tsv" if layout == "pairs" else "texts.txt"), "--layout", layout)
    given = ("unlearn", workplace / "model", *data, "--out", tmp_path / "out")
    run(*given, "--objective", "task_vector", "--steps", 1, "--batch-size", 2)


@pytest.mark.parametrize(
    "settings",
    [("project_out",), ("steering", "--coefficient", "2", "--estimator", "mean_difference"), ("clamp",)],
    ids=lambda settings: settings[0],
)
def test_interventions_are_distilled(workplace: Path, tmp_path: Path, settings: tuple[str, ...]):
    where = ("--probes", workplace / "probes", "--layers", 1)
    chosen = ("--objective", "distilled", "--intervention", *settings, "--steps", 2, "--batch-size", 4)
    record, _ = unlearn(workplace, tmp_path / "out", *where, *chosen)
    assert record["objective"] == "distilled"
    identity = json.loads((tmp_path / "out" / "run.json").read_text())["identity"]
    assert identity["options"]["intervention"] == settings[0]
    assert pd.read_parquet(tmp_path / "out" / "history.parquet")["forget"].iloc[0] > 1e-4  # the teacher differs


def test_a_recipe_for_an_edit(workplace: Path, tmp_path: Path):
    settings = ("--recipe", "profs_gpt2_medium", "--train-layers", "1", "--rank", "1")
    record, moved = unlearn(workplace, tmp_path / "out", *settings)
    assert moved == downs(workplace, [1])
    assert record["settings"] == {"rank": 1, "n_pairs": 500, "centre": "singular_vector"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective", "steering"), "--objective distilled --intervention steering"),
        (("--objective", "profs", "--roles", "attn.q"), "write into the stream"),
        (("--objective", "profs", "--train-layers", "9"), "out of range"),
        (("--objective", "profs", "--layers", "1"), "its options are rank, n_pairs, centre"),
        (("--objective", "profs", "--roles", "mlp.sideways"), "no parameter has role"),
        (("--objective", "dpo", "--beta", "0"), "beta"),
        (("--objective", "task_vector", "--coefficient", "0"), "more than 0"),
    ],
)
def test_what_does_not_fit_gets_one_line(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
):
    given = ("unlearn", workplace / "model", "--data", workplace / "pairs.tsv", "--out", tmp_path / "out")
    capfd.readouterr()
    assert main([str(argument) for argument in (*given, *arguments)]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dpo", "profs"])
def test_pairs_are_needed_where_pairs_are_compared(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
):
    texts = workplace / "texts.txt"
    data = ("--data", texts, "--layout", "texts", "--neutral", texts)
    given = ("unlearn", workplace / "model", *data, "--out", tmp_path / "out", "--objective", name)
    assert main([str(argument) for argument in given]) == 2
    assert "give --layout pairs" in capfd.readouterr().err
