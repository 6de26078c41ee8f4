"""Numbers in README and docs: published from the tables of a run, and found out when they are not what those make."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from matplotlib.figure import Figure
from study_tables import generations_of, measures_of, planted

from interp_unlearn.artifacts import read_json, write_json, write_parquet
from interp_unlearn.figures import save_figure
from interp_unlearn.study.report import markdown_table
from interp_unlearn.study.summary import dissociation_table, summarize

ROOT = Path(__file__).parents[1]
MARKED = "Before.\n<!-- results: make figures -->\nold\n<!-- end of results -->\nAfter.\n"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "figures" / "publish.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["publish"] = module  # where its dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a repository of its own."""
    module = load_script()
    (tmp_path / "figures").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(MARKED)
    (tmp_path / "docs" / "gallery.md").write_text(MARKED.replace("results", "gallery"))
    for name, path in (
        ("ROOT", tmp_path),
        ("HERE", tmp_path / "figures"),
        ("RECORDS", tmp_path / "figures/published.json"),
    ):
        monkeypatch.setattr(module, name, path)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished study, with what only its columns ask for made up."""
    folder = tmp_path / "runs" / "organism"
    save(folder, clean=0.7)
    draw(folder, n=7)
    return folder


def draw(folder: Path, n: int) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1], label="line")
    figure.legend(title=f"Bars: 95% interval over n = {n} prompts")
    save_figure(figure, folder / "figures" / "dissociation")


def save(folder: Path, clean: float) -> None:
    shares = planted((clean, 0.3), (0.4, 0.8))
    measures = measures_of(shares)
    target = measures.loc[measures["measure"] == "target"]
    more = ("broken", "target_after_relearning_20", "target_after_relearning_60")
    extra = [target.assign(measure=name) for name in more]
    table = dissociation_table(pd.concat([measures, *extra], ignore_index=True))
    summary = summarize(table, generations_of(shares))
    write_parquet(folder / "dissociation.parquet", table)
    write_json(folder / "summary.json", summary)
    (folder / "dissociation.md").write_text(markdown_table(table, summary) + "\n")


def test_what_is_published_passes_with_the_run_and_without(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(run)]) == 0
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("Before.\n") and readme.endswith("-->\nAfter.\n") and "old" not in readme
    assert "| probe, several layers | 0.70 |" in readme
    for suffix in (".png", ".pdf"):
        drawn = (run / "figures" / "dissociation").with_suffix(suffix).read_bytes()
        assert (tmp_path / "figures" / "dissociation").with_suffix(suffix).read_bytes() == drawn
    records = read_json(tmp_path / "figures" / "published.json")
    assert records["README.md: results"]["tables"].keys() == {"dissociation.parquet", "summary.json"}
    assert script.main(["--check", str(run)]) == script.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_the_gallery_has_each_figure_with_its_n_and_its_command(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(run)])
    gallery = (tmp_path / "docs" / "gallery.md").read_text()
    assert "](../figures/dissociation.png)" in gallery and gallery.endswith("-->\nAfter.\n")
    assert "clean, target or broken. Bars: 95% interval over n = 7 prompts.* `make reproduce`" in gallery
    draw(run, n=8)
    (tmp_path / "docs" / "gallery.md").write_text(gallery.replace("`make reproduce`", "`make coffee`"))
    assert script.main(["--check"]) == 1
    assert "docs/gallery.md: gallery: " in capsys.readouterr().err
    assert script.main([str(run)]) == 0 and script.main(["--check"]) == 0
    assert "over n = 8 prompts.* `make reproduce`" in (tmp_path / "docs" / "gallery.md").read_text()


@pytest.mark.parametrize("with_run", [True, False])
@pytest.mark.parametrize("with_results", [True, False])
def test_a_number_changed_by_hand_is_found_out(
    script: ModuleType,
    run: Path,
    tmp_path: Path,
    with_run: bool,
    with_results: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.main([str(run)])
    if not with_results:
        shutil.rmtree(tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("| 0.70 |", "| 0.71 |", 1))
    assert script.main(["--check", *([str(run)] if with_run else [])]) == 1
    said = capsys.readouterr().err
    assert "README.md: results: changed by hand" in said
    assert "0.71" in readme.read_text(), "a check writes nothing"


def test_tables_that_changed_are_found_out_also_where_the_markdown_of_the_run_did_not(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(run)])
    before = (run / "dissociation.md").read_text()
    save(run, clean=0.6)
    (run / "dissociation.md").write_text(before)
    assert script.main(["--check", str(run)]) == 1
    assert "not what the tables of its run make" in capsys.readouterr().err
    assert script.main([str(run)]) == 0 and script.main(["--check", str(run)]) == 0


def test_tables_that_make_the_same_but_are_others_are_found_out(
    script: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(run)])
    summary = read_json(run / "summary.json")
    write_json(run / "summary.json", summary | {"more": 1})
    assert script.main(["--check", str(run)]) == 1
    assert "made from other tables" in capsys.readouterr().err


def test_tables_are_kept_and_checked_where_there_is_no_run(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "cells").mkdir()
    (run / "cells" / "measures.parquet").write_bytes(b"of one cell")
    script.main([str(run)])
    kept = tmp_path / "results" / run.name
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert names == {"dissociation.parquet", "summary.json", "dissociation.md"}
    assert all((kept / name).read_bytes() == (run / name).read_bytes() for name in names)
    shutil.rmtree(run)
    assert script.main(["--check"]) == 0
    save(kept, clean=0.6)
    assert script.main(["--check"]) == 1
    assert "README.md: results: not what the tables of its run make" in capsys.readouterr().err


def test_what_no_run_accounts_for_is_found_out(
    script: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(run)])
    shutil.copy(tmp_path / "figures" / "dissociation.png", tmp_path / "figures" / "stranger.png")
    (tmp_path / "docs" / "page.md").write_text(MARKED.replace("results", "knowledge search"))
    (tmp_path / "README.md").write_text("No block any more.\n")
    assert script.main(["--check"]) == 1
    said = capsys.readouterr().err
    for name, what in (
        ("figures/stranger.png", "does not say what it was made from"),
        ("docs/page.md: knowledge search", "does not say what it was made from"),
        ("README.md: results", "published nowhere"),
    ):
        assert any(line.startswith(f"{name}: ") and what in line for line in said.splitlines()), said


def test_a_run_that_is_not_finished_publishes_nothing(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert script.main([str(tmp_path / "run")]) == 2
    assert (tmp_path / "README.md").read_text() == MARKED


def test_a_block_without_marks_is_refused(script: ModuleType, run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Nothing here.\n")
    with pytest.raises(SystemExit, match="no marks of a block 'results'"):
        script.main([str(run)])


def test_what_is_published_here_is_accounted_for() -> None:
    assert load_script().main(["--check"]) == 0
