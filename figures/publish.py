"""Puts what a finished study found where it is read: its figures into this folder, its tables into README and docs.

`make figures` publishes runs/organism, runs/toxicity, runs/knowledge, runs/evidence, runs/sensitivity and
runs/replication, whichever are there. published.json keeps, of everything published, its own hash and the hashes of the
tables it was made from; the tables themselves go into results/, a folder a study, where `interp-unlearn figures` draws
the figures from them again. The gallery shows every figure of this folder, with what its file says of n and intervals.

With --check nothing is written, and exit code 1 says that something published is not what it should be: other than what
the tables of a given run or those in results/ make, changed by hand since, or of no known run. So continuous
integration, where there is no run, finds out too.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
BLOCK = re.compile(r"<!-- (?P<name>[^>]+?): make figures -->\n(?P<text>.*?)<!-- end of (?P=name) -->", re.DOTALL)
DRAWN = (".png", ".pdf")
GALLERY = "docs/gallery.md: gallery"
RESULTS = "results"
COMMANDS = {"": "make reproduce"} | {
    study: f"make {study}" for study in ("toxicity", "knowledge", "evidence", "sensitivity", "replication")
}
"""What makes the figures of a study, by how their names begin."""
RECORDS = HERE / "published.json"


@dataclass(frozen=True)
class Publication:
    """Something published: a figure, or a table between the marks of a page.

    Attributes:
        name: the path of the figure, or of the page with the block: ``README.md: results``.
        content: what it should be.
        tables: SHA-256 of the tables it was made from, by path in the run.
    """

    name: str
    content: bytes
    tables: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """What is kept of it."""
        return {"sha256": _sha256(self.content), "tables": dict(self.tables)}


def main(arguments: list[str] | None = None) -> int:
    """Publishes runs, or checks what is published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folder of `reproduce` or of `compare`")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    found: list[Publication] = []
    kept = sorted((ROOT / RESULTS).glob("*")) if given.check else []
    for run in [*given.runs, *kept]:
        of_run = publications(run)
        if not of_run and not given.check:
            advice = (
                "run `make reproduce`, `make toxicity`, `make knowledge`, `make evidence`, `make sensitivity` or "
                "`make replication` first"
            )
            print(f"{run} holds no finished study; {advice}", file=sys.stderr)
            return 2
        found += of_run
    if not given.check:
        publish(found)
        for run in given.runs:
            keep_tables(run)
        return 0
    wrong = dict(differing([*found, gallery()])) | dict(unaccounted())
    for name, what in wrong.items():
        print(f"{name}: {what}", file=sys.stderr)
    return int(bool(wrong))


def publications(run: Path) -> list[Publication]:
    """What the tables of a run make; nothing if it is not finished."""
    if (run / "replication.md").exists():
        told_from = _hashes(run, "efficacy.parquet", "contrasts.parquet", "organisms.parquet")
        return [
            *(Publication(f"figures/{path.name}", path.read_bytes(), told_from) for path in _drawn(run)),
            Publication("docs/evidence.md: replication", _replication(run).encode(), told_from),
        ]
    drawn = _drawn(run)
    if not drawn and run.parent != ROOT / RESULTS:
        return []
    if (run / "dissociation.md").exists():
        tables = _hashes(run, "dissociation.parquet", "summary.json", "drift.parquet", "probes/*/table.parquet")
        return [
            *(Publication(f"figures/{path.name}", path.read_bytes(), tables) for path in drawn),
            Publication(
                "README.md: results", _results(run).encode(), _hashes(run, "dissociation.parquet", "summary.json")
            ),
        ]
    if (run / "evidence.md").exists():
        tables = _hashes(run, "*.parquet")
        return [
            *(Publication(f"figures/evidence_{path.name}", path.read_bytes(), tables) for path in drawn),
            Publication("docs/evidence.md: evidence", _evidence(run).encode(), tables),
        ]
    if (run / "sensitivity.md").exists():
        tables = _hashes(run, "sensitivity.parquet", "cells.parquet")
        return [
            *(Publication(f"figures/{path.name}", path.read_bytes(), tables) for path in drawn),
            Publication("docs/evidence.md: sensitivity", _sensitivity(run).encode(), tables),
        ]
    if not (run / "ranking.md").exists():
        return []
    identity = json.loads((run / "run.json").read_text(encoding="utf-8"))["identity"]
    goal, texts = identity["goal"], _comparison(run, identity)
    drawn_from, told_from = _hashes(run, "excess.parquet"), _hashes(run, "comparison.parquet", "trials.parquet")
    places = {"ranking": f"README.md: {goal} comparison"}
    places |= {name: f"docs/{goal}.md: {goal} {name}" for name in ("comparison", "ablation", "search")}
    return [
        *(
            Publication(f"figures/{goal}_{path.name}", path.read_bytes(), drawn_from)
            for path in drawn
            if "excess" in path.name
        ),
        *(Publication(places[name], text.encode(), told_from) for name, text in texts.items()),
    ]


def _drawn(run: Path) -> list[Path]:
    return [path for path in sorted((run / "figures").glob("*")) if path.suffix in DRAWN]


def gallery() -> Publication:
    """Every figure of this folder with its caption and the command behind it."""
    from PIL import Image

    from interp_unlearn.report.captions import caption_of

    paths = sorted(HERE.glob("*.png"), key=lambda path: (list(COMMANDS).index(_study(path)), path.name))
    lines: list[str] = []
    for path in paths:
        with Image.open(path) as image:
            notes = image.info.get("Description", "")
        study = _study(path)
        caption = caption_of(path.stem.removeprefix(f"{study}_"))
        told = ". ".join(filter(None, [caption, notes]))
        lines += [f"![{caption}](../figures/{path.name})", "", f"*{told}.* `{COMMANDS[study]}`", ""]
    tables = {path.name: _sha256(path.read_bytes()) for path in paths}
    return Publication(GALLERY, "\n".join(lines).encode(), tables)


