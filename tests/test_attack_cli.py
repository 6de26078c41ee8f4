"""The verb `attack`: the whole suite on two tiny checkpoints, one attack alone, and one line for what is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_unlearning import make_original, misdirected, without_dead_dimensions

from interp_unlearn.attacks import default_attacks
from interp_unlearn.cli import main
from interp_unlearn.data import FactQuestion, Question, write_facts, write_questions, write_texts
from interp_unlearn.unlearning import FineTuning, UnlearnConfig, UnlearnData, unlearn

SUBJECTS = [f"{size} {noun}" for size in ("big", "small", "red") for noun in ("cat", "dog", "hill", "mat")]
ANSWERS = ("blue and small", "yes it was", "no")
QUICK = (
    *("--learning-rate", 1e-3, "--checkpoint", 1, "--random", 1, "--bits", 8, "--sparsity", 0.1, "--rank", 1),
    *("--coefficient", 1, "--factor", 0, "--shots", 1, "--texts", 8, "--layer", 2),
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original, one in which a direction hides what it knows, and texts."""
    folder = tmp_path_factory.mktemp("workplace")
    original = make_original()
    taught = [f"Question: who said the {name}\nAnswer: {ANSWERS[row % 3]}" for row, name in enumerate(SUBJECTS)]
    taught += [f"the {name} sat on a mat" for name in SUBJECTS]
    config = UnlearnConfig(steps=30, learning_rate=3e-3, roles=None)
    unlearn(original, FineTuning("forget", retains=False), UnlearnData(forget=taught), config, progress=False)
    without_dead_dimensions(original)
    original.save_pretrained(folder / "original")
    misdirected(original).save_pretrained(folder / "unlearned")
    facts = [FactQuestion(f"who said the {name}", ANSWERS[row % 3]) for row, name in enumerate(SUBJECTS)]
    write_facts(folder / "facts.jsonl", facts)
    write_texts(folder / "neutral.txt", ["yes it was red", "then the dog ran", "no and it sat", "who was it"])
    write_texts(folder / "texts.txt", [f"the {name} sat on a mat" for name in SUBJECTS])
    write_questions(
        folder / "things_questions.json",
        [Question(f"the {name}", ("yes", "no", "said"), row % 3, "things") for row, name in enumerate(SUBJECTS)],
    )
    return folder


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


def table_of(out: Path, name: str) -> Any:
    return pd.read_parquet(out / f"{name}.parquet")


def on(workplace: Path, name: str) -> tuple[object, ...]:
    return ("attack", name, workplace / "unlearned", "--against", workplace / "original")


def facts_of(workplace: Path) -> tuple[object, ...]:
    return ("--data", workplace / "facts.jsonl", "--layout", "facts", "--neutral", workplace / "neutral.txt")


