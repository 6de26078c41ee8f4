"""The folder of an activation store: ``index.json``, ``rows.parquet`` and safetensors shards of consecutive texts.

The index is written first. A shard is written whole or not at all, so that an interrupted collection can be taken up
again: what is there is done.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from interp_unlearn.artifacts import (
    check_columns,
    environments_since,
    read_json,
    read_parquet,
    read_record,
    read_sites,
    write_json,
    write_parquet,
    write_tensors,
)
from interp_unlearn.errors import ArtifactError, SiteError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
TOKEN_COUNTS = "n_tokens"
TOKEN_IDS = "token_ids"
INDEX_FILE = "index.json"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}
ROWS_FILE = "rows.parquet"


class ShardedVectors(Mapping[Site, Tensor]):
    """Vectors by site, mapped into memory from the shards when asked for.

    Args:
        folder: of the store.
        sites: that the shards hold.
        starts: first vector of each shard, and the number of all of them.
        names: files of the shards.
    """

    def __init__(self, folder: Path, sites: tuple[Site, ...], starts: Sequence[int], names: Sequence[str]) -> None:
        self._folder, self._sites, self._starts, self._names = folder, sites, np.asarray(starts), names

    def __getitem__(self, site: Site) -> Float[Tensor, "row d"]:
        return self.read(site, np.arange(self._starts[-1]))

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def read(self, site: Site, rows: Int[np.ndarray, " chosen"]) -> Float[Tensor, "chosen d"]:
        """Some vectors of one site: nothing else is read from the disk, and nothing is copied twice.

        Raises:
            SiteError: the store does not hold the site.
            ArtifactError: a shard is missing or damaged.
        """
        if site not in self._sites:
            raise missing_site(site, self._sites)
        return self.read_named(str(site), rows)

    def read_named(self, name: str, rows: Int[np.ndarray, " chosen"]) -> Tensor:
        """The same for a tensor that is not a site's, such as the token ids."""
        of_shard = np.searchsorted(self._starts, rows, side="right") - 1
        result: Tensor | None = None
        for shard in np.unique(of_shard):
            mapped = self._mapped(int(shard), name)
            places = np.flatnonzero(of_shard == shard)
            local = rows[places] - self._starts[shard]
            part = mapped[_as_slice(local)]
            if len(places) == len(rows):
                return part
            if result is None:
                result = mapped.new_empty(len(rows), *mapped.shape[1:])
            result[_as_slice(places)] = part
        return self._mapped(0, name)[:0] if result is None else result

    def _mapped(self, shard: int, name: str) -> Tensor:
        path, n_rows = self._folder / self._names[shard], int(self._starts[shard + 1] - self._starts[shard])
        mapped = map_tensor(path, name)
        expected = (1, False) if name == TOKEN_IDS else (2, True)
        if (mapped.ndim, mapped.is_floating_point()) != expected or len(mapped) != n_rows:
            raise ArtifactError(
                f"{path}: {name} is {tuple(mapped.shape)} of {mapped.dtype}, expected {n_rows} rows of "
                f"{'vectors' if expected[1] else 'ids'}; collect the store again"
            )
        return mapped


VERSIONS = {"versions": "environment", "earlier_versions": "earlier_environments"}
"""What metadata calls the entries of `environments_since`; they decide nothing."""


