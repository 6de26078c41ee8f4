"""Which of a classifier's logits is toxicity, and how it becomes a probability."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TOXIC_LABELS = ("toxic", "toxicity")
"""Labels that are taken for toxicity without being asked for, whatever their case."""


@dataclass(frozen=True)
class Head:
    """How logits are read.

    Attributes:
        index: of the logit.
        label: its name in the classifier's config.
        independent: the label's own sigmoid (single logit, multi-label); otherwise its share in a softmax over all.
    """

    index: int
    label: str
    independent: bool

    def probabilities(self, logits: Float[Tensor, "text label"]) -> Float[Tensor, " text"]:
        """The label's probability, in float64."""
        logits = logits.double()
        return logits[:, self.index].sigmoid() if self.independent else logits.softmax(-1)[:, self.index]


def find_head(config: "PreTrainedConfig", label: str | None = None) -> Head:
    """Find the toxic label of a sequence classifier and the function its logits are meant for.

    As in Hugging Face's own pipeline: sigmoid for a single logit and for ``multi_label_classification``, else softmax.

    Args:
        config: its config.
        label: name of the toxic label. None takes the one called toxic or toxicity, a nameless single logit, or
            LABEL_1 of two nameless classes.

    Raises:
        ConfigError: there is no such label, none can be told to be toxic, or the logits are no probabilities.
    """
    labels = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    listed = ", ".join(labels.values())
    problem = config.problem_type
    if problem == "regression":
        raise ConfigError("its config.json states problem_type regression, so its outputs are no probabilities")
    if len(labels) > 2 and problem is None:
        raise ConfigError(
            f"{len(labels)} labels ({listed}) and no problem_type in its config.json; write there "
            "multi_label_classification or single_label_classification"
        )
    wanted = (label.casefold(),) if label is not None else TOXIC_LABELS
    found = [index for index, name in labels.items() if name.casefold() in wanted]
    if label is None and not found and list(labels.values()) in (["LABEL_0"], ["LABEL_0", "LABEL_1"]):
        found = [len(labels) - 1]
    if len(found) != 1:
        reason = f"no label {label!r}" if label is not None else "which label means toxic cannot be told"
        raise ConfigError(f"{reason}; its labels are {listed}: name one of them")
    independent = len(labels) == 1 or problem == "multi_label_classification"
    return Head(found[0], labels[found[0]], independent)
