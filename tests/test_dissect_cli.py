"""The verb `dissect` on tiny checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_hf

from interp_unlearn.artifacts import read_json, read_parquet
from interp_unlearn.cli import main
from interp_unlearn.data import write_texts


def test_a_changed_block_is_found_and_the_figure_drawn_again(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = make_hf("llama")
    for name in ("original", "one", "two"):
        if name != "original":
            with torch.no_grad():
                original.model.layers[1].mlp.down_proj.weight.add_(0.5 * (1 if name == "one" else -3))
        original.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    write_texts(tmp_path / "texts.txt", ["the cat sat", "a dog ran", "who said no", "yes it was"])
    arguments = ["dissect", str(tmp_path / "one"), str(tmp_path / "two"), "--against", str(tmp_path / "original")]
    arguments += ["--data", str(tmp_path / "texts.txt"), "--layout", "texts", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    table = read_parquet(tmp_path / "out" / "transplant.parquet")
    rows = table.loc[table["direction"] == "inserted"].set_index("group")
    assert rows.loc["layer 1", "effect"] == pytest.approx(rows.loc["all", "effect"])
    assert rows.loc["layer 1", "effect"] != 0 and rows.loc["layer 0", "effect"] == 0
    shown = capsys.readouterr().out
    assert read_json(tmp_path / "out" / "dissection.json")["conclusions"] in shown
    assert "cat" not in shown
    figure = tmp_path / "out" / "dissection.png"
    drawn = figure.read_bytes()
    figure.unlink()
    assert main(["figures", str(tmp_path / "out")]) == 0
    assert figure.read_bytes() == drawn
    assert main([*arguments[:-1], str(tmp_path / "other"), "--margin", "0"]) == 2
    assert "margin" in capsys.readouterr().err
    with torch.no_grad():
        original.model.layers[1].mlp.down_proj.weight.mul_(2)
    original.save_pretrained(tmp_path / "two")
    assert main(arguments) == 2  # the same names, other weights
    assert "model_hashes" in capsys.readouterr().err
