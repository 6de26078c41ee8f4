"""What a run leaves besides the weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import environment, write_json, write_parquet
from interp_unlearn.unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class UnlearnResult:
    """The record of a run.

    Attributes:
        objective: its name.
        config: what it was told.
        history: one row a step: step, forget (the objective's loss), retain (weighted), grad_norm (before clipping),
            and the objective's own numbers.
        changed: one row a trained tensor, see `Reference.changed`.
        curve: one row a checkpoint, from the callback; empty without one.
        seconds: wall-clock time of preparation, training and callbacks.
    """

    objective: str
    config: UnlearnConfig
    history: "pd.DataFrame"
    changed: "pd.DataFrame"
    curve: "pd.DataFrame"
    seconds: float

    def to_frame(self) -> "pd.DataFrame":
        """The history."""
        return self.history

    def save(self, folder: str | Path) -> None:
        """Write history.parquet, changed.parquet, curve.parquet (if there is one) and unlearn.json into a folder.

        The weights are saved by `HookedModel.save_pretrained`.
        """
        folder = Path(folder)
        write_parquet(folder / "history.parquet", self.history)
        write_parquet(folder / "changed.parquet", self.changed)
        if len(self.curve):
            write_parquet(folder / "curve.parquet", self.curve)
        record = {
            "objective": self.objective,
            "config": asdict(self.config),
            "seconds": self.seconds,
            "environment": environment(),
        }
        write_json(folder / "unlearn.json", record)
