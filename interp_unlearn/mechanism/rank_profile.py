"""How many singular directions of each matrix's change carry an effect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism.delta import WeightDelta, applied
from interp_unlearn.mechanism.depth_profile import reached_from
from interp_unlearn.mechanism.outcome import (
    Groups,
    ItemValues,
    Outcome,
    PairedMeans,
    Resampling,
    check_units,
    groups_of,
    measure,
)
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RankConfig:
    """Which ranks are tried.

    Attributes:
        ranks: rising; None for 1, 2, 4, ... The whole delta always comes last.
        share: of the effect that has to be carried.
        resampling: the bootstrap over items or groups.
    """

    ranks: tuple[int, ...] | None = None
    share: float = 0.9
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ranks is not None and (not self.ranks or sorted({*self.ranks, 0}) != [0, *self.ranks]):
            raise ConfigError(f"ranks: expected rising numbers from 1, got {self.ranks}")
        if not 0 < self.share < 1:
            raise ConfigError(f"share must lie between 0 and 1, got {self.share}")

    def ranks_up_to(self, full: int) -> list[int]:
        """The ranks below the full one, and that."""
        tried = self.ranks or tuple(2**power for power in range(full.bit_length()))
        return [*(rank for rank in tried if rank < full), full]


@dataclass(frozen=True, eq=False)
class RankProfile:
    """What truncated deltas do.

    Attributes:
        config: which ranks were tried.
        values: what was measured, by rank; 0 is the original, the largest is the whole delta.
        energy: by rank, the share of the delta's squared norm that is kept.
        item_groups: keys of the items.
    """

    config: RankConfig
    values: Mapping[int, ItemValues]
    energy: Mapping[int, float]
    item_groups: Groups | None

    def to_frame(self) -> "pd.DataFrame":
        """One row an outcome and rank: outcome, rank, mean, share, share_low, share_high (of the whole delta's effect;
        NaN where the interval of that holds 0), energy, n.
        """
        import pandas as pd

        rows: list[dict[str, object]] = []
        for outcome, means in self._means().items():
            for rank, energy in self.energy.items():
                share = means.share(rank, 0, max(self.energy))
                rows.append(
                    {
                        "outcome": outcome,
                        "rank": rank,
                        "mean": means.mean(rank),
                        "share": share.mean,
                        "share_low": share.low,
                        "share_high": share.high,
                        "energy": energy,
                        "n": means.n,
                    }
                )
        return pd.DataFrame(rows)

    def sufficient_ranks(self) -> "pd.DataFrame":
        """The smallest rank tried from which on every rank carries the share asked for.

        Returns:
            One row an outcome: outcome, rank, low, high (over resamples), full (the largest rank), share, n; NaN where
            the interval of the whole effect holds 0.
        """
        import pandas as pd

        ranks = np.array(list(self.energy), dtype=float)
        rows: list[dict[str, object]] = []
        for outcome, means in self._means().items():
            curve = np.stack([means.shares(rank, 0, max(self.energy)) for rank in self.energy])
            reached = np.where(np.isnan(curve[-1]), np.nan, ranks[reached_from(curve, self.config.share)])
            found = means.interval(reached)
            rows.append(
                {
                    "outcome": outcome,
                    "rank": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "full": int(ranks[-1]),
                    "share": self.config.share,
                    "n": found.n,
                }
            )
        return pd.DataFrame(rows)

    def _means(self) -> dict[str, PairedMeans[int]]:
        return {
            outcome: PairedMeans(
                {rank: values[outcome] for rank, values in self.values.items()},
                groups_of(self.item_groups, outcome),
                self.config.resampling,
            )
            for outcome in self.values[0]
        }


def rank_profile(
    original: HookedModel,
    delta: WeightDelta,
    outcome: Outcome,
    config: RankConfig | None = None,
    *,
    groups: Groups | None = None,
    progress: bool = False,
) -> RankProfile:
    """Truncate each matrix's change to its first singular directions, add it to the original, and measure.

    Changes of vectors (norms, biases) are added whole at every rank.

    Caveat: the rank is that of each matrix, alike in all of them, so a change of few directions spread over many
    matrices still counts as low. A small rank tells that the effect is simple to apply, not that the run found it by a
    simple route; and the rest of the delta may matter elsewhere.

    Args:
        original: the model the delta was taken from; its weights are put back bit for bit.
        delta: the change.
        outcome: what is measured.
        config: which ranks; defaults where None.
        groups: keys of the items that are resampled whole.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the delta does not fit the model or changes no tensor, or the outcome changes its items.
        BackendError: the backend cannot follow a change of the weights.
    """
    config = config or RankConfig()
    if not delta.norm > 0:
        raise ConfigError("the delta changes nothing; there is no effect whose rank could be found")
    full = max((min(change.shape[-2:]) for change in delta.changes.values() if change.ndim > 1), default=1)
    values: dict[int, ItemValues] = {0: measure(original, outcome)}
    check_units(values[0], groups)
    energy: dict[int, float] = {}
    ranks = config.ranks_up_to(full)
    for rank, part in tqdm(truncations(delta, ranks), desc="ranks", total=len(ranks), disable=not progress):
        with applied(original, part):
            values[rank] = measure(original, outcome, values[0])
        energy[rank] = part.norm**2 / delta.norm**2
    return RankProfile(config, values, energy, groups)


def truncations(delta: WeightDelta, ranks: Sequence[int]) -> Iterator[tuple[int, WeightDelta]]:
    """The best approximation of every matrix's change at each rank (Eckart and Young 1936); vectors stay whole."""
    factors = {
        name: torch.linalg.svd(change.double(), full_matrices=False)
        for name, change in delta.changes.items()
        if change.ndim > 1
    }
    for rank in ranks:
        cut = {
            name: ((u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]).to(delta.changes[name].dtype)
            for name, (u, s, v) in factors.items()
            if rank < s.shape[-1]
        }
        yield rank, WeightDelta({**delta.changes, **cut})
