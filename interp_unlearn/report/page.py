"""The page of a run: one HTML file that fetches nothing, to be looked at rather than read."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from interp_unlearn.artifacts import replaced
from interp_unlearn.errors import ConfigError
from interp_unlearn.report.captions import caption_of
from interp_unlearn.report.contents import Figure, RunContents, Table, read_run
from interp_unlearn.report.elements import Content, Element, data_uri, element, section, source_hash, written
from interp_unlearn.report.tables import frame_as_html, markdown_as_html, rows_as_html, shown
from interp_unlearn.report.texts import TEXT_NAMES

ROWS = 500
SHORT = 20
"""Tables of up to this many rows are unfolded from the start."""
_WITHHELD = "left out; --show-texts puts it in"


def write_report(run: str | Path, out: str | Path, *, rows: int = ROWS, show_texts: bool = False) -> Path:
    """Write the page of a run.

    The same folder and options give the same bytes. Whatever comes from the folder is escaped, and a content security
    policy in the page lets no script run and no address be asked but its own.

    Args:
        run: a folder that a verb of the command line wrote.
        out: the page, a file that ends in .html.
        rows: of a table that go into the page, the first ones of the file.
        show_texts: whether columns and figures that hold texts go in: prompts and generations, toxic ones among them.

    Returns:
        The page.

    Raises:
        ConfigError: ``out`` is no .html file, or fewer than one row is asked for.
        ArtifactError: the folder is none that a verb wrote, or a file in it is damaged.
    """
    out = Path(out)
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"--out: expected a file that ends in .html, got {out}")
    if rows < 1:
        raise ConfigError(f"rows: expected at least 1, got {rows}")
    page = _page(read_run(run), rows, show_texts)
    with replaced(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def _page(run: RunContents, rows: int, show_texts: bool) -> str:
    style, script = ((files("interp_unlearn.report") / name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {source_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    title = _title(run)
    parts = [part for part in _parts(run, rows, show_texts) if len(part) > 1]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    main = element("main", element("h1", title), _overview(run), *parts, id="content")
    body = element(
        "body",
        element("a", "To the content", href="#content", class_="skip"),
        element("div", _table_of_contents(parts), main, class_="layout"),
        element("script", script),
    )
    return written(element("html", head, body, lang="en"))


def _parts(run: RunContents, rows: int, show_texts: bool) -> Iterator[Element]:
    yield section("Figures", "figures", _figures(run, show_texts))
    yield section("Results", "results", _results(run))
    tables = (_table(table, f"table-{n}", rows, show_texts) for n, table in enumerate(run.tables))
    yield section("Tables", "tables", tables)
    yield section("Configuration", "configuration", _configuration(run))
    records = (
        _folded(name, f"record-{n}", [_entries(record, name, show_texts, rows)], is_open=False)
        for n, (name, record) in enumerate(run.records.items())
    )
    yield section("Records", "records", records)


def _title(run: RunContents) -> str:
    task = run.record.get("identity", {}).get("task")
    name = run.folder.resolve().name
    return f"{task}: {name}" if task else name


def _overview(run: RunContents) -> Element:
    environment = run.record.get("environment", {})
    versions = [f"{name} {environment[name]}" for name in ("interp-unlearn", "torch", "python") if name in environment]
    counts = [(len(run.figures), "figure"), (sum(table.files for table in run.tables), "table")]
    said = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts]
    return element("p", " · ".join([*said, *versions]), class_="note")


def _table_of_contents(parts: list[Element]) -> Element:
    entries: list[Element] = []
    for part in parts:
        heads = [heading for heading in part.iter("h3") if "id" in heading.attrib]
        below = [element("ul", *(element("li", _link(heading)) for heading in heads))] if heads else []
        entries.append(element("li", _link(part[0]), *below))
    return element("nav", element("strong", "Contents"), element("ul", *entries), aria_label="Contents")


def _link(heading: Element) -> Element:
    return element("a", "".join(heading.itertext()), href=f"#{heading.attrib['id']}")


def _figures(run: RunContents, show_texts: bool) -> Iterator[Content]:
    for figure in run.figures:
        yield from _figure(figure, show_texts)
    for name in run.only_pdf:
        advice = f"`interp-unlearn figures {run.folder}` draws a run's figures again, as PDF and PNG."
        yield element("p", f"{name} is there as PDF alone, which a page cannot show. {advice}", class_="note withheld")


def _figure(figure: Figure, show_texts: bool) -> list[Content]:
    if figure.holds_texts and not show_texts:
        return [element("p", f"{figure.title} may show texts: {_WITHHELD}.", class_="note withheld")]
    caption = caption_of(figure.path.stem)
    image = element("img", src=data_uri(figure.path.read_bytes()), alt=caption)
    return [element("figure", image, element("figcaption", f"{caption} ({figure.title})"))]


def _results(run: RunContents) -> Iterator[Content]:
    for number, (name, text) in enumerate(run.markdown.items()):
        yield element("h3", name.removesuffix(".md"), id=f"result-{number}")
        yield from markdown_as_html(text, name)


def _table(table: Table, name: str, rows: int, show_texts: bool) -> Element:
    hidden = () if show_texts else table.texts
    kept = [position for position, column in enumerate(table.frame.columns) if str(column) not in hidden]
    frame = table.frame.iloc[:rows, kept]
    content: list[Content] = []
    if hidden:
        content.append(element("p", f"With texts: {', '.join(hidden)}; {_WITHHELD}.", class_="note withheld"))
    if len(table.frame) > rows:
        said = f"The first {rows:,} of {len(table.frame):,} rows; --rows puts more in. Sorting is of these alone."
        content.append(element("p", said, class_="note withheld"))
    content.append(frame_as_html(frame, table.title))
    size = f" {len(table.frame):,} rows" + (f" of {table.files} files" if table.files > 1 else "")
    return _folded(table.title, name, content, is_open=len(table.frame) <= SHORT, said=size)


def _configuration(run: RunContents) -> Iterator[Content]:
    if not run.record:
        yield element("p", "The folder holds no run.json, so how it was made is not known.", class_="note")
        return
    rest = {name: value for name, value in run.record.items() if name not in ("identity", "environment")}
    for title, found in (("Settings", run.record.get("identity")), ("Versions", run.record.get("environment"))):
        if found:
            yield _entries(found, title, show_texts=True)
    if rest:
        yield _entries(rest, "How it went", show_texts=True)


def _entries(record: Any, caption: str, show_texts: bool, at_most: int | None = None) -> Element:
    """A record, one row an entry."""
    found = list(_flat(record, ()))
    lines = [
        [".".join(names), _WITHHELD if _is_text(names, value) and not show_texts else shown(value)]
        for names, value in found[:at_most]
    ]
    if at_most is not None and len(found) > at_most:
        caption += f", the first {at_most:,} of {len(found):,} entries"
    return rows_as_html(["name", "value"], lines, caption, numeric=[False, False])


def _flat(value: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _flat(part, (*names, str(name)))
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for number, part in enumerate(value):
            yield from _flat(part, (*names, str(number)))
    elif isinstance(value, list):
        yield names, ", ".join(shown(part) for part in value)
    else:
        yield names, value


def _is_text(names: tuple[str, ...], value: Any) -> bool:
    return isinstance(value, str) and not TEXT_NAMES.isdisjoint(name.lower() for name in names)


def _folded(title: str, name: str, content: list[Content], *, is_open: bool, said: str = "") -> Element:
    heading = element("h3", title, id=name)
    folded = element("details", element("summary", heading, element("span", said, class_="note")), *content)
    if is_open:
        folded.set("open", "open")
    return folded
