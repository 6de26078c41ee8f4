"""Ways to damage a stored result before it is read: each makes an act on the folder that holds it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

Act = Callable[[Path], object]


def changed(file: str, read: Act, **change: object) -> Act:
    """Change entries of a JSON record (``...`` removes one), then read."""

    def act(folder: Path) -> object:
        record: dict[str, Any] = json.loads((folder / file).read_text()) | change
        record = {key: value for key, value in record.items() if value is not ...}
        (folder / file).write_text(json.dumps(record))
        return read(folder)

    return act


def resaved(file: str, read: Act, change: Callable[[Tensor], Tensor]) -> Act:
    """Change every tensor of a file, then read."""

    def act(folder: Path) -> object:
        tensors = {name: change(tensor).contiguous() for name, tensor in load_file(folder / file).items()}
        save_file(tensors, folder / file)
        return read(folder)

    return act


def replacing(file: str, content: str | bytes, read: Act) -> Act:
    """Put other bytes into a file, then read."""

    def act(folder: Path) -> object:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return read(folder)

    return act


def removing(file: str, read: Act) -> Act:
    """Remove a file, then read."""

    def act(folder: Path) -> object:
        (folder / file).unlink()
        return read(folder)

    return act


def other_table(file: str, read: Act, rows: int) -> Act:
    """Put a table of other columns into the place of one, then read."""

    def act(folder: Path) -> object:
        pd.DataFrame({"a": range(rows)}).to_parquet(folder / file)
        return read(folder)

    return act


def cut(file: str, read: Act) -> Act:
    """Cut the end of a file off, then read."""
    return lambda folder: replacing(file, (folder / file).read_bytes()[:-9], read)(folder)
