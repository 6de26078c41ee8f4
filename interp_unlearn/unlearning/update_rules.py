"""What may happen to a gradient between the loss and the optimiser: the third protocol, beside losses and weight edits.

A rule sees the gradient of the forget loss (with the adversary's, if there is one) and that of the retain terms, apart,
and returns what the forget gradient becomes; the retain gradient is added afterwards.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.settings import call_with
from interp_unlearn.unlearning.gradients import Gradients, inner_product, norm_of


class UpdateRule(ABC):
    """One way to change the forget gradient.

    Attributes:
        name: for the record.
    """

    name = "update_rule"

    @contextmanager
    def watching(self, hf: nn.Module, trained: Mapping[str, nn.Parameter]) -> Generator[None]:
        """Around the forward and backward pass of the forget loss; most rules watch nothing."""
        yield

    @abstractmethod
    def apply(self, forget: Gradients, retain: Gradients | None) -> Gradients:
        """The new forget gradient; its arguments may be changed in place.

        Args:
            forget: gradient of each trained tensor, by name.
            retain: the same of the retain terms; None where there are none.

        Raises:
            ConfigError: the rule needs retain terms and there are none.
        """

    def reset(self) -> None:  # noqa: B027 most have nothing to forget
        """Forget what earlier runs left: a rule begins every run alike."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to remember."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 most have nothing to take up
        """Go on from a checkpoint's state."""

    def settings(self) -> dict[str, Any]:
        """The rule's own numbers, for the record."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def _need(self, retain: Gradients | None) -> Gradients:
        if retain is None:
            raise ConfigError(
                f"update rule {self.name} compares with the retain gradient and there is none; give retain texts and a "
                "weight above 0"
            )
        return retain


class ProjectConflicts(UpdateRule):
    """Where the two gradients conflict, take out of the forget gradient its part along the retain gradient.

    `g_f - (g_f . g_r / |g_r|^2) g_r` if `g_f . g_r < 0`, over all trained tensors together. Sources: PCGrad, Yu et al.
    2020, arXiv 2001.06782; for unlearning FALCON, Hu et al. 2025, arXiv 2502.01472.
    """

    name = "project_conflicts"

    def apply(self, forget: Gradients, retain: Gradients | None) -> Gradients:
        retain = self._need(retain)
        product = inner_product(forget, retain)
        squared = inner_product(retain, retain)
        if product < 0 and squared > 0:
            for name, gradient in forget.items():
                gradient.sub_(retain[name], alpha=product / squared)
        return forget


class MaskBySign(UpdateRule):
    """Zero the forget gradient wherever its sign is not that of the retain gradient's running mean, then rescale it.

    What is left helps the retain terms, or does not hurt them. Rescaled to the norm of the first step's gradient, so
    that masking more does not mean learning less. Source: disruption masking, MUDMAN, Sondej et al. 2025, arXiv
    2506.12484, which pairs it with SGD.

    Args:
        momentum: of the running mean.
    """

    name = "mask_by_sign"

    def __init__(self, momentum: float = 0.8) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError(f"update rule {self.name}: momentum must lie between 0 and 1, got {momentum}")
        self.momentum = momentum
        self.reset()

    def reset(self) -> None:
        self._mean: Gradients = {}
        self._norm: float | None = None

    def apply(self, forget: Gradients, retain: Gradients | None) -> Gradients:
        for name, gradient in self._need(retain).items():
            mean = self._mean.get(name)
            # What was stored was read back onto the CPU.
            self._mean[name] = torch.zeros_like(gradient) if mean is None else mean.to(gradient.device)
            self._mean[name].mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
        for name, gradient in forget.items():
            gradient.mul_(gradient.sign() == self._mean[name].sign())
        norm = norm_of(forget.values())
        if norm > 0:
            self._norm = norm if self._norm is None else self._norm
            for gradient in forget.values():
                gradient.mul_(self._norm / norm)
        return forget

    def state(self) -> dict[str, Tensor]:
        norm = torch.tensor(float("nan") if self._norm is None else self._norm, dtype=torch.float64)
        return {"norm": norm, **{f"mean.{name}": mean for name, mean in self._mean.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        norm = float(state["norm"])
        self._norm = None if norm != norm else norm
        self._mean = {name.removeprefix("mean."): mean.clone() for name, mean in state.items() if name != "norm"}


class CollapseComponents(UpdateRule):
    """Take out of each matrix's gradient what lies along the principal components of its inputs and output gradients.

    A matrix's gradient is a sum over tokens of output gradient times input; both are dominated by a few directions that
    any text shares, and updates along them disrupt everything. With U the top components of the output gradients and V
    those of the inputs, over the forget tokens of the update and uncentred: `(I - U U^T) G (I - V V^T)`. Our reading of
    collapse of irrelevant representations (CIR, Sondej and Yang 2025, arXiv 2509.11816), which takes its components
    over the whole corpus, once an epoch.

    Args:
        rank: components taken out on each side.
    """

    name = "collapse_components"

    def __init__(self, rank: int = 8) -> None:
        if rank < 1:
            raise ConfigError(f"update rule {self.name}: rank must be at least 1, got {rank}")
        self.rank = rank
        self._inputs: dict[str, list[Tensor]] = {}
        self._slopes: dict[str, list[Tensor]] = {}
        self._transposed: set[str] = set()

    @contextmanager
    def watching(self, hf: nn.Module, trained: Mapping[str, nn.Parameter]) -> Generator[None]:
        """Keeps each matrix's inputs and the gradients of its outputs, of the tokens that any gradient reaches.

        Raises:
            ConfigError: a trained tensor is no matrix of a linear layer.
        """
        self._inputs.clear()
        self._slopes.clear()
        handles = [self._hook(name, _owner(hf, name)) for name in trained]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def apply(self, forget: Gradients, retain: Gradients | None) -> Gradients:
        for name, gradient in forget.items():
            inputs, slopes = torch.cat(self._inputs[name]), torch.cat(self._slopes[name])
            reached = slopes.abs().amax(1) > 0  # padding and tokens outside the mask get none
            matrix = gradient.T if name in self._transposed else gradient
            u, v = (top_components(rows[reached].float(), self.rank) for rows in (slopes, inputs))
            u, v = u.to(matrix), v.to(matrix)
            matrix.sub_((matrix @ v) @ v.T)  # in place, so that a transposed view changes the gradient itself
            matrix.sub_(u @ (u.T @ matrix))
        return forget

    def _hook(self, name: str, module: nn.Module) -> Any:
        inputs, slopes = self._inputs.setdefault(name, []), self._slopes.setdefault(name, [])
        if not isinstance(module, nn.Linear):
            self._transposed.add(name)  # GPT-2's Conv1D holds its matrix the other way round

        def keep(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            given = args[0].detach()

            def keep_both(slope: Tensor) -> None:  # a pass that is never differentiated leaves nothing
                inputs.append(given.flatten(0, -2))
                slopes.append(slope.detach().flatten(0, -2))

            if output.requires_grad:
                output.register_hook(keep_both)

        return module.register_forward_hook(keep)


def top_components(rows: Float[Tensor, "n d"], rank: int) -> Float[Tensor, "d k"]:
    """Orthonormal top right singular vectors of some rows, at most `rank` and at most as many as have any weight."""
    if not len(rows):
        return rows.new_zeros(rows.shape[1], 0)
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    kept = min(rank, int((values > 1e-7 * values[0]).sum()))
    return vectors[:kept].T


RULES: dict[str, type[UpdateRule]] = {rule.name: rule for rule in (ProjectConflicts, MaskBySign, CollapseComponents)}


def build_rule(name: str, **options: Any) -> UpdateRule:
    """Make an update rule by its name.

    Raises:
        ConfigError: the name is unknown, or the options do not fit it.
    """
    if name not in RULES:
        raise ConfigError(f"unknown update rule {name!r}; expected one of {', '.join(RULES)}")
    return call_with(RULES[name], options, f"update rule {name}")


def _owner(hf: nn.Module, name: str) -> nn.Module:
    path, _, leaf = name.rpartition(".")
    module = hf.get_submodule(path)
    if leaf != "weight" or module.get_parameter(leaf).ndim != 2 or isinstance(module, nn.Embedding):
        raise ConfigError(
            f"update rule collapse_components works on the matrices of linear layers, and {name} is none; name roles"
        )
    return module
