"""The formats: safetensors, Parquet and JSON.

No pickle anywhere: every artifact can be opened without running code from it.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts.writing import replaced
from interp_unlearn.errors import ArtifactError, SiteError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

LARGEST_JSON = 2**28
"""Bytes of a JSON file beyond which it is not read: those of this package take kilobytes."""


def write_json(path: str | Path, obj: object) -> None:
    """Write ``obj`` as indented JSON; dataclasses become objects, paths strings, NaN null.

    Raises:
        ArtifactError: something in ``obj`` has no JSON form, an infinite number for instance.
    """
    try:
        text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be written as JSON: {error}") from error
    with replaced(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing, is too large, or is not JSON (with the line).
    """
    if (size := _existing(path).stat().st_size) > LARGEST_JSON:
        raise ArtifactError(f"{path}: {size:,} bytes, expected at most {LARGEST_JSON:,}; write the artifact again")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; write the artifact again") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: not valid JSON: not UTF-8 text; write the artifact again") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise ArtifactError(f"{path}: not valid JSON: {_first_line(error)}; write the artifact again") from error


def read_record(path: str | Path, **kinds: type) -> dict[str, Any]:
    """Read a JSON object that holds at least these entries, each of its kind.

    Raises:
        ArtifactError: as `read_json`, or it is no such object.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise ArtifactError(f"{path}: expected a JSON object, got {type(record).__name__}; write the artifact again")
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            got = type(record[name]).__name__ if name in record else "nothing"
            raise ArtifactError(f"{path}: {name}: expected {kind.__name__}, got {got}; write the artifact again")
    return record


def read_sites(path: str | Path, names: Sequence[object]) -> tuple[Site, ...]:
    """The sites that an artifact names.

    Raises:
        ArtifactError: there are none, one is no site, or one is there twice.
    """
    try:
        sites = tuple(Site.parse(str(name)) for name in names)
    except SiteError as error:
        raise ArtifactError(f"{path}: {error}; write the artifact again") from error
    if not sites or len(set(sites)) < len(sites):
        raise ArtifactError(f"{path}: expected sites, each once, got {list(names)}; write the artifact again")
    return sites


def write_parquet(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table without its index: an index that carries meaning belongs in a column."""
    with replaced(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_parquet(path: str | Path) -> "pd.DataFrame":
    """Read a table.

    Raises:
        ArtifactError: the file is missing or is not Parquet.
    """
    import pandas as pd

    file = _existing(path)
    try:
        return pd.read_parquet(file)
    except Exception as error:  # of a damaged file pyarrow and pandas raise whatever they stumble over
        raise ArtifactError(f"{path}: not a Parquet file: {_first_line(error)}; write the artifact again") from error


def check_columns(
    path: str | Path, frame: "pd.DataFrame", *, numbers: Sequence[str] = (), texts: Sequence[str] = (), again: str
) -> None:
    """Refuse a table that lacks columns, or holds other things in them.

    Args:
        path: the file, for the message.
        frame: the table.
        numbers: columns of numbers; a number may be missing.
        texts: columns of text, none missing.
        again: what to do, for the message.

    Raises:
        ArtifactError: a column is not as expected.
    """
    for name in (*numbers, *texts):
        if name not in frame:
            raise ArtifactError(f"{path}: has no column {name}; {again}")
    for name in numbers:
        if frame[name].dtype.kind not in "iuf":
            raise ArtifactError(f"{path}: {name}: expected numbers, got {frame[name].dtype}; {again}")
    for name in texts:
        if not all(isinstance(value, str) for value in frame[name]):
            raise ArtifactError(f"{path}: {name}: expected text in every row; {again}")


def write_tensors(path: str | Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Write named tensors and string metadata as one safetensors file.

    Tensors may live on any device, be views, or share their storage: each is written out in full.

    Raises:
        ArtifactError: a metadata value is not a string (safetensors stores nothing else).
    """
    from safetensors.torch import save_file

    wrong = sorted(key for key, value in metadata.items() if not isinstance(value, str))  # pyright: ignore[reportUnnecessaryIsInstance]
    if wrong:
        raise ArtifactError(f"{path}: metadata must be strings, but these are not: {', '.join(wrong)}")
    owned: dict[str, Tensor] = {}
    storages: set[int] = set()  # safetensors refuses two names for one storage, so the second gets a copy
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        owned[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    with replaced(path) as temporary:
        save_file(owned, temporary, metadata=dict(metadata))


def read_tensors(path: str | Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read a safetensors file: its tensors (on the CPU) and its metadata.

    Raises:
        ArtifactError: the file is missing or is not safetensors.
    """
    from safetensors import safe_open

    existing = _existing(path)
    try:
        with safe_open(existing, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # SafetensorError, or what torch raises at a dtype or a shape it cannot have
        raise ArtifactError(f"{path}: not a safetensors file: {error}; write the artifact again") from error


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(named: "Iterable[tuple[str, Tensor]]") -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names.

    Bits are hashed, so 0.0 and -0.0 differ; the device and the memory layout do not matter.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def as_read_back(identity: Mapping[str, object]) -> dict[str, Any]:
    """What writing an identity as JSON and reading it makes of it: tuples become lists."""
    return json.loads(json.dumps(_plain(dict(identity))))


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an artifact written by an earlier step")
    return path


def _plain(obj: object) -> Any:
    """Reduce to what JSON holds; unknown types are left for the encoder to refuse."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: _plain(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "dtype") and getattr(obj, "ndim", None) == 0:  # a NumPy or torch scalar
        return _plain(obj.item())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(obj, float) and math.isnan(obj):
        return None
    return obj


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
