"""Fitted probes: one direction per site, in raw residual coordinates, with the table that says how good they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from interp_unlearn.activations import ActivationStore, check_model_hash
from interp_unlearn.activations.store import hash_data
from interp_unlearn.artifacts import (
    check_columns,
    hash_tensors,
    read_parquet,
    read_record,
    read_sites,
    read_tensors,
    write_json,
    write_parquet,
    write_tensors,
)
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.probes.auroc import auroc
from interp_unlearn.probes.folds import binary_labels
from interp_unlearn.sites import Site
from interp_unlearn.snapshots import open_folder

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

Estimator = Literal["logistic", "mean_difference"]

_DIRECTIONS = ("directions", "mean_differences")
_TENSORS = (*_DIRECTIONS, "biases", "scales", "mean_difference_biases")

Directions = Float[Tensor, "site d_model"] | tuple[Float[Tensor, " width"], ...]
"""A row per site; a tuple of vectors where the sites differ in width (logits beside the residual stream)."""


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Probes at several sites; everywhere ``h . direction + bias`` is a signed L2 distance in the residual stream.

    Attributes:
        sites: where.
        directions: of the logistic regression, unit norm, towards class 1.
        biases: of the logistic regression.
        scales: ``scales[i] * (h . directions[i] + biases[i])`` is the regression's log-odds.
        mean_differences: unit difference of the class means, towards class 1.
        mean_difference_biases: put 0 half-way between the class means.
        table: a line per site, see below.
        metadata: model and its hash, data hash, pool, settings of the fit, C of each fold, versions.

    Columns of the table, all out of fold where it makes a difference, and null where not asked for:
        ``site, layer``
        ``auroc``: mean over folds, with its 95% bootstrap interval over groups ``auroc_low, auroc_high``.
        ``accuracy``: read it beside ``n_positive / n``.
        ``brier, log_loss, calibration_error, calibration_slope``: whether the log-odds can be believed, see
        `calibration.calibration`.
        ``auroc_shuffled, accuracy_shuffled``: the control task, labels shuffled by `folds.shuffle_within_folds`, at
        the probe's C: 0.5, or for the accuracy the share of the larger class at most, but for chance. They show the
        spread of the null at this number of rows and dimensions, and a fault in the procedure; not near-duplicate texts
        in different folds, which is what groups are for.
        ``selectivity``: accuracy minus ``accuracy_shuffled`` (Hewitt and Liang 2019, arXiv 1909.03368), whose control
        task gives each word type a random label; here each group gets one. Caveat: a word type is met again in their
        test set, a group never in ours, so that nothing memorised can help the control; and so selectivity says how
        far the probe is above labels without meaning, and not how much it can memorise.
        ``auroc_mean_difference``: of the second estimator.
        ``auroc_leace``: after LEACE (`leace.fit_leace`) fitted on each training fold, of a probe trained again on what
        it leaves there (before it: ``auroc``). It is 0.5 by theorem and so a check of the erasure: what a probe trained
        on new rows would still read, it does not say.
        ``auroc_random_direction, auroc_bag_of_words, auroc_length``: what needs no direction of the model, no model,
        or no words.
        ``stability, stability_low, stability_halves``: cosines between refitted directions, see
        `stability.direction_stability`.
        ``C``: of the final fit.
        ``n, n_groups, n_positive``: rows, groups and rows of class 1.
    """

    sites: tuple[Site, ...]
    directions: Directions
    biases: Float[Tensor, " site"]
    scales: Float[Tensor, " site"]
    mean_differences: Directions
    mean_difference_biases: Float[Tensor, " site"]
    table: "pd.DataFrame"
    metadata: dict[str, Any]

    def direction(self, site: Site, estimator: Estimator = "logistic") -> Float[Tensor, " width"]:
        """Unit direction towards class 1.

        Raises:
            SiteError: there is no probe at the site.
            ConfigError: another estimator.
        """
        return self._parameters(estimator)[0][self._index(site)]

    def bias(self, site: Site, estimator: Estimator = "logistic") -> float:
        """What to add to ``h . direction``.

        Raises:
            SiteError: there is no probe at the site.
            ConfigError: another estimator.
        """
        return float(self._parameters(estimator)[1][self._index(site)])

    def score(
        self,
        activations: ActivationStore | Float[Tensor, "*rows width"],
        site: Site,
        estimator: Estimator = "logistic",
    ) -> Float[Tensor, "*rows"]:
        """Signed L2 distance from the probe's border, positive on the side of class 1.

        Raises:
            SiteError: there is no probe at the site, or the store does not hold it.
        """
        direction = self.direction(site, estimator)
        vectors = activations[site] if isinstance(activations, ActivationStore) else activations
        return vectors.float() @ direction.to(vectors.device) + self.bias(site, estimator)

    def best(self) -> Site:
        """The site of the highest out-of-fold AUROC; the first of equals.

        Caveat: the highest of many is flattered; report it on data that did not choose it.
        """
        return self.sites[int(np.argmax(self.table["auroc"].to_numpy()))]

    def evaluate(self, store: ActivationStore, labels: ArrayLike | None = None) -> "pd.DataFrame":
        """AUROC on other data, for every site that the store holds too: ``site, layer, auroc, auroc_mean_difference,
        accuracy, n``. The store may come from another model: that is how a probe is read after unlearning.

        Raises:
            ConfigError: labels of one class or not binary, or no site in common.
        """
        import pandas as pd

        classes = binary_labels(store.labels if labels is None else labels, len(store))
        sites = [site for site in self.sites if site in store.sites]
        if not sites:
            raise ConfigError("the store holds none of the probes' sites; collect it at those")
        rows: list[dict[str, Any]] = []
        for site in sites:
            scores = self.score(store, site).double().numpy()
            other = self.score(store, site, "mean_difference").double().numpy()
            rows.append(
                {
                    "site": str(site),
                    "layer": site.layer,
                    "auroc": auroc(classes, scores),
                    "auroc_mean_difference": auroc(classes, other),
                    "accuracy": float(((scores > 0) == classes).mean()),
                    "n": len(store),
                }
            )
        return pd.DataFrame(rows).astype({"layer": "Int64"})

    @property
    def strength_sites(self) -> tuple[Site, ...]:
        """Where C was chosen for all sites; empty where each chose its own, or it was given."""
        return tuple(Site.parse(name) for name in self.metadata.get("C_sites") or ())

    def hash(self) -> str:
        """SHA-256 over probes, table and settings; not over the versions they were made with."""
        tensors = [(f"{name} {i}", part) for name in _TENSORS for i, part in enumerate(getattr(self, name))]
        settings = {key: value for key, value in self.metadata.items() if key != "versions"}
        table = self.table.to_json(double_precision=15)
        return hash_data([list(map(str, self.sites)), hash_tensors(tensors), settings, table])

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table."""
        return self.table.copy()

    def save(self, path: str | Path) -> None:
        """Write ``probes.safetensors`` (directions end to end), ``table.parquet`` and ``probes.json`` into a folder."""
        folder = Path(path)
        tensors = {name: torch.cat([part.reshape(-1) for part in getattr(self, name)]) for name in _TENSORS}
        write_tensors(folder / "probes.safetensors", tensors, {})
        write_parquet(folder / "table.parquet", self.table)
        sites = [str(site) for site in self.sites]
        widths = [len(direction) for direction in self.directions]
        write_json(folder / "probes.json", {"sites": sites, "widths": widths, "metadata": self.metadata})

    @classmethod
    def load(cls, path: str | Path, model: "HookedModel | None" = None) -> "ProbeSet":
        """Read a folder that `save` wrote.

        Raises:
            ArtifactError: it is missing or damaged, or the probes were fitted on a model with other weights than
                ``model``.
        """
        folder = Path(path)
        description = read_record(folder / "probes.json", sites=list, metadata=dict)
        tensors, _ = read_tensors(folder / "probes.safetensors")
        table = read_parquet(folder / "table.parquet")
        sites = read_sites(folder / "probes.json", description["sites"])
        if lacking := sorted({"model_hash", "pool", "include_bos"} - description["metadata"].keys()):
            raise ArtifactError(f"{folder / 'probes.json'}: metadata has no {', '.join(lacking)}; fit the probes again")
        widths: list[int] = description.get("widths", [])
        fits = isinstance(widths, list) and all(isinstance(width, int) and width > 0 for width in widths)  # pyright: ignore[reportUnnecessaryIsInstance]
        widths = widths if fits and len(widths) == len(sites) else []
        sizes = {name: sum(widths) if name in _DIRECTIONS else len(sites) for name in _TENSORS}
        if {name: tensor.numel() for name, tensor in tensors.items()} != sizes or len(table) != len(sites):
            raise ArtifactError(
                f"{folder}: probes.safetensors, probes.json and table.parquet do not belong together; fit again"
            )
        if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
            raise ArtifactError(f"{folder}: {broken[0]} hold infinite values or NaN; fit the probes again")
        check_columns(folder / "table.parquet", table, numbers=["auroc"], again="fit the probes again")
        vectors: dict[str, Any] = {name: stack_rows(tensors[name].split(widths)) for name in _DIRECTIONS}
        probes = cls(sites=sites, table=table, metadata=description["metadata"], **tensors | vectors)
        if model is not None:
            check_model_hash(probes.metadata, model, "the probe set")
        return probes

    def save_pretrained(self, path: str | Path) -> None:
        """`save`, under the name that Hugging Face users know; `hub.write_probe_card` adds a card."""
        self.save(path)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        model: "HookedModel | None" = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> "ProbeSet":
        """`load` from a folder, or from the hub at a revision.

        Args:
            path: folder or hub id.
            model: refused where the probes were fitted on other weights than its.
            revision: of a hub id: commit, tag or branch. There is no default.
            cache_dir: of the hub; None for its own.

        Raises:
            ConfigError: no revision is stated of a hub id, or one of a folder.
            HubError: nothing is there, or it cannot be fetched.
            ArtifactError: as `load`.
        """
        return cls.load(open_folder(path, revision, expected="probes.json", cache_dir=cache_dir), model)

    def _parameters(self, estimator: Estimator) -> tuple[Directions, Tensor]:
        if estimator == "logistic":
            return self.directions, self.biases
        if estimator == "mean_difference":
            return self.mean_differences, self.mean_difference_biases
        raise ConfigError(f"estimator: expected logistic or mean_difference, got {estimator!r}")

    def _index(self, site: Site) -> int:
        if site not in self.sites:
            raise SiteError(f"no probe at {site}; there are probes at {', '.join(map(str, self.sites))}")
        return self.sites.index(site)


def stack_rows(vectors: Sequence[Float[Tensor, " width"]]) -> Directions:
    """Vectors of one width as a tensor, of several as a tuple."""
    return torch.stack(list(vectors)) if len({len(vector) for vector in vectors}) == 1 else tuple(vectors)
