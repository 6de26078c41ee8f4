"""Pooled activations: one vector per text and site, with what is known about each text."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn.activations.shards import SHARD_ROWS, TOKEN_COUNTS, ShardWriter, missing_site, open_folder
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

IDENTITY = ("model_hash", "data_hash", "pool", "include_bos", "max_length", "dtype", "backend")
"""Metadata that decides what the vectors are; two stores that agree on it (and on the sites) hold the same numbers."""


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Vectors by site, rows in the order of the texts.

    Attributes:
        vectors: ``[row, d_model]`` float32 by site; a store opened from disk reads a site when it is asked for.
        rows: one line per text: ``n_tokens`` (tokens pooled) and, where given, ``text``, ``label``, ``group``.
        metadata: model and its hash, data hash, pool, include_bos, versions.
    """

    vectors: Mapping[Site, Tensor]
    rows: "pd.DataFrame"
    metadata: dict[str, Any]

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.vectors)

    def __getitem__(self, site: Site) -> Float[Tensor, "row d_model"]:
        """The vectors of one site.

        Raises:
            SiteError: the store does not hold it.
        """
        if site not in self.sites:
            raise missing_site(site, self.sites)
        return self.vectors[site]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Int[np.ndarray, " row"] | None:
        return self.rows["label"].to_numpy() if "label" in self.rows else None

    @property
    def groups(self) -> list[str] | None:
        return self.rows["group"].tolist() if "group" in self.rows else None

    @property
    def texts(self) -> list[str] | None:
        return self.rows["text"].tolist() if "text" in self.rows else None

    def select(self, rows: Sequence[int] | np.ndarray | Tensor) -> "ActivationStore":
        """The given rows (indices, or a boolean mask of all rows), in memory, under a data hash of their own.

        Raises:
            ConfigError: an index is out of range, or nothing is selected.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise ConfigError(f"rows: expected a mask of {len(self)} rows, got {len(chosen)}")
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            raise ConfigError("rows: nothing is selected")
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise ConfigError(f"rows: expected indices from 0 to {len(self) - 1}, got {chosen.min()} to {chosen.max()}")
        index = torch.from_numpy(chosen.astype(np.int64))
        data_hash = hash_data([self.metadata.get("data_hash"), chosen.tolist()])
        return ActivationStore(
            {site: self[site][index] for site in self.sites},
            self.rows.iloc[chosen].reset_index(drop=True),
            {**self.metadata, "data_hash": data_hash},
        )

    def to_frame(self, site: Site) -> "pd.DataFrame":
        """The table of rows with the vector's entries as further columns ``0, 1, ...``."""
        import pandas as pd

        vectors = self[site].numpy()
        names = [str(index) for index in range(vectors.shape[1])]
        return pd.concat([self.rows, pd.DataFrame(vectors, columns=names)], axis=1)

    def save(self, path: str | Path) -> None:
        """Write the store as a folder; saving the same store again rewrites it.

        Raises:
            ArtifactError: the folder holds another store, or other files.
        """
        writer = ShardWriter(Path(path), self.sites, len(self), self.metadata, IDENTITY)
        counts = torch.tensor(self.rows["n_tokens"].to_numpy())
        for start in range(0, len(self), SHARD_ROWS):
            rows = slice(start, start + SHARD_ROWS)
            tensors = {str(site): self[site][rows] for site in self.sites}
            writer.write(start, {**tensors, TOKEN_COUNTS: counts[rows]})
        writer.finish(self.rows)

    @classmethod
    def open(cls, path: str | Path, model: "HookedModel | None" = None) -> "ActivationStore":
        """Open a folder; vectors are read site by site when asked for.

        Raises:
            ArtifactError: there is no finished store, or it was collected from a model with other weights than
                ``model``.
        """
        vectors, rows, metadata = open_folder(Path(path))
        store = cls(vectors, rows, metadata)
        if model is not None:
            store.check_model(model)
        return store

    def check_model(self, model: "HookedModel") -> None:
        """Refuse a model other than the one the activations came from.

        Raises:
            ArtifactError: the weights differ.
        """
        check_model_hash(self.metadata, model, "the activation store")


def check_model_hash(metadata: Mapping[str, Any], model: "HookedModel", name: str) -> None:
    """Refuse a model whose weights are not those that ``metadata`` records.

    Raises:
        ArtifactError: the hashes differ, or none was recorded.
    """
    recorded, found = metadata.get("model_hash"), model.hash()
    if recorded != found:
        raise ArtifactError(
            f"{name} belongs to {metadata.get('model') or 'a model'} with hash {str(recorded)[:12]}, "
            f"but {model.name or 'this model'} has {found[:12]}; make it again from this model"
        )


def hash_data(data: object) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
