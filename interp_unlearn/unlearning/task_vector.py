"""Task arithmetic: what fine-tuning on the target adds to the weights is subtracted from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import is_finite
from interp_unlearn.unlearning.config import UnlearnConfig
from interp_unlearn.unlearning.corpora import UnlearnData
from interp_unlearn.unlearning.fine_tuning import FineTuning
from interp_unlearn.unlearning.loop import unlearn
from interp_unlearn.unlearning.reference import Reference
from interp_unlearn.unlearning.weight_edit import WeightEdit

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel


@dataclass(frozen=True, eq=False)
class TaskVector(WeightEdit):
    """`theta - lambda (theta_ft - theta)`, with theta_ft fine-tuned on the forget rows through the same loop.

    Source: negation of a task vector, Ilharco et al. 2023, arXiv 2212.04089, section 3, who choose lambda on held-out
    data. Only the tensors that the config names are trained, kept and negated, so that no second model is held.

    Caveat: negation also subtracts whatever else the forget texts have in common (their topics, their grammar): watch
    the broken share and the divergence on other text when choosing lambda, not the target's share alone.

    Attributes:
        coefficient: lambda, or several to choose from; above 0.
        score: what is largest at the best lambda, called on the edited model; needed where there are several.
    """

    coefficient: float | Sequence[float] = 1.0
    score: "Callable[[HookedModel], float] | None" = None
    name: str = field(default="task_vector", kw_only=True)

    def __post_init__(self) -> None:
        given = self.coefficient
        listed = tuple(given) if isinstance(given, Sequence) else (given,)
        if not listed or not all(is_finite(value) and value > 0 for value in listed):
            raise ConfigError(f"{self.name}: coefficients must be more than 0 and finite, got {given!r}")
        tried = tuple(float(value) for value in listed)
        if len(tried) > 1 and self.score is None:
            raise ConfigError(
                f"{self.name}: {len(tried)} coefficients need a score to choose by; give it, or one of them"
            )
        object.__setattr__(self, "coefficient", tried)

    def change(
        self, model: "HookedModel", data: UnlearnData, config: UnlearnConfig, reference: Reference, progress: bool
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Fine-tune, put back, subtract.

        Returns:
            The history of the fine-tuning, and one row a coefficient: coefficient, score (NaN without one), chosen.

        Raises:
            ConfigError: the fine-tuning fails, or no score is a number.
        """
        import pandas as pd

        vector: dict[str, Tensor] = {}

        def keep(step: int, tuned: "HookedModel") -> None:
            vector.update({name: tensor.detach().clone() for name, tensor in reference.tensors.items()})

        if config.guard is not None or config.lora is not None or config.adversary is not None:
            raise ConfigError(
                f"{self.name}: the config's own tensors are fine-tuned to the last step; drop guard, lora and adversary"
            )
        task = FineTuning("forget", retains=False, name=self.name)
        steps = {config.steps}
        trained = unlearn(model, task, data, config, checkpoints=steps, callback=keep, restore=True, progress=progress)
        for name, tensor in reference.tensors.items():
            vector[name].sub_(tensor)

        assert isinstance(self.coefficient, tuple)
        scores: list[float] = []
        for value in self.coefficient:
            _subtract(vector, value, reference)
            model.mark_changed()
            scores.append(float("nan") if self.score is None else float(self.score(model)))
        best = self._best(scores)
        _subtract(vector, self.coefficient[best], reference)
        chosen = [index == best for index in range(len(scores))]
        return trained.history, pd.DataFrame({"coefficient": self.coefficient, "score": scores, "chosen": chosen})

    def _best(self, scores: Sequence[float]) -> int:
        """The first of the highest scores."""
        if self.score is None:
            return 0
        comparable = [index for index, score in enumerate(scores) if score == score]
        if not comparable:
            raise ConfigError(f"{self.name}: the score is no number at any of {len(scores)} coefficients")
        return max(comparable, key=lambda index: scores[index])


def _subtract(vector: dict[str, Tensor], coefficient: float, reference: Reference) -> None:
    """Write `original - coefficient * vector`, from the original each time."""
    reference.restore()
    for name, tensor in reference.tensors.items():
        tensor.sub_(vector[name], alpha=coefficient)
