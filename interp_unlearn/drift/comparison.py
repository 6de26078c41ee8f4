"""An original in memory beside what was read of the others: what every measure of drift is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from interp_unlearn.activations import ActivationStore, collect
from interp_unlearn.drift.readings import Readings
from interp_unlearn.drift.setup import DriftSetup
from interp_unlearn.drift.spectrum import DisplacementSpectrum, displacement_spectrum
from interp_unlearn.drift.weight_delta import WeightComparison, weight_delta
from interp_unlearn.drift.weights import changed_inputs
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

ORIGINAL, UNLEARNED, TWIN = "original", "unlearned", "twin"


class Saved(Protocol):
    """What can be written as one file."""

    def save(self, path: Path, /) -> None: ...


@dataclass(frozen=True, eq=False)
class Measured:
    """What a measure leaves.

    Attributes:
        tables: by name.
        files: what else it has found, by file name.
    """

    tables: "Mapping[str, pd.DataFrame]"
    files: Mapping[str, Saved] = field(default_factory=dict[str, Saved])


@dataclass(frozen=True, eq=False)
class Comparison:
    """The original, in memory, and what was read of every model.

    Attributes:
        model: the original.
        readings: by the model's part: original, unlearned, and twin where there is one.
        setup: of the comparison.
        weights: the unlearned model's and the original's, each a model in memory or its checkpoint; None for a model
            that is loaded by a function, whose tensors cannot be read one at a time.
        folder: for what is read of the original in addition.
        with_energy: whether the weights' change is compared with the activations that enter it, which takes a pass.
    """

    model: "HookedModel"
    readings: Mapping[str, Readings]
    setup: DriftSetup
    weights: "tuple[HookedModel | str | Path | None, HookedModel | str | Path | None]"
    folder: Path
    with_energy: bool = False

    @property
    def streams(self) -> tuple[ActivationStore, ActivationStore]:
        """Every token of the texts: of the original, and of the unlearned model."""
        original, unlearned = (self.readings[part].stream for part in (ORIGINAL, UNLEARNED))
        assert original is not None and unlearned is not None
        return original, unlearned

    def of_corpus(self, corpus: str) -> dict[str, Any]:
        """The name of a corpus and the mask of its tokens, as options of a measure."""
        return {"corpus": corpus, "keep": self.setup.texts.tokens_of(corpus, self.streams[0])}

    def of_each(self, part: str) -> dict[str, Any]:
        """One kind of reading of every model that has it."""
        found = {name: getattr(readings, part) for name, readings in self.readings.items()}
        return {name: reading for name, reading in found.items() if reading is not None}

    @cached_property
    def spectra(self) -> dict[str, DisplacementSpectrum]:
        """The displacements' spectrum, by corpus."""
        names, draws = self.setup.texts.names, self.setup.null_draws
        return {name: displacement_spectrum(*self.streams, **self.of_corpus(name), **draws) for name in names}

    @cached_property
    def delta(self) -> WeightComparison:
        """What changed in the weights.

        Raises:
            ConfigError: a model's weights cannot be read.
            CheckpointError: they are not of one architecture.
        """
        changed, original = self.weights
        if changed is None or original is None:
            raise ConfigError(
                "weights are compared in checkpoints or in models in memory; give Checkpoint(path) instead"
            )
        store = None
        if self.with_energy and (inputs := changed_inputs(changed, original)):
            texts, setup = self.setup.texts, self.setup
            target = [text for text, name in zip(texts.texts, texts.corpora, strict=True) if name == texts.names[0]]
            told: dict[str, Any] = {
                "batch_tokens": setup.batch_tokens,
                "max_length": setup.max_length,
                "keep_texts": False,
            }
            there = self.folder / "inputs"
            store = collect(self.model, target, inputs, "none", out=there, progress=setup.progress, **told)
        return weight_delta(changed, original, store=store, directions=self.setup.probes)
