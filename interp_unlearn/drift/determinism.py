"""The control of every other number: before the first weight that changed, nothing may have moved."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp_unlearn.activations import ActivationStore
from interp_unlearn.drift.paired import check_paired, paired_chunks
from interp_unlearn.drift.weight_delta import WeightComparison
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_SAME_PASSES = ("dtype", "backend", "batch_tokens")


@dataclass(frozen=True, eq=False)
class DeterminismCheck:
    """Whether the stream before the first changed tensor is the same, bit for bit.

    Attributes:
        passed: None where no site lies before the first change, so that nothing was checked.
        first_tensor: where the change begins; None if the weights are the same.
        first_layer: its block; None outside the blocks.
        largest_below: largest absolute difference of a number at the sites before it; NaN where there are none.
        table: one row a site: ``site, layer`` (null for the embedding), ``below`` (whether it lies before the first
            change), ``largest`` (absolute difference of a number), ``n_tokens``.
    """

    passed: bool | None
    first_tensor: str | None
    first_layer: int | None
    largest_below: float
    table: "pd.DataFrame"

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table."""
        return self.table.copy()


def check_determinism(original: ActivationStore, changed: ActivationStore, delta: WeightComparison) -> DeterminismCheck:
    """Compare both stores at the sites that lie before the first changed tensor.

    A difference there means that the set-up differs, and no drift from it can be believed: another precision, other
    kernels or batches, a chat template on one side, an edit that was still active, or weights that are not those that
    were compared.
    Caveat: that it passes says nothing of the sites above, where other batches or kernels would still show as drift.

    Args:
        original: the original's token-level store.
        changed: the changed model's, of the same tokens.
        delta: of the weights of both.

    Raises:
        ConfigError: the stores do not fit each other, or were collected with other passes, so that their last bits
            differ anyway.
        DataError: the texts or tokens differ.
    """
    import pandas as pd

    sites = check_paired(original, changed)
    for name in _SAME_PASSES:
        ours, theirs = original.metadata.get(name), changed.metadata.get(name)
        if ours != theirs:
            raise ConfigError(
                f"{name} is {ours} in the original's store and {theirs} in the changed model's, so that their last "
                "bits differ anyway; collect both alike"
            )
    rows: list[dict[str, Any]] = []
    for site in sites:
        largest, n_tokens = 0.0, 0
        for h0, h in paired_chunks(original, changed, site):
            largest = max(largest, float((h - h0).abs().max()))
            n_tokens += len(h)
        place = {"site": str(site), "layer": site.layer, "below": delta.comes_before(site)}
        rows.append(place | {"largest": largest, "n_tokens": n_tokens})
    table = pd.DataFrame(rows).astype({"layer": "Int64"})
    below = table.loc[table["below"], "largest"]
    largest_below = float(below.max()) if len(below) else float("nan")
    passed = largest_below == 0.0 if len(below) else None
    return DeterminismCheck(passed, delta.first_tensor, delta.first_layer, largest_below, table)
