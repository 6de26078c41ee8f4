"""What a run left in its folder: its record, its tables, its figures and the tables it wrote as Markdown."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import IDENTITY_FILE, read_json, read_parquet, read_record
from interp_unlearn.errors import ArtifactError
from interp_unlearn.report.texts import text_columns

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_CHECKPOINT = {"config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json"}
_DRAWN_FROM = {"token_heatmap": "token_scores"}  # figures that are not named after their table


@dataclass(frozen=True)
class Table:
    """One table of a run, or several of one name and the same columns, one below the other.

    Attributes:
        title: where it lies in the folder.
        frame: its rows; of several tables with a first column "folder".
        texts: columns that hold texts.
        files: how many files it was read from.
    """

    title: str
    frame: "pd.DataFrame"
    texts: tuple[str, ...]
    files: int


@dataclass(frozen=True)
class Figure:
    """One figure of a run.

    Attributes:
        path: the PNG.
        title: where it lies in the folder.
        holds_texts: whether the table it was drawn from holds texts, so that the figure may show them.
    """

    path: Path
    title: str
    holds_texts: bool


@dataclass(frozen=True)
class RunContents:
    """What a report is made of.

    Attributes:
        folder: of the run.
        record: of its run.json; empty where there is none.
        figures: PNG files, the overview first.
        only_pdf: figures that are there as PDF alone.
        tables: every Parquet file, those nearest the top first.
        markdown: tables in words, by file name.
        records: what other JSON files beside run.json hold, by file name.
    """

    folder: Path
    record: dict[str, Any]
    figures: tuple[Figure, ...]
    only_pdf: tuple[str, ...]
    tables: tuple[Table, ...]
    markdown: dict[str, str]
    records: dict[str, Any]


def read_run(folder: str | Path) -> RunContents:
    """Read a folder that a verb of the command line wrote.

    Args:
        folder: of any verb; of a study that is not finished, what there is so far.

    Raises:
        ArtifactError: there is no such folder, it holds neither a record nor a table nor a figure, or a file in it is
            damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; expected one that a verb wrote with --out")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    has_record = (folder / IDENTITY_FILE).is_file()
    record = read_record(folder / IDENTITY_FILE, identity=dict, environment=dict) if has_record else {}
    tables = _tables(folder, [path for path in files if path.suffix == ".parquet"])
    top = [path for path in files if path.parent == folder]
    contents = RunContents(
        folder=folder,
        record=record,
        figures=_figures(folder, [path for path in files if path.suffix == ".png"], tables),
        only_pdf=tuple(
            str(path.relative_to(folder))
            for path in files
            if path.suffix == ".pdf" and path.with_suffix(".png") not in files
        ),
        tables=tables,
        markdown={
            path.name: path.read_text(encoding="utf-8", errors="replace")
            for path in top
            if path.suffix == ".md" and path.name != "README.md"
        },
        records={path.name: read_json(path) for path in top if _is_record(path)},
    )
    if not (record or contents.records or contents.tables or contents.figures):
        raise ArtifactError(f"{folder}: no {IDENTITY_FILE}, table or figure there; expected a folder that a verb wrote")
    return contents


def _tables(folder: Path, paths: Sequence[Path]) -> tuple[Table, ...]:
    """Tables nearest the top first; those of one name, depth and columns together."""
    import pandas as pd

    alike: dict[tuple[int, str, tuple[str, ...]], list[tuple[Path, pd.DataFrame]]] = {}
    for path in paths:
        where, frame = path.relative_to(folder), read_parquet(path)
        alike.setdefault((len(where.parts), where.name, tuple(map(str, frame.columns))), []).append((where, frame))
    tables: list[Table] = []
    for (_, name, columns), found in sorted(alike.items(), key=lambda item: item[0][:2]):
        where, frame = found[0]
        title = where.as_posix()
        if len(found) > 1:
            common = Path(os.path.commonpath([place.parent for place, _ in found]))
            title = (common / "*" / name).as_posix()
            frame = pd.concat([part for _, part in found], ignore_index=True)
            if "folder" not in columns:
                places = [
                    place.parent.relative_to(common).as_posix() for place, part in found for _ in range(len(part))
                ]
                frame.insert(0, "folder", places)
        tables.append(Table(title, frame, tuple(text_columns(frame)), len(found)))
    return tuple(tables)


def _figures(folder: Path, paths: Sequence[Path], tables: Sequence[Table]) -> tuple[Figure, ...]:
    with_texts = {Path(table.title).stem for table in tables if table.texts}
    found = [
        Figure(path, path.relative_to(folder).as_posix(), _DRAWN_FROM.get(path.stem, path.stem) in with_texts)
        for path in paths
    ]
    return tuple(sorted(found, key=lambda figure: (figure.path.stem != "dissociation", figure.title)))


def _is_record(path: Path) -> bool:
    of_checkpoint = path.name in _OF_THE_CHECKPOINT or "tokenizer" in path.name or path.name.endswith(".index.json")
    return path.suffix == ".json" and path.name != IDENTITY_FILE and not of_checkpoint


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