class ShardWriter:
    """Writes one store's folder shard by shard.

    Args:
        folder: where; made if missing.
        sites: of every shard.
        starts: first text of each shard.
        n_rows: texts of the finished store.
        metadata: written into the index.
        identity: the part of the metadata that decides whether shards found there belong to this store.
        goes_on: whether shards found there stay, so that the metadata tells of their versions too.

    Raises:
        ArtifactError: the folder holds another store, or other files.
    """

    def __init__(
        self,
        folder: Path,
        sites: tuple[Site, ...],
        starts: Sequence[int],
        n_rows: int,
        metadata: Mapping[str, Any],
        identity: tuple[str, ...],
        goes_on: bool = False,
    ) -> None:
        self._folder, self._starts = folder, tuple(starts)
        index: dict[str, Any] = {
            "format": FORMAT,
            "sites": [str(site) for site in sites],
            "n_rows": n_rows,
            "shard_starts": list(starts),
            "metadata": dict(metadata),
        }
        if (folder / INDEX_FILE).exists():
            found = read_json(folder / INDEX_FILE)
            _check_same(folder, found, index, identity)
            if goes_on:
                index["metadata"] |= self._versions_since(found["metadata"])
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ArtifactError(f"{folder}: not an empty folder and no activation store; choose another one")
        write_json(folder / INDEX_FILE, index)

    def has(self, start: int) -> bool:
        """Whether the shard that begins at this text is there already."""
        return (self._folder / shard_name(start)).is_file()

    def write(self, start: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the shard that begins at this text: sites and token counts, ``[row, ...]``."""
        write_tensors(self._folder / shard_name(start), dict(tensors), {"start": str(start)})

    def read_token_counts(self) -> Int[np.ndarray, " text"]:
        """Token counts of all texts, from the shards."""
        return np.concatenate([map_tensor(self._folder / shard_name(i), TOKEN_COUNTS).numpy() for i in self._starts])

    def finish(self, rows: "pd.DataFrame") -> None:
        """Write the table of rows, after the last shard."""
        write_parquet(self._folder / ROWS_FILE, rows)

    def _versions_since(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What the index says of versions: as found where no shard is lacking, else also of those that go on."""
        there = [self.has(start) for start in self._starts]
        if all(there):
            return {name: found[name] for name in VERSIONS if name in found}
        if not any(there):
            return {}
        last = {key: found.get(name) for name, key in VERSIONS.items()}
        since = environments_since(last, self._folder)
        return {name: since[key] for name, key in VERSIONS.items() if key in since}


def open_folder(folder: Path) -> "tuple[ShardedVectors, pd.DataFrame, dict[str, Any]]":
    """Vectors (not yet read), table of rows and metadata of a finished store.

    Raises:
        ArtifactError: there is no store, it is of another format, unfinished or damaged.
    """
    if not (folder / INDEX_FILE).is_file():
        raise ArtifactError(
            f"{folder}: no activation store there ({INDEX_FILE} is missing); expected what collect wrote"
        )
    index = read_record(folder / INDEX_FILE)
    if index.get("format") != FORMAT:
        raise ArtifactError(f"{folder}: format {index.get('format')}, expected {FORMAT}; collect the store again")
    index = read_record(folder / INDEX_FILE, sites=list, n_rows=int, shard_starts=list, metadata=dict)
    if lacking := sorted({"model_hash", "data_hash", "pool"} - index["metadata"].keys()):
        raise ArtifactError(f"{folder / INDEX_FILE}: metadata has no {', '.join(lacking)}; collect the store again")
    starts: list[int] = index["shard_starts"]
    if not all(isinstance(start, int) for start in starts) or starts != sorted({0, *starts}):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArtifactError(
            f"{folder}: expected shard_starts that count up from 0, got {starts}; collect the store again"
        )
    names = [shard_name(start) for start in starts]
    done = sum((folder / name).is_file() for name in names)
    if done < len(names) or not (folder / ROWS_FILE).is_file():
        raise ArtifactError(
            f"{folder}: unfinished ({done} of {len(names)} shards); run the same collection again to finish it"
        )
    rows = read_parquet(folder / ROWS_FILE)
    if len(rows) != index["n_rows"] or starts[-1] >= len(rows):
        raise ArtifactError(f"{folder}: {len(rows)} rows in the table, {index['n_rows']} in the index; collect again")
    check_columns(folder / ROWS_FILE, rows, numbers=[TOKEN_COUNTS], again="collect the store again")
    counts = rows[TOKEN_COUNTS].to_numpy()
    if counts.dtype.kind not in "iu" or (counts < 1).any():
        raise ArtifactError(f"{folder / ROWS_FILE}: {TOKEN_COUNTS}: expected whole numbers above 0; collect again")
    sites = read_sites(folder / INDEX_FILE, index["sites"])
    starts = [*starts, len(rows)]
    if index["metadata"].get("pool") == "none":  # vectors are counted in tokens there
        starts = np.concatenate([[0], counts.cumsum()])[starts].tolist()
    return ShardedVectors(folder, sites, starts, names), rows, index["metadata"]


def shard_name(start: int) -> str:
    """File name of the shard that begins at this text."""
    return f"rows-{start:09d}.safetensors"


def missing_site(site: Site, sites: tuple[Site, ...]) -> SiteError:
    """The error for a site that a store does not hold."""
    return SiteError(f"{site} is not in the store; it holds {', '.join(map(str, sites))}")


def map_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a safetensors file, mapped into memory: nothing is read before it is used.

    The library's own reader copies a tensor as a whole. Writing to the tensor does not reach the file.

    Raises:
        ArtifactError: the file is missing or damaged, or holds no tensor of that name.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:  # checks the whole header against the file
            if name not in file.keys():  # noqa: SIM118
                raise ArtifactError(f"{path}: holds no {name}; collect the store again")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot read {name}: {error}; collect the store again") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
    first, last = entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ArtifactError(f"{path}: {name} is of type {entry['dtype']}, expected {', '.join(_DTYPES)}; collect again")
    if first == last:
        return torch.empty(entry["shape"], dtype=dtype)
    data = np.memmap(path, dtype=np.uint8, mode="c", offset=8 + length + first, shape=(last - first,))
    return torch.frombuffer(data, dtype=dtype).reshape(entry["shape"])


def _check_same(folder: Path, found: Any, index: Mapping[str, Any], identity: tuple[str, ...]) -> None:
    """Refuse shards of another collection.

    Raises:
        ArtifactError: they are.
    """
    if not isinstance(found, dict):
        raise ArtifactError(f"{folder / INDEX_FILE}: expected a JSON object; choose another folder")
    keys = ("format", "sites", "n_rows", "shard_starts")
    differing = [key for key in keys if found.get(key) != index[key]]
    there, here = found.get("metadata"), index["metadata"]
    differing += [key for key in identity if not isinstance(there, dict) or there.get(key) != here.get(key)]
    if differing:
        raise ArtifactError(
            f"{folder} holds another activation store ({', '.join(differing)} differ); choose another folder"
        )


def _as_slice(rows: Int[np.ndarray, " chosen"]) -> "slice | Tensor":
    """Consecutive rows as a slice, which copies nothing; others as an index."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and bool((np.diff(rows) == 1).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows)
