"""What two models are compared on: texts by corpus, prompts with their answers, probes, and how it is all read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_unlearn.activations.collection import BATCH_TOKENS
from interp_unlearn.activations.store import hash_data
from interp_unlearn.directions.readout import IN_STREAM
from interp_unlearn.drift.paired import TokenMask
from interp_unlearn.drift.tuned_lens import TunedLensConfig
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site, residual_stream

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True)
class DriftTexts:
    """Texts of one or more corpora.

    Attributes:
        texts: all of them.
        corpora: the corpus of each.
        groups: one key a text: a probe's folds never part a group; None for every text alone.
        target: the corpus that was to be forgotten, class 1 of the probes.
    """

    texts: Sequence[str]
    corpora: Sequence[str]
    groups: Sequence[str] | None = None
    target: str = "forget"

    def __post_init__(self) -> None:
        if not self.texts:
            raise DataError("texts", 'no texts; expected for example {"forget": [...], "retain": [...]}')
        for name, values in (("corpora", self.corpora), ("groups", self.groups)):
            if values is not None and len(values) != len(self.texts):
                raise ConfigError(f"{name}: expected one a text ({len(self.texts)}), got {len(values)}")

    @classmethod
    def of(cls, corpora: Mapping[str, Sequence[str]], target: str = "forget") -> "DriftTexts":
        """The texts of each corpus, one corpus after another.

        Raises:
            DataError: a corpus is empty.
        """
        empty = [name for name, texts in corpora.items() if not texts]
        if empty:
            raise DataError("texts", f"the corpus {empty[0]} has no texts; leave it out")
        texts = [text for members in corpora.values() for text in members]
        return cls(texts, [name for name, members in corpora.items() for _ in members], target=target)

    @property
    def names(self) -> tuple[str, ...]:
        """The corpora, the target first, where it is among them."""
        found = dict.fromkeys(self.corpora)
        return tuple(sorted(found, key=lambda name: name != self.target))

    @property
    def labels(self) -> list[int]:
        return [int(corpus == self.target) for corpus in self.corpora]

    def tokens_of(self, corpus: str, store: "ActivationStore") -> TokenMask:
        """Which tokens of a token-level store of the texts are of a corpus."""
        return np.repeat(np.array(self.corpora) == corpus, store.rows["n_tokens"].to_numpy())


@dataclass(frozen=True)
class Answers:
    """What the lenses and unlearning depth ask for: the true answers to prompts.

    Attributes:
        prompts: texts up to the answer.
        answers: what follows each, with its leading space.
        groups: one key a prompt, such as its subject, resampled together; None for every prompt alone.
    """

    prompts: Sequence[str]
    answers: Sequence[str]
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.answers):
            raise DataError(
                "answers", f"{len(self.prompts)} prompts and {len(self.answers)} answers; expected one a prompt"
            )
        if self.groups is not None and len(self.groups) != len(self.prompts):
            raise ConfigError(f"groups: expected one a prompt ({len(self.prompts)}), got {len(self.groups)}")


@dataclass(frozen=True, eq=False)
class DriftSetup:
    """How models are read and compared.

    Attributes:
        texts: on which displacements are measured.
        sites: where; None for the embedding and resid_post of every layer.
        answers: of the lenses and unlearning depth; None where there are none.
        probes: fitted on the original; None where there are none.
        has_twin: whether a model that never knew is given.
        n_null: draws of each null; None for each measure's own number.
        rank: directions of a displacement and of a matrix' change that enter principal angles.
        lens: how the tuned lens is fitted.
        seed: of draws and the bootstrap.
        batch_tokens: tokens of a pass when texts are read, padding included.
        batch_size: answers in a pass of unlearning depth, or in a readout.
        max_length: tokens after which a text is cut; None for the model's context length. Prompts are never cut.
        progress: whether to show progress bars.
    """

    texts: DriftTexts
    sites: Sequence[Site] | None = None
    answers: Answers | None = None
    probes: ProbeSet | None = None
    has_twin: bool = False
    n_null: int | None = None
    rank: int = 4
    lens: TunedLensConfig = field(default_factory=TunedLensConfig)
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS
    batch_size: int = 64
    max_length: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.sites is not None and (not self.sites or len(set(self.sites)) < len(self.sites)):
            raise ConfigError(f"sites: expected each site once, got {', '.join(map(str, self.sites)) or 'none'}")
        if self.rank < 1 or (self.n_null is not None and self.n_null < 1):
            raise ConfigError(f"expected rank and n_null of at least 1, got {self.rank}, {self.n_null}")
        if self.batch_tokens < 1 or self.batch_size < 1:
            raise ConfigError(f"expected batches of at least 1, got {self.batch_tokens}, {self.batch_size}")

    def sites_of(self, model: "HookedModel") -> list[Site]:
        """Where displacements are measured.

        Raises:
            SiteError: the model has no such layer.
        """
        sites = residual_stream(model.n_layers) if self.sites is None else list(self.sites)
        for site in sites:
            site.check(model.n_layers)
        return sites

    def lens_sites(self, model: "HookedModel") -> list[Site]:
        """Those of them that are the stream itself; all layers where there are none."""
        sites = [site for site in self.sites_of(model) if site.component in IN_STREAM]
        return sites or residual_stream(model.n_layers)

    @property
    def null_draws(self) -> dict[str, Any]:
        """The number of draws and the seed, as options of a measure."""
        return {"seed": self.seed} | ({} if self.n_null is None else {"n_null": self.n_null})

    def identity(self) -> dict[str, Any]:
        """What makes a comparison this one, beside the models and what only some measures need."""
        texts = self.texts
        return {
            "task": "drift",
            "texts": hash_data([*texts.texts, None, *texts.corpora, None, *(texts.groups or ()), None, texts.target]),
            "sites": None if self.sites is None else [str(site) for site in self.sites],
            "batch_tokens": self.batch_tokens,
            "max_length": self.max_length,
        }
