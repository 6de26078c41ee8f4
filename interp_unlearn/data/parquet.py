"""Rows of a Parquet file, the format that most datasets have on the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_unlearn.errors import DataError


def read_rows(path: str | Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read some columns, a dictionary a row.

    Args:
        path: the file.
        needed: columns that have to be there.
        optional: columns that are read where they are there.

    Raises:
        DataError: the file is missing, empty or no Parquet file, or lacks a column.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise DataError(path, "no such file; expected the path of a data file")
    try:
        file = pq.ParquetFile(path)
        found = [str(name) for name in file.schema_arrow.names]
        columns = [name for name in (*needed, *optional) if name in found]
        rows: list[dict[str, Any]] = file.read(columns=columns).to_pylist()
    except Exception as error:  # of a damaged file pyarrow raises whatever it stumbles over
        raise DataError(path, f"not a Parquet file: {str(error).splitlines()[0]}; download it again") from error
    if missing := [name for name in needed if name not in found]:
        raise DataError(
            path,
            f"expected the columns {', '.join(needed)}, found {', '.join(found) or 'none'}: no {', '.join(missing)}; "
            "rename them, or choose another file",
        )
    if not rows:
        raise DataError(path, "the file is empty; expected at least one row")
    return rows
