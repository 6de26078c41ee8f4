"""One self-contained HTML page of a run: its figures, its tables to sort, its configuration; nothing is fetched."""

from interp_unlearn.report.contents import Figure, RunContents, Table, read_run
from interp_unlearn.report.page import write_report

__all__ = ["Figure", "RunContents", "Table", "read_run", "write_report"]
