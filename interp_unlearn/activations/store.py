"""Collected activations: one vector per text and site, or one per token, with what is known about each text."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_unlearn.activations.plan import SHARD_ROWS
from interp_unlearn.activations.shards import (
    TOKEN_COUNTS,
    TOKEN_IDS,
    ShardedVectors,
    ShardWriter,
    missing_site,
    open_folder,
)
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

Rows = slice | Sequence[int] | np.ndarray | Tensor
"""Which texts: a slice, indices, or a boolean mask of all texts."""

IDENTITY = (
    "model_hash",
    "data_hash",
    "pool",
    "tokens",
    "include_bos",
    "max_length",
    "dtype",
    "backend",
    "batch_tokens",
    "rows_hash",
    "token_ids_hash",
)
"""Metadata that decides what the vectors are, and their labels; two stores that agree on it and the sites are one."""


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Vectors by site, rows in the order of the texts.

    Attributes:
        vectors: ``[row, width]`` by site, at z the heads side by side: float32 and a row a text where pooled; in a
            token-level store in the model's precision and a row a token. Opened from disk they are mapped into memory
            and read when used.
        rows: one line per text: ``n_tokens`` (tokens that count) and, where given, ``text``, ``label``, ``group``.
        metadata: model and its hash, data hash, pool, tokens, include_bos, batch_tokens, versions (and
            earlier_versions, of a collection that went on under others).
        token_ids: of a token-level store in memory, the id of each row's token.
    """

    vectors: Mapping[Site, Tensor]
    rows: "pd.DataFrame"
    metadata: dict[str, Any]
    token_ids: Int[Tensor, " row"] | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.vectors)

    @property
    def token_level(self) -> bool:
        """Whether there is a vector for each token, instead of one for each text."""
        return self.metadata.get("pool") == "none"

    def __getitem__(self, site: Site) -> Float[Tensor, "row width"]:
        """All vectors of one site.

        Raises:
            SiteError: the store does not hold it.
        """
        if site not in self.sites:
            raise missing_site(site, self.sites)
        return self.vectors[site]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.rows)

    @property
    def labels(self) -> Int[np.ndarray, " text"] | None:
        return self.rows["label"].to_numpy() if "label" in self.rows else None

    @property
    def groups(self) -> list[str] | None:
        return self.rows["group"].tolist() if "group" in self.rows else None

    @property
    def texts(self) -> list[str] | None:
        return self.rows["text"].tolist() if "text" in self.rows else None

    def read(self, site: Site, rows: Rows | None = None) -> Float[Tensor, "row width"]:
        """The vectors of some texts at one site; of a token-level store all their tokens', text after text.

        Of a store on disk only these are read. A run of consecutive rows of one shard is a view of the mapped file.

        Raises:
            SiteError: the store does not hold the site.
            ConfigError: a row is out of range.
        """
        if rows is None:
            return self[site]
        chosen = self._vector_rows(self._indices(rows))
        if site in self.sites and isinstance(self.vectors, ShardedVectors):
            return self.vectors.read(site, chosen)
        return self[site][torch.from_numpy(chosen)]

    def array(self, site: Site, rows: Rows | None = None) -> Float[np.ndarray, "row width"]:
        """The same as a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
        vectors = self.read(site, rows)
        return (vectors.float() if vectors.dtype == torch.bfloat16 else vectors).numpy()

    def select(self, rows: Rows) -> "ActivationStore":
        """The given texts, in memory, under a data hash of their own.

        Raises:
            ConfigError: an index is out of range, or nothing is selected.
        """
        chosen = self._indices(rows)
        if chosen.size == 0:
            raise ConfigError("rows: nothing is selected")
        data_hash = hash_data([self.metadata.get("data_hash"), chosen.tolist()])
        return ActivationStore(
            {site: self.read(site, chosen) for site in self.sites},
            self.rows.iloc[chosen].reset_index(drop=True),
            {**self.metadata, "data_hash": data_hash},
            self._read_token_ids(chosen) if self.token_level else None,
        )

    def token_frame(self, rows: Rows | None = None) -> "pd.DataFrame":
        """Of a token-level store, one line per vector: ``row`` (of the text), ``place`` (in the text, counted from 0 at
        its first token that counts), ``token_id``.

        Raises:
            ConfigError: the store holds a vector for each text only.
        """
        import pandas as pd

        if not self.token_level:
            raise ConfigError("the store holds one vector per text; collect with pool='none' for one per token")
        chosen = np.arange(len(self)) if rows is None else self._indices(rows)
        counts = self.rows[TOKEN_COUNTS].to_numpy()[chosen]
        places = np.concatenate([np.arange(count) for count in counts])
        ids = self._read_token_ids(chosen).numpy()
        return pd.DataFrame({"row": np.repeat(chosen, counts), "place": places, "token_id": ids})

    def to_frame(self, site: Site, rows: Rows | None = None) -> "pd.DataFrame":
        """The table of rows (for a token-level store, of tokens) with the vector's entries as columns ``0, 1, ...``."""
        import pandas as pd

        table = self.rows if rows is None else self.rows.iloc[self._indices(rows)].reset_index(drop=True)
        if self.token_level:
            table = self.token_frame(rows)
        vectors = self.array(site, rows)
        names = [str(index) for index in range(vectors.shape[1])]
        return pd.concat([table, pd.DataFrame(vectors, columns=names, copy=False)], axis=1)

    def save(self, path: str | Path) -> None:
        """Write the store as a folder; saving the same store again rewrites it.

        Raises:
            ArtifactError: the folder holds another store, or other files.
        """
        starts = range(0, len(self), SHARD_ROWS)
        writer = ShardWriter(Path(path), self.sites, starts, len(self), self.metadata, IDENTITY)
        counts = torch.tensor(self.rows[TOKEN_COUNTS].to_numpy())
        for start in starts:
            rows = slice(start, min(start + SHARD_ROWS, len(self)))
            tensors = {str(site): self.read(site, rows) for site in self.sites} | {TOKEN_COUNTS: counts[rows]}
            if self.token_level:
                tensors[TOKEN_IDS] = self._read_token_ids(self._indices(rows))
            writer.write(start, tensors)
        writer.finish(self.rows)

    @classmethod
    def open(cls, path: str | Path, model: "HookedModel | None" = None) -> "ActivationStore":
        """Open a folder; vectors are mapped into memory and read when used.

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

    def _indices(self, rows: Rows) -> Int[np.ndarray, " chosen"]:
        if isinstance(rows, slice):
            return np.arange(len(self))[rows]
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise ConfigError(f"rows: expected a mask of {len(self)} rows, got {len(chosen)}")
            return np.flatnonzero(chosen)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ConfigError(f"rows: expected indices from 0 to {len(self) - 1}, got {chosen.min()} to {chosen.max()}")
        return chosen.astype(np.int64)

    def _vector_rows(self, texts: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " vector"]:
        """The rows of `vectors` that belong to some texts."""
        if not self.token_level:
            return texts
        ends = np.concatenate([[0], self.rows[TOKEN_COUNTS].to_numpy().cumsum()])
        parts = [np.arange(int(ends[text]), int(ends[text + 1])) for text in texts]
        return np.concatenate(parts) if parts else texts

    def _read_token_ids(self, texts: Int[np.ndarray, " chosen"]) -> Int[Tensor, " vector"]:
        rows = self._vector_rows(texts)
        if isinstance(self.vectors, ShardedVectors):
            return self.vectors.read_named(TOKEN_IDS, rows)
        if self.token_ids is None:
            raise ConfigError("the store does not know its token ids; collect it again")
        return self.token_ids[torch.from_numpy(rows)]


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


def hash_data(parts: Iterable[object]) -> str:
    """SHA-256 of JSON-able values, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()
