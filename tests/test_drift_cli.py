"""The verb `drift` beyond displacements: measures by name, what they take, and their figures."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_hf, make_tokenizer

from interp_unlearn.cli import main
from interp_unlearn.data import FactQuestion, Prompt, write_facts, write_prompts, write_texts
from interp_unlearn.models import parameters_by_role


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original, a changed model, texts of both classes, and prompts with answers in both layouts."""
    folder = tmp_path_factory.mktemp("here")
    for name, size in (("original", 0.0), ("changed", 0.3)):
        model = make_hf("llama")
        for parameter in parameters_by_role(model, ["mlp.down"], [1, 2]).values():
            with torch.no_grad():
                parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    starts = [f"the {noun} {verb} on" for noun in ("cat", "dog", "hill", "mat") for verb in ("sat", "ran", "was")]
    write_texts(folder / "forget.txt", [f"{start} blue" for start in starts])
    write_texts(folder / "neutral.txt", [f"{start} a red mat" for start in starts])
    write_facts(folder / "facts.jsonl", [FactQuestion(start, "blue") for start in starts])
    write_prompts(folder / "prompts.jsonl", [Prompt(start, None, " blue") for start in starts])
    write_prompts(folder / "bare.jsonl", [Prompt("the cat")])
    return folder


def drift(here: Path, out: Path, *words: object, data: str = "forget.txt", layout: str = "texts") -> int:
    models = [here / "changed", "--against", here / "original", "--data", here / data, "--layout", layout]
    neutral = ["--neutral", here / "neutral.txt", "--out", out]
    return main(["drift", *map(str, (*models, *neutral, *words))])


def test_measures_by_name_with_figures(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    names = [word for name in ("weight_delta", "determinism", "cka", "logit_lens") for word in ("--measure", name)]
    assert drift(here, out, *names, "--facts", here / "prompts.jsonl", "--null", "3") == 0
    shown = capsys.readouterr().out
    assert "cka (descriptive) cannot show: " in shown and "cka carries little in small models" in shown
    assert "largest difference before the first change" in shown and "FAILED" not in shown
    assert "blue" not in shown, "no verb prints a text"
    summary = pd.read_parquet(out / "summary.parquet")
    assert list(dict.fromkeys(summary["measure"])) == ["weight_delta", "determinism", "logit_lens", "cka"]
    drawn = {path.stem for path in out.glob("*.pdf")}
    assert drawn == {path.stem for path in out.glob("*.png")} == {"weight_delta", "cka", "logit_lens"}
    before = (out / "cka.pdf").read_bytes()
    (out / "cka.pdf").unlink()
    assert main(["figures", str(out)]) == 0
    assert (out / "cka.pdf").read_bytes() == before


def test_displacement_is_added_to_the_same_folder(here: Path, tmp_path: Path) -> None:
    assert drift(here, tmp_path / "out", "--measure", "weight_delta") == 0
    assert not (tmp_path / "out" / "drift.parquet").exists()
    assert drift(here, tmp_path / "out") == 0
    table = pd.read_parquet(tmp_path / "out" / "drift.parquet")
    assert set(table["goal"]) == {"knowledge"} and set(table["objective"]) == {"changed"}
    assert set(pd.read_parquet(tmp_path / "out" / "summary.parquet")["measure"]) == {"weight_delta", "displacement"}


def test_facts_are_asked_where_the_data_holds_them(here: Path, tmp_path: Path) -> None:
    words = ("--measure", "logit_lens", "--limit", "5")
    assert drift(here, tmp_path / "out", *words, data="facts.jsonl", layout="facts") == 0
    assert drift(here, tmp_path / "same", *words, "--facts", here / "facts.jsonl") == 0
    of_data, of_file = (pd.read_parquet(tmp_path / n / "measures/logit_lens/lens.parquet") for n in ("out", "same"))
    pd.testing.assert_frame_equal(of_data, of_file)
    assert set(of_data["n"]) == {5}


def test_what_is_missing_is_named(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drift(here, tmp_path / "out", "--measure", "unlearning_depth", "--measure", "displacement") == 0
    assert "unlearning_depth: no value: no prompts with their true answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--measure", "no_such"], "no measure 'no_such'; expected at least one of unlearning_depth"),
        (["--measure", "all", "--measure", "cka"], "expected nothing beside it"),
        (["--site", "9.resid_post"], "9"),
        (["--twin", "no/such"], "no/such"),
        (["--facts", "bare.jsonl"], "the prompt has no continuation"),
    ],
)
def test_one_line_for_what_is_wrong(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], match: str
) -> None:
    given = [here / word if word.endswith(".jsonl") else word for word in words]
    assert drift(here, tmp_path / "out", *given) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and match in lines[-1]
