"""The protocol of an attack: what it keeps of the original, and what it tries on the unlearned model.

To add one, subclass `Attack` as a frozen dataclass and give it to `run_attacks` in the list.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from interp_unlearn.activations.store import hash_data
from interp_unlearn.artifacts import read_parquet, read_record, read_tensors, write_json, write_parquet, write_tensors
from interp_unlearn.artifacts.fingerprint import fingerprint
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.attacks.prompted_measure import Measure, PromptedMeasure
from interp_unlearn.attacks.streams import Streams, read_streams
from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import check_fields

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.interventions.hooked_model import Edits
    from interp_unlearn.unlearning import UnlearnData

RECORD, TENSORS = "record.json", "tensors.safetensors"


@dataclass(frozen=True, eq=False)
class Setup:
    """What all attacks of a suite share.

    Attributes:
        measure: what they are judged by.
        data: forget texts with their groups, and neutral texts.
        n_texts: most texts of either whose activations are read.
        seed: of every draw.
        n_resamples: of the bootstrap.
    """

    measure: Measure
    data: "UnlearnData"
    n_texts: int = 256
    seed: int = 0
    n_resamples: int = 2000


@dataclass(frozen=True, eq=False)
class Record:
    """What an attack keeps of the original, which is no longer in memory when it begins.

    Attributes:
        items: measurements by name.
        tensors: anything else, by name.
    """

    items: Mapping[str, MeasuredItems] = field(default_factory=dict[str, MeasuredItems])
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def save(self, folder: Path) -> None:
        """Write a table a measurement, the tensors where there are any, and record.json (the names) last."""
        for number, items in enumerate(self.items.values()):
            write_parquet(folder / f"items-{number}.parquet", items.to_frame())
        if self.tensors:
            write_tensors(folder / TENSORS, self.tensors, {})
        write_json(folder / RECORD, {name: items.score for name, items in self.items.items()})

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        names: dict[str, str] = read_record(folder / RECORD)
        tables = [read_parquet(folder / f"items-{number}.parquet") for number in range(len(names))]
        scores = zip(names.items(), tables, strict=True)
        items = {name: MeasuredItems.from_frame(score, table) for (name, score), table in scores}
        return cls(items, read_tensors(folder / TENSORS)[0] if (folder / TENSORS).exists() else {})


@dataclass(frozen=True, eq=False)
class Attempt:
    """One setting of an attack, at one step of it.

    Attributes:
        setting: what was tried.
        items: the attacked model's scores; None where it could not be measured.
        step: how far the attack had gone, of those that go in steps.
        control: the same with random directions (neurons) instead, the mean over them; None where there is none.
        original: the original's scores where it is asked in other words than the measure's; None where it is not.
        reason: why there are no scores.
    """

    setting: Mapping[str, Any]
    items: MeasuredItems | None
    step: int | None = None
    control: MeasuredItems | None = None
    original: MeasuredItems | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """The unlearned model and what is known of its original.

    Attributes:
        model: as it is given, before and after every attempt.
        setup: of the suite.
        unlearned: its scores before any attack.
        original_streams: of the original; None where no attack of the suite needs them.
    """

    model: "HookedModel"
    setup: Setup
    unlearned: MeasuredItems
    original_streams: Streams | None = None

    @cached_property
    def streams(self) -> tuple[Streams, Streams]:
        """Of the original and of the unlearned model.

        Raises:
            ConfigError: those of the original were not kept.
        """
        if self.original_streams is None:
            raise ConfigError("the original's activations were not kept; set reads_streams in the attack's class")
        setup = self.setup
        return self.original_streams, read_streams(self.model, setup.data, setup.n_texts, setup.seed)

    def measured(self, edits: "Edits | None" = None, ids: Collection[str] | None = None) -> MeasuredItems:
        """The model's scores, under edits, of all items or of some."""
        with self.model.edited(edits or {}):
            return measured(self.model, self.setup.measure, ids)

    def beside_random(
        self, edits: "Edits", random_edits: "Callable[[int], Edits]", n_random: int
    ) -> tuple[MeasuredItems, MeasuredItems | None]:
        """The scores under edits, and their mean under as many random ones; no control where there are none.

        Args:
            edits: of the attack.
            random_edits: the control's, from a seed.
            n_random: how many seeds.
        """
        found = self.measured(edits)
        seeds = [self.setup.seed * 1000 + number for number in range(n_random)]
        controls = [self.measured(random_edits(seed)) for seed in seeds] if edits else []
        return found, MeasuredItems.average(controls) if controls else None


@dataclass(frozen=True)
class Attack(ABC):
    """Base of all attacks; a subclass is a frozen dataclass of settings.

    Raises:
        ConfigError: a setting is of another type than its annotation, or out of range.
    """

    reads_streams: ClassVar[bool] = False
    """Whether the attack needs `Target.streams`."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def name(self) -> str:
        """In tables."""

    def record(self, model: "HookedModel", setup: Setup) -> Record:
        """Keep of the original, while it is in memory, what the attack needs; nothing by default."""
        del model, setup
        return Record()

    @abstractmethod
    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        """Try every setting; after each the model is as it was.

        Args:
            target: the unlearned model.
            record: what `record` kept of the original.
        """

    def settings(self) -> dict[str, Any]:
        """What the attack was told, as JSON."""
        return {entry.name: fingerprint(getattr(self, entry.name)) for entry in fields(self)}

    @property
    def key(self) -> str:
        """A name for its folder: two attacks with the same settings share it."""
        return f"{self.name}-{hash_data([self.settings()])[:8]}"


def measured(model: "HookedModel", measure: Measure, ids: Collection[str] | None = None) -> MeasuredItems:
    """A measure's scores, of all items or of some.

    Raises:
        ConfigError: the measure returns something else than items.
    """
    if ids is not None and isinstance(measure, PromptedMeasure):
        return measure.only(ids)(model)
    found = measure(model)
    if not isinstance(found, MeasuredItems):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"a measure returns MeasuredItems, got {type(found).__name__}; see MeasuredItems.of")
    return found if ids is None else found.only(ids)
