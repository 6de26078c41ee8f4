"""A copy of a checkpoint with some tensors changed: bytes are copied and the changed ones written over, in place.

So a model of which only some blocks were loaded is saved whole, in the memory of its largest changed tensor, and every
tensor that did not change keeps its very bytes.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_unlearn.artifacts import read_record, replaced
from interp_unlearn.errors import ArtifactError, CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format's own library
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
WEIGHTS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights are stored as; in the others lie the codes of quantised ones, and buffers."""
DTYPES = WEIGHTS | {
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "C64": torch.complex64},
}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file.

    Attributes:
        dtype: as stored.
        shape: as stored.
        start, end: first byte and the one after the last, counted from the start of the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def write_changed(
    checkpoint: str | Path, out: str | Path, tensors: Mapping[str, Tensor], prefix: str = ""
) -> list[str]:
    """Copy a checkpoint and put the tensors that differ in.

    Args:
        checkpoint: a directory in Hugging Face layout with safetensors files, or a hub id that is in the local cache.
        out: the new directory, written whole or not at all; or one that exists, to be filled.
        tensors: by name; those equal to the stored ones (in the stored dtype, or in their own) are left alone.
        prefix: what names in the file may have in front, as transformers' `base_model_prefix`.

    Returns:
        The stored names of the tensors that were written.

    Raises:
        CheckpointError: there are no safetensors files, a tensor is not in them, or is quantised or of another shape
            there.
    """
    source = checkpoint_folder(checkpoint)
    files = weight_files(source)
    stored = {name: (file, entry) for file in files for name, entry in stored_tensors(file).items()}
    changed: list[str] = []
    # A folder that is there already is somebody's own temporary one, who sees to it that it appears whole.
    with nullcontext(Path(out)) if Path(out).is_dir() else replaced(out) as folder:
        shutil.copytree(source, folder, symlinks=False, dirs_exist_ok=True)
        for name, tensor in tensors.items():
            key = _stored_name(name, prefix, stored, source)
            file, entry = stored[key]
            if entry.dtype not in WEIGHTS.values():
                raise CheckpointError(f"{source}: {key} is quantised to {entry.dtype}; use an unquantised checkpoint")
            if entry.shape != tuple(tensor.shape):
                raise CheckpointError(f"{source}: {key} has shape {entry.shape} there and {tuple(tensor.shape)} here")
            value = _bytes_of(tensor, entry.dtype)
            with (folder / file.relative_to(source)).open("r+b") as opened:
                opened.seek(entry.start)
                was = opened.read(entry.end - entry.start)
                # What was rounded while loading, and not changed since, is not to be rounded in the copy too.
                if was == value or _bytes_of(_tensor_of(was, entry.dtype), tensor.dtype) == _bytes_of(tensor):
                    continue
                opened.seek(entry.start)
                opened.write(value)
            changed.append(key)
    return changed


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """What a safetensors file holds, from its header alone.

    Raises:
        CheckpointError: it is no such file, its header does not fit it, or it holds numbers of an unknown kind.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise CheckpointError(f"{file}: not a safetensors file: a header of {length} bytes in a file of {size}")
        try:
            header: dict[str, Any] = json.loads(opened.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            places = {
                name: (str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
                for name, entry in entries.items()
            }
            if any(len(place) != 4 for place in places.values()):
                raise ValueError("expected two data_offsets")
        except (ValueError, OverflowError, RecursionError, AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: not a safetensors file: {error}; download the checkpoint again") from error
    found: dict[str, StoredTensor] = {}
    for name, (dtype, shape, first, last) in places.items():
        if dtype not in DTYPES:
            raise CheckpointError(f"{file}: {name}: {dtype} is no dtype known here ({', '.join(DTYPES)})")
        start, end = 8 + length + first, 8 + length + last
        if not 8 + length <= start <= end <= size:
            raise CheckpointError(f"{file}: {name} lies outside of the file; download the checkpoint again")
        if min(shape, default=0) < 0 or prod(shape) * DTYPES[dtype].itemsize != end - start:
            raise CheckpointError(f"{file}: {name}: its shape does not fit its bytes; download the checkpoint again")
        found[name] = StoredTensor(DTYPES[dtype], shape, start, end)
    return found


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """Where a checkpoint lies: the directory itself, or a hub id's snapshot in the local cache.

    Raises:
        CheckpointError: it is neither.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(checkpoint), local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: no such directory, and not in the local cache of the hub") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, none of which lies outside of its folder.

    Raises:
        CheckpointError: there are none, one is missing, pickled or elsewhere, or the index cannot be read.
    """
    if (folder / SINGLE).is_file():  # where an index is there too, transformers does not read it
        return [_inside(folder, SINGLE)]
    if not (folder / INDEX).is_file():
        if pickled := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES):
            raise CheckpointError(
                f"{folder}: its weights are pickled ({pickled[0]}), which can run code when opened: neither {SINGLE} "
                f"nor {INDEX} is there; where you trust it, convert the checkpoint to safetensors"
            )
        raise CheckpointError(f"{folder}: neither {SINGLE} nor {INDEX}; save the checkpoint with safetensors first")
    try:
        names = list(read_record(folder / INDEX, weight_map=dict)["weight_map"].values())
    except ArtifactError as error:
        raise CheckpointError(f"{error}, or download the checkpoint again") from error
    if not names:
        raise CheckpointError(f"{folder}: {INDEX} names no files; download the checkpoint again")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{folder}: {INDEX} names a file outside of the folder: {name}")
        if Path(name).suffix != ".safetensors":
            raise CheckpointError(f"{folder}: {INDEX} names {name}, which is no safetensors file; convert it first")
    return [_inside(folder, name) for name in sorted(set(names))]


def _inside(folder: Path, name: str) -> Path:
    """A file of a folder, which may be a link within it, or in the hub's cache, whose snapshots are links to blobs."""
    file = folder / name
    if not file.is_file():
        raise CheckpointError(f"{folder}: {name} is missing; download the checkpoint again")
    real, home = file.resolve(), folder.resolve()
    if not real.is_relative_to(home) and real.parent != home.parent.parent / "blobs":
        raise CheckpointError(f"{folder}: {name} is a link to a file outside of the folder: {real}; copy it there")
    return file


def _bytes_of(tensor: Tensor, dtype: torch.dtype | None = None) -> bytes:
    plain = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _tensor_of(stored: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(stored), dtype=dtype) if stored else torch.empty(0, dtype=dtype)


def _stored_name(name: str, prefix: str, stored: Mapping[str, object], source: Path) -> str:
    for candidate in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
        if candidate in stored:
            return candidate
    raise CheckpointError(f"{source}: no tensor named {name} in the checkpoint, with or without {prefix!r} in front")