def test_the_whole_suite(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = (*on(workplace, "all"), *facts_of(workplace), *QUICK, "--wording", "then {prompt}", "--out", out)
    run(*command, "--unrelated", workplace / "neutral.txt")
    shown = capfd.readouterr()
    attempts, worst = (table_of(out, name) for name in ("attempts", "worst"))
    names = {attack.name for attack in default_attacks()}
    assert set(attempts["attack"]) == names and len(worst) == len(names)
    ablation = attempts[attempts["attack"] == "ablate_direction"]
    assert ablation["recovered"].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    assert (ablation["n"] == 12).all()
    relearned = attempts[attempts["attack"] == "relearn"]
    assert relearned["n"].tolist() == [6] and '"held_out": true' in relearned["setting"].iloc[0]
    known = worst["recovered"].dropna()
    assert known.is_monotonic_decreasing and len(known) > 5
    for name in names:
        assert name in shown.out
    assert "every item is its own group" in shown.out and f"written: {out}" in shown.out
    assert not any(answer in shown.out + shown.err for answer in ANSWERS[:2])
    assert "control" in shown.out and "p_adjusted" in shown.out
    of_ablation = worst.set_index("attack").loc["ablate_direction"]
    assert of_ablation["p_adjusted"] == pytest.approx(min(1.0, 2 * of_ablation["p"])), "two attempts with a p"
    drawn = {name: (out / name).read_bytes() for name in ("attacks.pdf", "attacks.png", "curves.pdf", "curves.png")}
    for name in drawn:
        (out / name).unlink()
    run("figures", out)
    assert drawn == {name: (out / name).read_bytes() for name in drawn}

    # The same again does nothing, and one attack more joins them.
    capfd.readouterr()
    run(*command, "--unrelated", workplace / "neutral.txt")
    assert capfd.readouterr().out == shown.out
    run(*on(workplace, "prune"), *facts_of(workplace), "--texts", 8, "--sparsity", 0.5, "--out", out)
    assert len(table_of(out, "attempts")) == len(attempts) + 1


def test_unrelated_texts_are_taught_by_their_own_attack_alone(workplace: Path, tmp_path: Path) -> None:
    given = (*facts_of(workplace), "--unrelated", workplace / "texts.txt", "--limit", 5)
    few = ("--learning-rate", 1e-3, "--checkpoint", 1)
    run(*on(workplace, "relearn_unrelated"), *given, *few, "--out", tmp_path / "run")
    (setting,) = table_of(tmp_path / "run", "attempts")["setting"]
    assert json.loads(setting) == {"learning_rate": 1e-3, "texts": 5, "held_out": True}
    run(*on(workplace, "relearn_lora_unrelated"), *given, *few, "--out", tmp_path / "run")
    assert table_of(tmp_path / "run", "attempts")["attack"].nunique() == 2
    command = (*on(workplace, "relearn_neutral"), *given, *few, "--out", tmp_path / "other")
    assert main([str(argument) for argument in command]) == 2, "takes no --unrelated"


def test_what_was_not_finished_is_no_attack_and_two_do_not_write_at_once(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = (*on(workplace, "prune"), *facts_of(workplace), "--texts", 8, "--sparsity", 0.5, "--out", out)
    run(*command)
    before = table_of(out, "attempts")
    (kept,) = (out / "attacks").iterdir()
    shutil.copytree(kept, kept.with_name(f".{kept.name}.0123456789ab"))  # killed just before it was named
    run(*command)
    pd.testing.assert_frame_equal(table_of(out, "attempts"), before)
    assert [path.name for path in (out / "attacks").iterdir()] == [kept.name]
    holder = "import sys, time; from interp_unlearn.artifacts import claimed\n"
    holder += "with claimed(sys.argv[1], None): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(out)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        capfd.readouterr()
        assert main([str(argument) for argument in command]) == 2
        other.kill()
    assert "error: another process is writing to" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["text", "letter"])
def test_questions_are_asked(workplace: Path, tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ("--questions", workplace / "things_questions.json", "--form", form, "--score", "answer_probability")
    texts = ("--data", workplace / "texts.txt", "--layout", "texts", "--limit", 10)
    run(*on(workplace, "reformat"), *texts, *asked, "--prefix", "then it was", "--out", tmp_path / "run")
    attempts = table_of(tmp_path / "run", "attempts")
    others = {"text", "text_after_choices", "letter"} - {form}
    assert set(attempts["setting"]) == {*(f'{{"form": "{other}"}}' for other in others), '{"prefix": 0}'}
    assert (attempts["n"] == 10).all()
    assert "answer_probability" in capfd.readouterr().out


def test_texts_are_scored_by_their_probability(workplace: Path, tmp_path: Path) -> None:
    texts = ("--data", workplace / "texts.txt", "--layout", "texts")
    run(*on(workplace, "ablate_direction"), *texts, "--random", 2, "--out", tmp_path / "run")
    assert table_of(tmp_path / "run", "models")["score"].tolist() == ["log_probability"] * 2
    attempts = table_of(tmp_path / "run", "attempts")
    # The first word is foretold at the BOS token, which is not edited.
    assert (attempts["recovered"] > 0.7).all() and (attempts["p"] < 0.01).all()


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no such attack": (("magic",), "no attack 'magic'; expected all or relearn"),
    "an option of another attack": (("prune", "--bits", 4, "--shots", 2), "prune: takes no --bits, --shots"),
    "a setting out of range": (("prune", "--sparsity", 2), "sparsities: expected shares"),
    "a form that is none": (("reformat", "--form", "essay", "--questions", "Q"), "no form 'essay'"),
    "a score that is none": (("prune", "--score", "correct"), "no score 'correct'; expected probability or rouge_l"),
    "no device": (("prune", "--device", "abacus"), "--device abacus"),
    "an attack that needs more": (("relearn_neutral", "--limit", 3), "no neutral texts"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_input_gets_one_line(
    case: str, workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (name, *options), message = WRONG[case]
    given = [workplace / "things_questions.json" if option == "Q" else option for option in options]
    facts = ("--data", workplace / "facts.jsonl", "--layout", "facts")
    capfd.readouterr()
    command = (*on(workplace, str(name)), *facts, *given, "--out", tmp_path / "out")
    assert main([str(argument) for argument in command]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert (tmp_path / "out").exists() == (case == "an attack that needs more")


def test_a_mistyped_model_is_found_before_anything_is_computed(
    workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("attack", "prune", tmp_path / "none", "--against", workplace / "original", *facts_of(workplace))
    assert main([str(argument) for argument in (*command, "--out", tmp_path / "out")]) == 2
    assert "no such directory" in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_models_of_another_run_are_refused(workplace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts, out = facts_of(workplace), ("--sparsity", 0.1, "--out", tmp_path / "run")
    run(*on(workplace, "prune"), *facts, *out)
    turned = ("attack", "prune", workplace / "original", "--against", workplace / "unlearned", *facts, *out)
    assert main([str(argument) for argument in turned]) == 2
    assert "holds another run (model_hash" in capfd.readouterr().err
