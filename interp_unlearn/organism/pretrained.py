"""An organism as a folder of twins: the shipped one, one that was built, or one on the hub."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import hash_file, replaced
from interp_unlearn.errors import ArtifactError, CheckpointError
from interp_unlearn.organism.cards import write_organism_card
from interp_unlearn.organism.shipped import shipped_twins, twin_hashes
from interp_unlearn.snapshots import open_folder

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

WHOLE = "knows_all"  # the twin that the others are compared with, so that no organism is without it
TWIN_FILES = (
    "README.md",
    "build.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "quality.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class Organism:
    """Twins of one world.

    Attributes:
        folder: a sub-folder a twin.
    """

    folder: Path

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, revision: str | None = None, cache_dir: str | Path | None = None
    ) -> Organism:
        """Find an organism.

        Args:
            path: a folder of twins, or a hub id; None takes the shipped one.
            revision: of a hub id: commit, tag or branch. There is no default.
            cache_dir: of the hub; None for its own.

        Raises:
            CheckpointError: this installation ships none.
            ConfigError: no revision is stated of a hub id, or one of a folder.
            HubError: no organism is there, or it cannot be fetched.
        """
        if path is None:
            return cls(shipped_twins())
        return cls(open_folder(path, revision, expected=f"{WHOLE}/config.json", cache_dir=cache_dir))

    @property
    def twins(self) -> tuple[str, ...]:
        """Names, in alphabetical order."""
        return tuple(sorted(file.parent.name for file in self.folder.glob("*/config.json")))

    def path(self, twin: str) -> Path:
        """The checkpoint folder of a twin.

        Raises:
            CheckpointError: there is none of that name.
        """
        if twin not in self.twins:
            raise CheckpointError(f"{self.folder}: no twin {twin!r}; there are {', '.join(self.twins)}")
        return self.folder / twin

    def load(self, twin: str, **options: Any) -> HookedModel:
        """A twin as a model; options as of `HookedModel.from_pretrained`.

        Raises:
            CheckpointError: there is none of that name, or it cannot be loaded.
        """
        from interp_unlearn.interventions import HookedModel

        return HookedModel.from_pretrained(self.path(twin), **options)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the weights file of each twin."""
        return twin_hashes(self.folder)

    def save_pretrained(self, path: str | Path) -> None:
        """Copy the twins with their cards and records into a folder, and write a card for the whole.

        Only the files of a twin are copied, not what else lies beside them.

        Raises:
            ArtifactError: there is something else.
        """
        path = Path(path)
        if path.exists() and not (path / WHOLE / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
            raise ArtifactError(f"{path}: holds something else than an organism; choose another folder")
        with replaced(path) as temporary:
            for twin in self.twins:
                (temporary / twin).mkdir(parents=True)
                for name in TWIN_FILES:
                    if (self.folder / twin / name).is_file():
                        shutil.copyfile(self.folder / twin / name, temporary / twin / name)
            hashes = {twin: hash_file(self.path(twin) / "model.safetensors") for twin in self.twins}
            write_organism_card(temporary, hashes)
