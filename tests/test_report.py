"""The page of a run: whole in one file, safe whatever the folder holds, and silent about texts unless asked."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Drawing

from interp_unlearn.artifacts import claim_folder, write_json, write_parquet
from interp_unlearn.cli import main
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.figures import save_figure
from interp_unlearn.report import read_run, write_report
from interp_unlearn.report.tables import markdown_as_html, shown
from interp_unlearn.report.texts import text_columns

PLANTED = '<script>alert(1)</script><img src="https://example.org/x.png" onerror=alert(2)>'
SAID = "you are a horrid pencil"


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of each kind."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.source = path.read_text(encoding="utf-8")
        self._open = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with everything a page can hold, and markup planted wherever it may come from."""
    folder = tmp_path / "run"
    claim_folder(folder, {"task": "measure", "config": {"layers": [1, 2], PLANTED: PLANTED}})
    numbers = pd.DataFrame(
        {"measure": [PLANTED, "b", "c"], "value": [0.12345678, None, 3.0], PLANTED: [True, False, True]}
    )
    write_parquet(folder / "numbers.parquet", numbers)
    for cell, seed in (("one", 0), ("two", 1)):
        said = pd.DataFrame({"text": [SAID] * 30, "verdict": "target", "seed": seed})
        write_parquet(folder / "cells" / cell / "generations.parquet", said)
    write_parquet(folder / "token_scores.parquet", pd.DataFrame({"token": ["horrid"], "score": [1.0]}))
    for name in ("drift", "token_heatmap"):
        save_figure(Drawing(figsize=(1, 1)), folder / "figures" / name)
    (folder / "alone.pdf").write_bytes(b"%PDF")
    (folder / "ranking.md").write_text(
        f"| method | E [95%] |\n|---|---|\n| {PLANTED} | 0.90 [0.80, 1.00] |\n\nMeans.\n"
    )
    write_json(folder / "claims.json", {"claim": PLANTED, "rows": [{"text": SAID, "mean": 0.5}]})
    return folder


def test_what_comes_from_disk_becomes_no_markup(run: Path, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "page.html", show_texts=True))
    assert len(page.of("script")) == 1 and page.of("script") == [{}]
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.of("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.source.count("&lt;script&gt;alert(1)") >= 5  # heading, cell, both sides of the configuration, record


def test_nothing_is_fetched(run: Path, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "page.html"))
    addresses = [
        value for _, a in page.elements for name, value in a.items() if name in ("src", "href", "action", "data")
    ]
    assert addresses and all((address or "").startswith(("#", "data:image/png")) for address in addresses)
    assert not page.of("link") and not page.of("iframe")
    style = "".join(page.texts["style"])
    assert style and "url(" not in style and "@import" not in style
    assert not re.search(r"fetch|XMLHttp|import\(|https?:", "".join(page.texts["script"]))
    (policy,) = [m["content"] or "" for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_policy_lets_the_page_s_own_script_and_style_through(run: Path, tmp_path: Path) -> None:
    from interp_unlearn.report.elements import source_hash

    page = Page(write_report(run, tmp_path / "page.html"))
    policy = next(m["content"] or "" for m in page.of("meta") if m.get("http-equiv"))
    for tag in ("style", "script"):
        assert f"{tag}-src {source_hash(''.join(page.texts[tag]))}" in policy


def test_texts_are_left_out_unless_asked_for(run: Path, tmp_path: Path) -> None:
    closed = Page(write_report(run, tmp_path / "closed.html"))
    assert "horrid" not in closed.source
    assert [image["alt"] for image in closed.of("img")] == [
        "How far activations moved from the original's, by layer, on target and on retained texts"
    ]
    assert "With texts: text; left out" in closed.source and "figures/token_heatmap.png may show texts" in closed.source
    opened = Page(write_report(run, tmp_path / "open.html", show_texts=True))
    assert SAID in opened.source and len(opened.of("img")) == 2


def test_columns_with_texts_are_found_by_name_and_by_what_they_hold() -> None:
    frame = pd.DataFrame(
        {
            "Prompt": ["short"],
            "remark": ["you are a pencil, they say"],
            "pieces": [["a", "b"]],
            "setting": ["{'learning_rate': 0.001, 'layers': (4, 5), 'estimator': 'mean'}"],
            "verdict": ["target"],
            "token": [17],
            "site": ["3.resid_post"],
            "empty": [None],
        }
    )
    assert text_columns(frame) == ["Prompt", "remark", "pieces"]


def test_tables_of_one_name_stand_together_and_long_ones_are_cut(run: Path, tmp_path: Path) -> None:
    (table,) = [table for table in read_run(run).tables if table.title == "cells/*/generations.parquet"]
    assert table.files == 2 and table.frame["folder"].value_counts().to_dict() == {"one": 30, "two": 30}
    assert table.frame.groupby("folder")["seed"].first().to_dict() == {"one": 0, "two": 1}
    source = write_report(run, tmp_path / "page.html", rows=10).read_text()
    assert "The first 10 of 60 rows" in source and source.count("<td>target</td>") == 10
    assert write_report(run, tmp_path / "all.html", rows=60).read_text().count("<td>target</td>") == 60


def test_a_table_reads_well(run: Path, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "page.html"))
    assert all(heading["scope"] == "col" for heading in page.of("th"))
    assert page.texts["td"].count("0.1235") == 1 and page.texts["td"].count("yes") == 2
    assert '<td class="number">0.1235</td>' in page.source and '<td class="number" />' not in page.source
    assert len(page.of("table")) == len(page.of("caption")) == len(page.of("tbody"))


