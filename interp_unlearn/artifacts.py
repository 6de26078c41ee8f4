"""Files a run leaves behind: safetensors, Parquet and JSON, each written whole or not at all.

No pickle anywhere: every artifact can be opened without running code from it.
"""

import dataclasses
import hashlib
import json
import math
import platform
import re
import shutil
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError, SiteError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

IDENTITY_FILE = "run.json"
LARGEST_JSON = 2**28
"""Bytes of a JSON file beyond which it is not read: those of this package take kilobytes."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # the names of `_beside`
RECORDED_PACKAGES = (
    "interp-unlearn",
    "torch",
    "transformers",
    "transformer-lens",
    "nnsight",
    "scikit-learn",
    "numpy",
    "pandas",
)


@contextmanager
def replaced(path: str | Path) -> Generator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, remove it on failure.

    What is written there may be a file or a folder. A reader sees the old one or the new one, never half of one (of a
    folder that is replaced, for an instant none). The suffix is kept, since some writers choose their format by it.
    Parent folders are made.

    Raises:
        ArtifactError: the parent folders cannot be made, or the block ended without writing anything.
    """
    path = Path(path)
    _make_parents(path)
    temporary, old = _beside(path), _beside(path)
    try:
        yield temporary
        if not temporary.exists():
            raise ArtifactError(f"nothing was written for {path}: write to the path that replaced() yields")
        if path.is_dir():  # no system call replaces a folder that holds files
            path.rename(old)
        try:
            temporary.replace(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


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


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, read from metadata without importing them."""
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def claim_folder(path: str | Path, identity: Mapping[str, object]) -> None:
    """Make ``path`` this run's folder by writing ``identity`` to its run.json; a second claim by the same run passes.

    Raises:
        ArtifactError: the folder belongs to a run with another identity, or holds files of no known run.
    """
    path = Path(path)
    wanted = as_read_back(identity)
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"{path} is a file, not a folder; choose another --out")
    if (path / IDENTITY_FILE).exists():
        record = read_json(path / IDENTITY_FILE)
        found = record.get("identity") if isinstance(record, dict) else None
        if found != wanted:
            raise ArtifactError(f"{path} holds another run ({_differences(found, wanted)}); choose another --out")
        return
    if path.exists() and any(path.iterdir()):
        raise ArtifactError(f"{path} is not empty and holds no {IDENTITY_FILE}; choose another --out")
    write_json(path / IDENTITY_FILE, {"identity": wanted, "environment": environment()})


@contextmanager
def claimed(path: str | Path, identity: Mapping[str, object] | None) -> Generator[Path]:
    """Hold a folder while a run writes to it: no other process may, and a run of another identity is refused.

    The lock is a hidden file beside the folder; it is free again when the process ends, however it ends.

    Args:
        path: the folder.
        identity: written to the folder's run.json, see `claim_folder`; None leaves the folder to appear later.

    Raises:
        ArtifactError: another process holds the folder, it belongs to another run, or cannot be made.
    """
    from filelock import FileLock, Timeout

    path = Path(path).resolve()
    _make_parents(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, is_singleton=True)  # one run may claim twice
    try:
        lock.acquire()
    except Timeout:
        raise ArtifactError(
            f"another process is writing to {path}; wait until it is done, or choose another --out"
        ) from None
    try:
        _sweep(path)
        if identity is not None:
            claim_folder(path, identity)
        yield path
    finally:
        if lock.lock_counter == 1:
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def as_read_back(identity: Mapping[str, object]) -> dict[str, Any]:
    """What writing an identity as JSON and reading it makes of it: tuples become lists."""
    return json.loads(json.dumps(_plain(dict(identity))))


def record_run(path: str | Path, facts: Mapping[str, object]) -> None:
    """Add facts about how a run went (times, versions) to the run.json of its claimed folder.

    They are no part of the run's identity, so they never refuse a later claim.
    """
    file = Path(path) / IDENTITY_FILE
    write_json(file, read_json(file) | dict(facts))


def _sweep(path: Path) -> None:
    """Remove what a killed run left half-written, in the folder and where the folder itself was to appear."""
    beside = (other for other in path.parent.glob(f".{path.stem}.*") if other.suffix == path.suffix or not path.suffix)
    for left in [*beside, *path.rglob(".*")]:
        if _TEMPORARY.fullmatch(left.name) and left.exists():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _beside(path: Path) -> Path:
    """A hidden name of its own in the same folder, with the same suffix."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot make its folder ({error.strerror}); choose another place") from error


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


def _differences(found: object, wanted: dict[str, object]) -> str:
    if not isinstance(found, dict):
        return f"its {IDENTITY_FILE} is no JSON object"
    keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    return "; ".join(f"{key}: {_short(found.get(key))} there, {_short(wanted.get(key))} here" for key in keys)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
