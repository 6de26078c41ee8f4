"""What is asked of `fit_probes`, checked, and what all its sites share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.auroc import Folds
from interp_unlearn.settings import check_fields
from interp_unlearn.sites import Site


@dataclass(frozen=True)
class ProbeSettings:
    """The settings of `fit_probes`, where they are explained.

    Raises:
        ConfigError: one is out of range, or they contradict each other.
    """

    folds: int
    C: float | Sequence[float]
    C_sites: Sequence[Site] | None
    seed: int
    shuffles: int
    bootstrap: int
    resamples: int
    leace: bool

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.grid or not all(0 < C < float("inf") for C in self.grid):
            raise ConfigError(f"expected C above 0 (one, or several to choose from), got {self.C}")
        if len(set(self.grid)) < len(self.grid):
            raise ConfigError(f"C: expected different values to choose from, got {self.C}")
        if self.C_sites is not None and (len(self.grid) < 2 or not self.C_sites):
            raise ConfigError("C_sites says where C is chosen: give it a site or more, and C several values")
        for name in ("seed", "shuffles", "bootstrap", "resamples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, got {getattr(self, name)}")

    @property
    def grid(self) -> tuple[float, ...]:
        """The values of C to choose from, the strongest penalty first."""
        return tuple(sorted(self.C)) if isinstance(self.C, Sequence) else (self.C,)

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are kept with the probes."""
        strengths = list(self.grid) if isinstance(self.C, Sequence) else self.C
        sites = None if self.C_sites is None else [str(site) for site in self.C_sites]
        return {**vars(self), "C": strengths, "C_sites": sites}


@dataclass(frozen=True, eq=False)
class Examples:
    """What is known of the rows, whatever the site.

    Attributes:
        labels: the class of each row.
        groups: integer key of each row, ``0 .. n_groups - 1``.
        folds: of the cross-validation.
        inner: the folds that C is chosen on: for each training fold, and last for all rows. Empty with one C.
        shuffled: labels without meaning, one array per shuffling.
    """

    labels: Bool[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    folds: Folds
    inner: tuple[Folds, ...]
    shuffled: tuple[Bool[np.ndarray, " row"], ...]