def test_headings_are_nested_and_the_contents_lead_to_them(run: Path, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "page.html"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {(link["href"] or "")[1:] for link in page.of("a")} == set(names)
    assert page.of("html") == [{"lang": "en"}] and all(image["alt"] for image in page.of("img"))


def test_a_figure_that_is_only_a_pdf_is_named_with_what_to_do(run: Path, tmp_path: Path) -> None:
    source = write_report(run, tmp_path / "page.html").read_text()
    assert "alone.pdf is there as PDF alone" in source and "interp-unlearn figures" in source


def test_the_same_folder_gives_the_same_page_also_with_the_page_in_it(run: Path, tmp_path: Path) -> None:
    first = write_report(run, run / "report.html").read_bytes()
    assert write_report(run, run / "report.html").read_bytes() == first
    assert write_report(run, tmp_path / "new" / "page.html").read_bytes() == first


def test_markdown_tables_and_sentences() -> None:
    table, note, second = markdown_as_html(
        "| a | b |\n|---|:-:|\n| x | 1.0 [0, 2] |\n\nA `note`.\n| c |\n|---|\n", "it"
    )
    assert not isinstance(table, str) and not isinstance(note, str) and not isinstance(second, str)
    assert [(cell.text, cell.get("class")) for cell in table.iter("td")] == [("x", None), ("1.0 [0, 2]", "number")]
    assert note.text == "A note."
    assert [cell.text for cell in second.iter("th")] == ["c"] and not list(second.iter("td"))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "yes"),
        (3, "3"),
        (40000.0, "40000"),
        (0.000123456, "0.0001235"),
        (float("inf"), "inf"),
        ("x", "x"),
    ],
)
def test_values_as_cells(value: object, cell: str) -> None:
    assert shown(value) == cell


def test_missing_values_of_every_kind_are_empty_cells(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": pd.array([1, None], "Int64"), "b": [0.5, None], "c": pd.to_datetime(["2026-01-01", None])}
    )
    write_parquet(tmp_path / "run" / "t.parquet", frame.assign(d=["x", None]))
    source = write_report(tmp_path / "run", tmp_path / "page.html").read_text()
    assert source.count("<td></td>") + source.count('<td class="number"></td>') == 4
    assert "The folder holds no run.json" in source


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="expected a folder that a verb wrote"):
        read_run(tmp_path / "empty")
    write_json(tmp_path / "odd" / "run.json", {"identity": [], "environment": {}})
    with pytest.raises(ArtifactError, match="identity: expected dict, got list"):
        read_run(tmp_path / "odd")
    (tmp_path / "empty" / "t.parquet").write_text("no table")
    assert main(["report", str(tmp_path / "empty")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "not a Parquet file" in error and error.count("\n") == 1


def test_a_page_is_a_file_of_its_own(run: Path, tmp_path: Path) -> None:
    for out in (run, run / "run.json", tmp_path / "page"):
        with pytest.raises(ConfigError, match=r"ends in \.html"):
            write_report(run, out)
    with pytest.raises(ConfigError, match="rows"):
        write_report(run, tmp_path / "page.html", rows=0)
    assert (run / "run.json").exists() and not (tmp_path / "page.html").exists()


def test_the_verb(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main(["report", str(run), "--out", str(tmp_path / "p.html"), "--rows", "2", "--show-texts"]) == 0
    assert SAID in (tmp_path / "p.html").read_text() and SAID not in (run / "report.html").read_text()
