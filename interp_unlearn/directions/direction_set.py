"""`Directions`: one unit vector at each of several sites, from probes or brought by the user."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.activations import check_model_hash
from interp_unlearn.artifacts import read_sites, read_tensors, write_tensors
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.probes import Estimator, ProbeSet
from interp_unlearn.settings import is_finite
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

FORMAT = "interp_unlearn directions"
"""How a safetensors file says that `Directions.save` wrote it."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit vectors by site; where there is a bias, ``h . vector + bias`` is a signed L2 distance from a border.

    Vectors of any norm may be given: they are brought to unit norm in float32, and their biases with them.

    Attributes:
        vectors: one a site, in the order of the pass.
        biases: of the sites that have a border; ``-bias`` is its place along the unit vector.
        name: what the direction is called in tables.
        metadata: where it comes from; ``model_hash``, where it is known, ties it to a model's weights.

    Raises:
        ConfigError: there are none, or one is not a finite vector other than 0.
        SiteError: a key is not a Site, or a bias belongs to no vector.
    """

    vectors: Mapping[Site, Float[Tensor, " width"]]
    biases: Mapping[Site, float] = field(default_factory=dict)
    name: str = "direction"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, Mapping) or not self.vectors:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError("no directions; expected a vector for at least one site")
        strangers = [key for key in (*self.vectors, *self.biases) if not isinstance(key, Site)]  # pyright: ignore[reportUnnecessaryIsInstance]
        if strangers:
            raise SiteError(f"directions are keyed by Site, got {strangers[0]!r}; use Site.parse to read one from text")
        if alone := [site for site in self.biases if site not in self.vectors]:
            raise SiteError(f"bias at {alone[0]} without a direction there; give both or neither")
        for site, bias in self.biases.items():
            if not is_finite(bias):
                raise ConfigError(f"{site}: bias: expected a finite number, got {bias!r}")
        norms = {site: _checked_norm(site, vector) for site, vector in self.vectors.items()}
        order = sorted(self.vectors)
        units = {site: (self.vectors[site].detach().double().cpu() / norms[site]).float() for site in order}
        biases = {site: float(self.biases[site]) / norms[site] for site in order if site in self.biases}
        object.__setattr__(self, "vectors", units)
        object.__setattr__(self, "biases", biases)

    @classmethod
    def of(cls, probes: ProbeSet, estimator: Estimator = "logistic") -> "Directions":
        """The directions of a probe set, with their borders.

        Raises:
            ConfigError: another estimator.
        """
        kept = ("model", "model_hash", "data_hash", "pool", "include_bos")
        return cls(
            {site: probes.direction(site, estimator) for site in probes.sites},
            {site: probes.bias(site, estimator) for site in probes.sites},
            estimator,
            {"source": "probes", "estimator": estimator} | {k: v for k, v in probes.metadata.items() if k in kept},
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.vectors)

    def __getitem__(self, site: Site) -> Float[Tensor, " width"]:
        """The unit vector at a site.

        Raises:
            SiteError: there is none.
        """
        if site not in self.vectors:
            raise SiteError(f"no direction at {site}; there are directions at {', '.join(map(str, self.sites))}")
        return self.vectors[site]

    def at(self, sites: Iterable[Site]) -> "Directions":
        """Those at some of the sites.

        Raises:
            SiteError: there is none at one of them.
        """
        chosen = list(sites)
        return replace(
            self,
            vectors={site: self[site] for site in chosen},
            biases={site: self.biases[site] for site in chosen if site in self.biases},
        )

    def check_width(self, model: "HookedModel") -> None:
        """Refuse a model that has no such sites, or is of another width there.

        Raises:
            SiteError: the model has no such site.
            ConfigError: the widths differ.
        """
        for site, vector in self.vectors.items():
            expected = model.architecture.width_at(site)
            if len(vector) != expected:
                raise ConfigError(
                    f"{self.name}: the direction at {site} is {len(vector)} wide, but {model.name or 'the model'} is "
                    f"{expected} wide there; was it made for another model or another site?"
                )

    def check_model(self, model: "HookedModel") -> None:
        """Refuse a model of another width, or with other weights than the directions were made on where that is known.

        Raises:
            SiteError: the model has no such site.
            ConfigError: the widths differ.
            ArtifactError: the weights differ.
        """
        self.check_width(model)
        if self.metadata.get("model_hash"):
            check_model_hash(self.metadata, model, f"the direction {self.name!r}")

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: a tensor a site, named by it."""
        record = {
            "format": FORMAT,
            "name": self.name,
            "biases": json.dumps({str(site): bias for site, bias in self.biases.items()}),
            "metadata": json.dumps(dict(self.metadata)),
        }
        write_tensors(path, {str(site): vector for site, vector in self.vectors.items()}, record)

    @classmethod
    def load(cls, path: str | Path, model: "HookedModel | None" = None) -> "Directions":
        """Read what `save` wrote; for files of others see `read_directions`.

        Raises:
            ArtifactError: the file is missing or damaged, or belongs to a model with other weights than ``model``.
        """
        tensors, record = read_tensors(path)
        if record.get("format") != FORMAT:
            raise ArtifactError(f"{path}: not written by Directions.save; use read_directions for other files")
        try:
            biases = {Site.parse(name): bias for name, bias in json.loads(record["biases"]).items()}
            metadata = dict(json.loads(record["metadata"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{path}: its record cannot be read ({error}); save the directions again") from error
        vectors = dict(zip(read_sites(path, list(tensors)), tensors.values(), strict=True))
        directions = cls(vectors, biases, record.get("name", "direction"), metadata)
        if model is not None:
            directions.check_model(model)
        return directions


def as_directions(source: Directions | ProbeSet) -> Directions:
    """Directions as they are; of a probe set those of the logistic regression."""
    return source if isinstance(source, Directions) else Directions.of(source)


def residual_directions(source: Directions | ProbeSet) -> Directions:
    """The same, and refuse those that do not lie in the residual stream.

    Raises:
        SiteError: a site is z, mlp_post or the logits.
    """
    directions = as_directions(source)
    inside = [site for site in directions.sites if site.component in ("z", "mlp_post", "logits")]
    if inside:
        raise SiteError(f"{inside[0]} is not in the residual stream; give directions at resid_*, attn_out or mlp_out")
    return directions


def _checked_norm(site: Site, vector: Tensor) -> float:
    if not isinstance(vector, Tensor) or vector.ndim != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        got = tuple(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{site}: expected a direction [width], got {got}")
    norm = float(vector.detach().double().norm())
    if not torch.isfinite(vector).all():
        raise ConfigError(f"{site}: the direction holds infinite values or NaN; expected finite numbers")
    if norm == 0:
        raise ConfigError(f"{site}: the direction is zero; expected a vector that points somewhere")
    return norm
