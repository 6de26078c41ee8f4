"""The folder of an activation store: ``index.json``, ``rows.parquet`` and safetensors shards of consecutive rows.

The index is written first and extended after every shard, so that an interrupted collection can be taken up again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.artifacts import read_json, read_parquet, write_json, write_parquet, write_tensors
from interp_unlearn.errors import ArtifactError, SiteError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
SHARD_ROWS = 4096
TOKEN_COUNTS = "n_tokens"
INDEX_FILE = "index.json"
ROWS_FILE = "rows.parquet"


class ShardedVectors(Mapping[Site, Tensor]):
    """Vectors by site, read from the shards when asked for: one site is in memory at a time."""

    def __init__(self, folder: Path, sites: tuple[Site, ...], shards: tuple[int, ...]) -> None:
        self._folder, self._sites, self._shards = folder, sites, shards

    def __getitem__(self, site: Site) -> Float[Tensor, "row d_model"]:
        if site not in self._sites:
            raise missing_site(site, self._sites)
        return read_shards(self._folder, str(site), self._shards)

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


class ShardWriter:
    """Writes one store's folder shard by shard.

    Args:
        folder: where; made if missing.
        sites: of every shard.
        n_rows: of the finished store.
        metadata: written into the index.
        identity: the part of the metadata that decides whether shards found there belong to this store.

    Raises:
        ArtifactError: the folder holds another store, or other files.
    """

    def __init__(
        self, folder: Path, sites: tuple[Site, ...], n_rows: int, metadata: Mapping[str, Any], identity: tuple[str, ...]
    ) -> None:
        self._folder = folder
        self._index: dict[str, Any] = {
            "format": FORMAT,
            "sites": [str(site) for site in sites],
            "n_rows": n_rows,
            "shard_rows": SHARD_ROWS,
            "shards": [],
            "metadata": dict(metadata),
        }
        if (folder / INDEX_FILE).exists():
            self._take_up(read_json(folder / INDEX_FILE), identity)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ArtifactError(f"{folder}: not an empty folder and no activation store; choose another one")
        write_json(folder / INDEX_FILE, self._index)

    def has(self, start: int) -> bool:
        """Whether the shard that begins at this row is there already."""
        return start in self._index["shards"]

    def write(self, start: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the shard that begins at this row: sites and token counts, ``[row, ...]``."""
        write_tensors(self._folder / shard_name(start), dict(tensors), {"start": str(start)})
        if not self.has(start):
            self._index["shards"].append(start)
            write_json(self._folder / INDEX_FILE, self._index)

    def read_token_counts(self) -> Tensor:
        """Token counts of all rows ``[row]``, from the shards."""
        return read_shards(self._folder, TOKEN_COUNTS, tuple(sorted(self._index["shards"])))

    def finish(self, rows: "pd.DataFrame") -> None:
        """Write the table of rows, after the last shard."""
        write_parquet(self._folder / ROWS_FILE, rows)

    def _take_up(self, found: dict[str, Any], identity: tuple[str, ...]) -> None:
        """Keep the shards of an earlier, equal collection."""
        keys = ("format", "sites", "n_rows", "shard_rows")
        differing = [key for key in keys if found.get(key) != self._index[key]]
        there, here = found.get("metadata", {}), self._index["metadata"]
        differing += [key for key in identity if there.get(key) != here.get(key)]
        if differing:
            raise ArtifactError(
                f"{self._folder} holds another activation store ({', '.join(differing)} differ); choose another folder"
            )
        self._index["shards"] = [start for start in found["shards"] if (self._folder / shard_name(start)).is_file()]


def open_folder(folder: Path) -> "tuple[ShardedVectors, pd.DataFrame, dict[str, Any]]":
    """Vectors (not yet read), table of rows and metadata of a finished store.

    Raises:
        ArtifactError: there is no store, it is of another format, unfinished or damaged.
    """
    if not (folder / INDEX_FILE).is_file():
        raise ArtifactError(
            f"{folder}: no activation store there ({INDEX_FILE} is missing); expected what collect wrote"
        )
    index = read_json(folder / INDEX_FILE)
    if index.get("format") != FORMAT:
        raise ArtifactError(f"{folder}: format {index.get('format')}, expected {FORMAT}; collect the store again")
    expected = list(range(0, index["n_rows"], index["shard_rows"]))
    if sorted(index["shards"]) != expected or not (folder / ROWS_FILE).is_file():
        done = f"{len(index['shards'])} of {len(expected)} shards"
        raise ArtifactError(f"{folder}: unfinished ({done}); run the same collection again to finish it")
    rows = read_parquet(folder / ROWS_FILE)
    if len(rows) != index["n_rows"]:
        raise ArtifactError(f"{folder}: {len(rows)} rows in the table, {index['n_rows']} in the index; collect again")
    sites = tuple(Site.parse(name) for name in index["sites"])
    return ShardedVectors(folder, sites, tuple(expected)), rows, index["metadata"]


def read_shards(folder: Path, name: str, shards: tuple[int, ...]) -> Tensor:
    """One named tensor of every shard, concatenated ``[row, ...]``; nothing else is read.

    Raises:
        ArtifactError: a shard is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    parts: list[Tensor] = []
    for start in shards:
        path = folder / shard_name(start)
        try:
            with safe_open(path, framework="pt") as file:
                parts.append(file.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path}: cannot read {name}: {error}; collect the store again") from error
    return torch.cat(parts)


def shard_name(start: int) -> str:
    """File name of the shard that begins at this row."""
    return f"rows-{start:09d}.safetensors"


def missing_site(site: Site, sites: tuple[Site, ...]) -> SiteError:
    """The error for a site that a store does not hold."""
    return SiteError(f"{site} is not in the store; it holds {', '.join(map(str, sites))}")
