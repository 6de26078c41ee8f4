"""The measures of drift: what each needs, how it is computed, and what it cannot show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from interp_unlearn.drift import computations
from interp_unlearn.drift.comparison import Comparison, Measured
from interp_unlearn.drift.readings import Reading

Need = Literal["answers", "probes", "twin"]
LACKING: dict[Need, str] = {
    "answers": "no prompts with their true answers were given (answers=, or --facts)",
    "probes": "no probes of the original were given (probes=, or --probes)",
    "twin": "no model that never knew was given (twin=, or --twin): without that floor there is no score",
}


@dataclass(frozen=True)
class Measure:
    """A measure.

    Attributes:
        name: in tables and folders.
        evidence: "causal" where something is put in or taken out; "exact" of what is compared bit by bit; "control" of
            the set-up; "descriptive" for what goes along with a change.
        cannot_show: what no value of it would mean.
        small_models: why it carries little in models of a few million parameters; None where it does carry.
        reads: what is read of both models, and of the twin where there is one.
        needs: what has to be given.
        takes: what it makes use of where it is given, beside that.
        compute: makes its tables.
    """

    name: str
    evidence: Literal["causal", "exact", "control", "descriptive"]
    cannot_show: str
    small_models: str | None
    reads: frozenset[Reading]
    needs: frozenset[Need]
    takes: frozenset[Need]
    compute: Callable[[Comparison], Measured]


_STREAM: frozenset[Reading] = frozenset({"stream"})
_NOTHING: frozenset[Need] = frozenset()

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "unlearning_depth",
            "causal",
            "A stream that is merely broken loses the answer too, and any other model's costs something: a depth near "
            "1 does not tell forgetting from corruption, and a small one need not be erasure.",
            None,
            frozenset({"answered"}),
            frozenset({"answers", "twin"}),
            _NOTHING,
            computations.of_depth,
        ),
        Measure(
            "weight_delta",
            "exact",
            "Size and rank of a change do not say what it does: only putting the tensors back can. The rank is largely "
            "the optimiser's and the adapter's.",
            "that goes for the effective rank, which the optimiser sets; the list of changed tensors is exact anywhere",
            frozenset(),
            _NOTHING,
            frozenset({"probes"}),
            computations.of_weights,
        ),
        Measure(
            "determinism",
            "control",
            "That it passes says nothing of the layers above the first change, where other kernels or batches would "
            "still look like drift.",
            None,
            _STREAM,
            _NOTHING,
            _NOTHING,
            computations.of_determinism,
        ),
        Measure(
            "displacement",
            "descriptive",
            "How far activations moved is not what was forgotten: they may move far and keep the answer, or little and "
            "lose it. A few large dimensions dominate norms and cosines in large models.",
            None,
            _STREAM,
            _NOTHING,
            _NOTHING,
            computations.of_displacement,
        ),
        Measure(
            "massive_activations",
            "descriptive",
            "A dimension that stands out says nothing of what was unlearned; it says which norms, cosines and "
            "principal components are about that dimension alone.",
            "their streams have no such dimensions; in Zephyr-7B's the largest is 201 times the median",
            _STREAM,
            _NOTHING,
            _NOTHING,
            computations.of_massive,
        ),
        Measure(
            "spectrum",
            "descriptive",
            "A common direction does not show what it stands for, nor that ablating it would bring anything back; few "
            "tokens that moved far decide the share.",
            None,
            _STREAM,
            _NOTHING,
            _NOTHING,
            computations.of_spectrum,
        ),
        Measure(
            "logit_lens",
            "descriptive",
            "An answer that the lens does not find may be there in a form that it does not read, and what it finds "
            "need not be what later layers use. Of an answer of several tokens only the first is scored.",
            None,
            frozenset({"prompts"}),
            frozenset({"answers"}),
            frozenset({"twin"}),
            computations.of_logit_lens,
        ),
        Measure(
            "tuned_lens",
            "descriptive",
            "The original's lens reads a changed stream with the original's eyes: a low reading may be the lens's "
            "fault, and a high one need not be what the changed layers use.",
            None,
            frozenset({"stream", "prompts"}),
            frozenset({"answers"}),
            frozenset({"twin"}),
            computations.of_tuned_lens,
        ),
        Measure(
            "retrained_probes",
            "descriptive",
            "That a probe reads the class does not show that the model uses it, or knows the answer; at the floor of a "
            "model that never knew it shows nothing.",
            "a probe on a twin that never learned the target reads the class as well there, so that it has no room",
            frozenset({"pooled"}),
            frozenset({"probes"}),
            frozenset({"twin"}),
            computations.of_retrained,
        ),
        Measure(
            "cka",
            "descriptive",
            "Whether tokens lie to one another as before is not what can be read from them: an unlearned fact may "
            "leave CKA at 0.99.",
            "a pilot of a million parameters found it nearly worthless, and in larger models it told those that know "
            "from those that do not at AUC 0.648 (arXiv 2605.24614)",
            _STREAM,
            _NOTHING,
            _NOTHING,
            computations.of_cka,
        ),
        Measure(
            "angles",
            "descriptive",
            "Subspaces made from activations lie closer than random ones whatever they are about: a small angle does "
            "not show that the one causes the other.",
            "of a hundred dimensions or two random subspaces of a few each lie close as well, so that the null is wide",
            _STREAM,
            _NOTHING,
            frozenset({"probes"}),
            computations.of_angles,
        ),
    )
}
"""By name, those that say most first: what is causal, what is exact, the control, and then what goes along."""
