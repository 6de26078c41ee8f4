"""A run that can be interrupted: its state in safetensors and JSON, and the way back from there, bit for bit.

Batches, attacks and samplings are functions of the seed and the step, so there is no random state to keep: the step is
that state. (With `cache_prefix` the way back is exact up to rounding.)
"""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from interp_unlearn.artifacts import read_record, read_tensors, write_json, write_tensors
from interp_unlearn.artifacts.writing import sweep
from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.settings import check_fields

logger = logging.getLogger(__name__)

RECORD = "state.json"
TENSORS = re.compile(r"state-\d+\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run's state is kept.

    The folder holds the latest state alone and is removed when training is over. A run that finds there the state of
    the same run (same model, data, objective and settings) goes on from it; the state of another run is refused.

    Attributes:
        folder: of the state.
        every: updates between two.
        stays: whether the state outlives training. Saving what was trained may fail too: `remove` the state after that.
    """

    folder: Path
    every: int = 50
    stays: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.folder, str):
            object.__setattr__(self, "folder", Path(self.folder))
        check_fields(self)
        if self.every < 1:
            raise ConfigError(f"checkpoints: every must be at least 1, got {self.every}")

    def save(self, identity: Mapping[str, Any], tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep a state, in the place of the one before: whenever the run is killed, one of the two is there."""
        tensors_of = self._tensors(int(record["step"]))
        write_tensors(tensors_of, tensors, {})
        write_json(self.folder / RECORD, {"identity": identity, **record})
        for other in self.folder.glob("state-*.safetensors"):
            if other != tensors_of:
                other.unlink()

    def load(self, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state that is there, if any.

        Raises:
            ArtifactError: it is of another run, or damaged.
        """
        sweep(self.folder)
        if not (self.folder / RECORD).exists():
            if self.folder.exists() and any(not TENSORS.fullmatch(path.name) for path in self.folder.iterdir()):
                raise ArtifactError(
                    f"{self.folder} exists and holds no {RECORD}; choose another folder for checkpoints"
                )
            return None
        record = read_record(self.folder / RECORD, identity=dict, step=int)
        found = record["identity"]
        differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if differing:
            raise ArtifactError(
                f"{self.folder} holds the state of another run ({', '.join(differing)} differ); remove it, or choose "
                "another folder for checkpoints"
            )
        logger.info("going on from step %d, kept in %s", record["step"], self.folder)
        return read_tensors(self._tensors(record["step"]))[0], record

    def remove(self) -> None:
        """The run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tensors(self, step: int) -> Path:
        return self.folder / f"state-{step}.safetensors"
