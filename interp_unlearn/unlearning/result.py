"""What a run leaves besides the weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class UnlearnResult:
    """The record of a run: of an objective that was trained, or of an edit of the weights.

    Attributes:
        objective: name of the objective or of the weight edit.
        config: what it was told.
        history: one row a step: step, forget (the objective's loss), retain (weighted), grad_norm (of their sum, L2,
            before clipping), forget_grad_norm, and with retain terms retain_grad_norm and gradient_cosine (between the
            two); and the objective's own numbers. Of a weight edit that does not train, one row a tensor.
        changed: one row a trained tensor, see `Reference.changed`.
        curve: one row a checkpoint, from the callback; of a weight edit, one row a setting that was tried; else empty.
        seconds: wall-clock time of preparation, training and callbacks.
        settings: a weight edit's own settings, or the update rules of a run; an objective's are with whoever built it.
        stopped: what the guard had against going on, or at the end; None if nothing.
        earlier_environments: versions that steps before the last interruption were taken with, where others.
    """

    objective: str
    config: UnlearnConfig
    history: "pd.DataFrame"
    changed: "pd.DataFrame"
    curve: "pd.DataFrame"
    seconds: float
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    stopped: str | None = None
    earlier_environments: tuple[Mapping[str, str], ...] = ()

    def to_frame(self) -> "pd.DataFrame":
        """The history."""
        return self.history

    def save(self, folder: str | Path) -> None:
        """Write history.parquet, changed.parquet, curve.parquet (if there is one) and unlearn.json into a folder.

        The weights are saved by `HookedModel.save_pretrained`. `seconds` is not saved: the same run
        leaves the same bytes.
        """
        folder = Path(folder)
        write_parquet(folder / "history.parquet", self.history)
        write_parquet(folder / "changed.parquet", self.changed)
        if len(self.curve):
            write_parquet(folder / "curve.parquet", self.curve)
        record = {
            "objective": self.objective,
            "settings": dict(self.settings),
            "config": asdict(self.config),
            "stopped": self.stopped,
            "environment": environment(),
        }
        earlier = {"earlier_environments": self.earlier_environments} if self.earlier_environments else {}
        write_json(folder / "unlearn.json", record | earlier)