def _study(path: Path) -> str:
    """How a figure's name begins, where it names a study."""
    return next((name for name in COMMANDS if name and path.stem.startswith(name)), "")


def publish(found: list[Publication]) -> None:
    """Writes figures and blocks, the gallery last, and what they were made from; nothing where a block has no place."""
    for publication in [*found, Publication(GALLERY, b"", {})]:
        page, _, block = publication.name.partition(": ")
        if block:
            text = (ROOT / page).read_text(encoding="utf-8") if (ROOT / page).is_file() else ""
            _filled(text, page, block, "")
    _write(found)
    _write([gallery()])


def keep_tables(run: Path) -> None:
    """Copies what a run's publications are made from into results/, with its record and what it says in words.

    Of a replication its replicas too: they say by which gates, weights and versions each organism was measured.
    """
    tables = {table for publication in publications(run) for table in publication.tables}
    kept = (*run.glob("*.md"), *run.glob("run.json"), *run.glob("replicas/*/*"))
    words = {path.relative_to(run).as_posix() for path in kept}
    folder = ROOT / RESULTS / run.name
    shutil.rmtree(folder, ignore_errors=True)
    for name in sorted(tables | words):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, folder / name)


def _write(found: list[Publication]) -> None:
    records = _records()
    for publication in found:
        page, _, block = publication.name.partition(": ")
        if block:
            text = (ROOT / page).read_text(encoding="utf-8")
            (ROOT / page).write_text(_filled(text, page, block, publication.content.decode()), encoding="utf-8")
        else:
            (ROOT / page).write_bytes(publication.content)
        records[publication.name] = publication.record()
    RECORDS.write_text(json.dumps(dict(sorted(records.items())), indent=2) + "\n", encoding="utf-8")


def differing(found: list[Publication]) -> Iterator[tuple[str, str]]:
    """What is published otherwise than the tables of its run make it."""
    there, records = dict(_published()), _records()
    for publication in found:
        if there.get(publication.name) != publication.content:
            yield publication.name, "not what the tables of its run make; run `make figures`"
        elif records.get(publication.name) != publication.record():
            yield publication.name, "made from other tables than those of its run; run `make figures`"


def unaccounted() -> Iterator[tuple[str, str]]:
    """What is published and changed since, or of which nobody knows what it was made from."""
    there, records = dict(_published()), _records()
    for name, content in there.items():
        record = records.get(name)
        if record is None or not record.get("tables"):
            yield name, f"{RECORDS.name} does not say what it was made from; run `make figures`"
        elif record.get("sha256") != _sha256(content):
            yield name, "changed by hand since it was published; run `make figures`"
    for name in records.keys() - there.keys():
        yield name, f"in {RECORDS.name}, and published nowhere"


def _results(run: Path) -> str:
    from interp_unlearn.artifacts import read_json, read_parquet
    from interp_unlearn.study.report import markdown_table

    return markdown_table(read_parquet(run / "dissociation.parquet"), read_json(run / "summary.json")) + "\n"


def _evidence(run: Path) -> str:
    from interp_unlearn.study.evidence.evidence import evidence_text

    return evidence_text(run) + "\n"


def _sensitivity(run: Path) -> str:
    from interp_unlearn.study.sensitivity import sensitivity_text

    return sensitivity_text(run) + "\n"


def _replication(run: Path) -> str:
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.study.replication import replication_markdown

    tables = (read_parquet(run / f"{name}.parquet") for name in ("efficacy", "contrasts", "organisms"))
    return replication_markdown(*tables) + "\n"


def _comparison(run: Path, identity: Mapping[str, Any]) -> dict[str, str]:
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.study.comparison import compare
    from interp_unlearn.study.comparison.contest import contest_on

    contest = contest_on(identity["goal"])
    summary, trials = (read_parquet(run / f"{name}.parquet") for name in ("comparison", "trials"))
    seeds = len(identity["config"]["seeds"])
    texts = {
        "ranking": compare.ranking_markdown(summary, contest.ranking),
        "comparison": compare.summary_markdown(summary, trials, contest.columns, seeds, contest.unit),
        "search": compare.search_markdown(trials),
    }
    if (run / "ablation.md").exists():
        texts["ablation"] = compare.ablation_markdown(summary, contest.roster, contest.ablated)
    return {name: text + "\n" for name, text in texts.items()}


def _published() -> Iterator[tuple[str, bytes]]:
    """All figures of this folder and all blocks of README and docs, as they are."""
    for path in sorted(HERE.glob("*")):
        if path.suffix in DRAWN:
            yield f"figures/{path.name}", path.read_bytes()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            yield f"{page.relative_to(ROOT).as_posix()}: {block['name']}", block["text"].encode()


def _filled(text: str, page: str, block: str, table: str) -> str:
    """The page with a table between the marks of a block."""
    for found in BLOCK.finditer(text):
        if found["name"] == block:
            return text[: found.start("text")] + table + text[found.end("text") :]
    raise SystemExit(f"{page} has no marks of a block {block!r}")


def _records() -> dict[str, Any]:
    return json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}


def _hashes(run: Path, *patterns: str) -> dict[str, str]:
    paths = sorted(path for pattern in patterns for path in run.glob(pattern))
    return {path.relative_to(run).as_posix(): _sha256(path.read_bytes()) for path in paths}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
