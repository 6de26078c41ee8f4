"""The verb `unlearn` on what is to be unknown: topics, adversaries, parts of models, going on, and a dry run."""

import errno
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_hf, make_tokenizer

from interp_unlearn.cli import main
from interp_unlearn.data import Pair, write_pairs, write_texts
from interp_unlearn.hub import model_card
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import load_model, parameters_by_role

RETAIN = ["who said no", "the big red hill", "a blue dog ran and sat", "yes it was small then"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    make_hf("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    write_texts(folder / "bio.txt", ["the cat sat on a mat", "a cat ran on a hill", "the small cat said yes"])
    write_texts(folder / "cyber.txt", ["the dog sat on a mat", "a dog ran", "it was a big dog then", "no dog said yes"])
    write_texts(folder / "retain.txt", RETAIN)
    write_pairs(
        folder / "pairs.tsv", [Pair(f"the cat {verb} on", (f"the dog {verb} on",)) for verb in ("sat", "ran", "said")]
    )
    return folder


def given(workplace: Path, out: Path, *settings: object) -> list[str]:
    texts = ("--data", workplace / "bio.txt", "--layout", "texts", "--retain", workplace / "retain.txt")
    fixed = ("--steps", 4, "--batch-size", 2, "--out", out)
    return [str(part) for part in ("unlearn", workplace / "model", *texts, *fixed, *settings)]


def moved(workplace: Path, out: Path) -> set[str]:
    before, after = (load_model(path)[0] for path in (workplace / "model", out))
    changed = dict(after.named_parameters())
    return {name for name, value in before.named_parameters() if not value.equal(changed[name])}


@pytest.mark.parametrize(
    "settings",
    [
        ("rmu", "--coefficient", 5, "--layers", 1, "--kl-weight", 0),
        ("cosine_rmu", "--layers", 1, "--adversary", "text"),
        ("rmu_lat", "--coefficient", 5, "--layers", 1),
        ("token_rmu", "--layers", 1),
        ("contrastive_rmu", "--layers", 1, "--rule", "project_conflicts"),
        ("rerouting", "--layers", "0-1", "--lora-rank", 2),
        (
            "grad_diff",
            "--nll-weight",
            1,
            "--adversary",
            "fork",
            "--rule",
            "mask_by_sign",
            "--rule",
            "collapse_components",
        ),
        ("npo", "--beta", 0.1, "--accumulation", 2),
        ("simnpo", "--beta", 4.5),
    ],
    ids=lambda settings: settings[0],
)
def test_every_method_runs_from_the_command_line(workplace: Path, tmp_path: Path, settings: tuple[object, ...]):
    out = tmp_path / "out"
    assert main(given(workplace, out, "--objective", *settings, "--train-layers", "0-1")) == 0
    assert moved(workplace, out) == set(parameters_by_role(make_hf("llama"), ["mlp.down"], [0, 1]))
    history = pd.read_parquet(out / "history.parquet")
    assert len(history) == 4 and history["grad_norm"].min() > 0


def test_counterfactuals_are_pairs(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    pairs = ("--data", workplace / "pairs.tsv", "--layout", "pairs", "--retain", workplace / "retain.txt")
    start = ("unlearn", workplace / "model", *pairs, "--steps", 2, "--batch-size", 2, "--objective", "counterfactual")
    for by, layers in (("cosine", ("--layers", 1)), ("predictions", ())):
        arguments = (*start, "--by", by, *layers, "--out", tmp_path / by)
        assert main([str(part) for part in arguments]) == 0
    assert main(given(workplace, tmp_path / "out", "--objective", "counterfactual", "--by", "predictions")) == 2
    assert "give --layout pairs" in capfd.readouterr().err


def test_topics_take_turns_and_are_part_of_the_record(workplace: Path, tmp_path: Path):
    settings = ("--objective", "cosine_rmu", "--layers", 1, "--topic", workplace / "cyber.txt")
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["identity"]["data"]) == 2


def test_a_part_of_the_model_is_enough_and_the_whole_is_saved(workplace: Path, tmp_path: Path):
    settings = ("--objective", "cosine_rmu", "--layers", 1, "--train-layers", "0-1", "--kl-weight", 0)
    for out, more in (("whole", ()), ("part", ("--first-blocks", 2, "--cache-prefix"))):
        assert main(given(workplace, tmp_path / out, *settings, *more)) == 0
    whole, part = (load_model(tmp_path / out)[0] for out in ("whole", "part"))
    for (name, value), other in zip(whole.named_parameters(), part.parameters(), strict=True):
        assert value.equal(other), name
    assert moved(workplace, tmp_path / "part")
    assert (tmp_path / "part" / "run.json").exists() and (tmp_path / "part" / "unlearn.json").exists()


@pytest.mark.parametrize(
    "settings", [("shrink_perturb",), ("cosine_rmu", "--layers", 1, "--lora-rank", 2)], ids=lambda told: told[0]
)
def test_what_is_drawn_follows_the_seed(workplace: Path, tmp_path: Path, settings: tuple[object, ...]):
    written: list[bytes] = []
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        assert main(given(workplace, tmp_path / name, "--objective", *settings, "--seed", seed)) == 0
        record = json.loads((tmp_path / name / "run.json").read_text())["identity"]
        assert record["config"]["seed"] == seed
        assert settings[-1] != 2 or record["config"]["lora"]["seed"] == seed
        written.append((tmp_path / name / "model.safetensors").read_bytes())
    assert written[0] == written[1] != written[2]
    card = model_card(tmp_path / "one")
    steps = "nothing trained" if settings == ("shrink_perturb",) else "4 steps of 2 rows, learning rate 0.001"
    assert f"seed 3, {steps}; one run" in card


def test_the_card_counts_rows_of_an_update_and_steps_that_were_taken(workplace: Path, tmp_path: Path):
    settings = ("--objective", "cosine_rmu", "--layers", 1, "--accumulation", 3, "--learning-rate", 1.0)
    assert main(given(workplace, tmp_path / "out", *settings, "--steps", 40, "--max-kl", 1e-3)) == 0
    n = len(pd.read_parquet(tmp_path / "out" / "history.parquet"))
    assert 0 < n < 40
    assert f"seed 0, {n} steps of 6 rows, learning rate 1.0; one run" in model_card(tmp_path / "out")


def test_a_run_that_was_interrupted_goes_on(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ("--objective", "cosine_rmu", "--layers", 1, "--keep-every", 2)
    assert main(given(workplace, tmp_path / "whole", *settings)) == 0
    from interp_unlearn.unlearning.training_run import TrainingRun

    step = TrainingRun.step

    def fail(run):
        if run.steps_taken == 3:
            raise KeyboardInterrupt
        step(run)

    monkeypatch.setattr(TrainingRun, "step", fail)
    assert main(given(workplace, tmp_path / "out", *settings)) != 0
    assert (tmp_path / "out.state" / "state.json").exists() and not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    assert not (tmp_path / "out.state").exists()
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert a == b


def test_a_model_that_could_not_be_saved_is_not_trained_again(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from interp_unlearn.unlearning.training_run import TrainingRun

    settings = ("--objective", "cosine_rmu", "--layers", 1, "--keep-every", 2)
    assert main(given(workplace, tmp_path / "whole", *settings)) == 0

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out")

    taken: list[int] = []
    step = TrainingRun.step

    def counted(run: TrainingRun) -> None:
        taken.append(run.steps_taken)
        step(run)

    monkeypatch.setattr(TrainingRun, "step", counted)
    with monkeypatch.context() as patch:
        patch.setattr(HookedModel, "save_pretrained", full)
        assert main(given(workplace, tmp_path / "out", *settings)) == 2
    assert "No space left on device" in capsys.readouterr().err
    n = len(taken)
    assert (tmp_path / "out.state" / "state.json").exists() and not (tmp_path / "out").exists()
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    assert len(taken) - n <= 2, "only what came after the last state"
    assert not (tmp_path / "out.state").exists()
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert a == b
    # And a run that is finished is not run again; another one is refused.
    n, before = len(taken), {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
    capsys.readouterr()
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    assert "already there, finished" in capsys.readouterr().out and len(taken) == n
    assert before == {path: path.stat().st_mtime_ns for path in before}
    shutil.copytree(tmp_path / "out", tmp_path / "out.state")  # killed before the state was removed
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    assert not (tmp_path / "out.state").exists()
    capsys.readouterr()
    assert main(given(workplace, tmp_path / "out", *settings, "--seed", 5)) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize("record", [False, True])
def test_a_folder_that_was_made_before_is_no_finished_run(workplace: Path, tmp_path: Path, record: bool):
    out, settings = tmp_path / "out", ("--objective", "cosine_rmu", "--layers", 1)
    if record:
        assert main(given(workplace, out, *settings)) == 0
        for path in out.iterdir():
            if path.name != "run.json":
                path.unlink()
    else:
        out.mkdir()
    assert main(given(workplace, out, *settings)) == 0
    assert (out / "model.safetensors").is_file()


def test_a_dry_run_says_what_it_takes_and_does_nothing(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = ("--objective", "cosine_rmu", "--layers", 1, "--train-layers", "0-1", "--dry-run")
    assert main(given(workplace, tmp_path / "out", *settings)) == 0
    shown = capsys.readouterr().out
    assert "in 2 tensors: model.layers.0.mlp.down_proj.weight" in shown
    assert "memory at its peak" in shown and "s a step" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("rerouting",), "needs --layers"),
        (("cosine_rmu", "--layers", 1, "--rule", "mask"), "unknown update rule"),
        (("profs", "--keep-every", 2, "--layout", "pairs"), "error"),
        (("cosine_rmu", "--layers", 1, "--first-blocks", 2), "set kl_weight and nll_weight to 0"),
        (("cosine_rmu", "--layers", 1, "--first-blocks", 9), "the model has 3 blocks"),
        (("oracle", "--dry-run"), "cannot build oracle"),
        (("cosine_rmu", "--layers", 1, "--roles", "all", "--lora-rank", 2), "lora"),
        (("gradient_ascent", "--kl-weight", 5), "--kl-weight: gradient_ascent has no retain term for it; leave it out"),
        (("gradient_ascent", "--replay", 3), "--replay: gradient_ascent has no retain term for it"),
        (("npo", "--retain-weight", 500), "--retain-weight: npo has no retain term for it"),
        (("shrink_perturb", "--nll-weight", 1.0), "--nll-weight goes with losses"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_gets_one_line(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], settings: tuple[object, ...], message: str
):
    capfd.readouterr()
    assert main(given(workplace, tmp_path / "out", "--objective", *settings)) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()
