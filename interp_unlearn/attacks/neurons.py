"""Scaling neurons: a few of the MLPs' neurons, turned up or off, may bring back what was unlearned."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Setup, Target
from interp_unlearn.attacks.streams import read_texts, token_mean
from interp_unlearn.directions import Directions, aligned_value_vectors, value_vectors
from interp_unlearn.directions.nulls import random_unit_vectors
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Edit, EditContext
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel

By = Literal["direction", "activation", "weights"]
Neurons = Mapping[int, list[int]]
"""Some neurons of each layer."""
SKETCH = 64
"""Random directions that value vectors are compared along."""


@dataclass(frozen=True, eq=False)
class ScaleNeurons(Edit):
    """Multiply some neurons' activations by a factor; at the site mlp_post."""

    neurons: tuple[int, ...]
    factor: float

    def transform(self, activation: Tensor, context: EditContext) -> Tensor:
        factors = torch.ones(activation.shape[-1], dtype=activation.dtype, device=activation.device)
        factors[list(self.neurons)] = self.factor
        return activation * factors


@dataclass(frozen=True)
class NeuronScaling(Attack):
    """Scale the activations of a few neurons of all MLPs.

    Source: Lee et al. 2024, arXiv 2401.01967, multiply by 10 the key vectors of the 7 value vectors most aligned with a
    probe of toxicity. Our reading scales what the neuron passes on: the same where its activation function is
    positively homogeneous (ReLU) or the gate is left alone, near it where the neuron is strongly active.
    The control scales as many neurons of the same layers, drawn at random.
    Caveat: random neurons may write less than the chosen ones do; the control shows that the choice matters.

    Attributes:
        by: "direction", neurons whose value vectors point most along a direction; "activation", those whose mean write
            to the stream on forget texts (mean activation times the value vector's norm) changed most between original
            and unlearned model; "weights", those whose value vectors themselves changed most, estimated from a sketch
            of each along 64 random directions (standard error about 9% of the change, 0 where nothing changed).
        n_neurons: how many of all layers together.
        factors: of the scaling; 1 leaves the model as it is, 0 switches neurons off.
        directions: at resid_post of the layers searched; None takes, at every layer, the original's mean on forget
            texts less that on neutral ones.
        n_random: draws of the control; 0 for none.
    """

    by: tuple[By, ...] = ("direction", "activation", "weights")
    n_neurons: int = 7
    factors: tuple[float, ...] = (0.0, 10.0)
    directions: Directions | None = None
    n_random: int = 3
    reads_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.by or self.n_neurons < 1 or not self.factors or self.n_random < 0:
            raise ConfigError(
                f"expected a by, n_neurons of at least 1, a factor and n_random of 0 or more, got {self.by}, "
                f"{self.n_neurons}, {self.factors}, {self.n_random}"
            )

    @property
    def name(self) -> str:
        return "scale_neurons"

    def record(self, model: "HookedModel", setup: Setup) -> Record:
        tensors: dict[str, Tensor] = {}
        if "activation" in self.by:
            tensors |= {f"mean.{layer}": mean for layer, mean in mean_neurons(model, setup).items()}
        if "weights" in self.by:
            tensors |= {f"sketch.{layer}": sketch(model, layer) for layer in range(model.n_layers)}
        return Record(tensors=tensors)

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        for by in self.by:
            try:
                chosen = self._chosen(target, record, by)
            except ConfigError as error:
                yield Attempt({"by": by}, None, reason=str(error))
                continue
            for factor in self.factors:
                items, control = target.beside_random(
                    scaling(chosen, factor),
                    lambda seed, chosen=chosen, factor=factor: scaling(
                        random_neurons(target.model, chosen, seed), factor
                    ),
                    self.n_random,
                )
                told = {"by": by, "factor": factor, "neurons": sum(map(len, chosen.values()))}
                layers = sorted(chosen)
                yield Attempt({**told, "layers": layers, "n_random": self.n_random}, items, control=control)

    def _chosen(self, target: Target, record: Record, by: By) -> Neurons:
        model, layers = target.model, range(target.model.n_layers)
        if by == "direction":
            return self._aligned(target)
        if by == "activation":
            means = mean_neurons(model, target.setup)
            norms = {layer: value_vectors(model, layer).norm(dim=1).double() for layer in layers}
            change = {at: (means[at] - record.tensors[f"mean.{at}"]).abs() * norms[at] for at in layers}
        else:
            change = {at: (sketch(model, at) - record.tensors[f"sketch.{at}"]).norm(dim=1) for at in layers}
        return largest(change, self.n_neurons)

    def _aligned(self, target: Target) -> Neurons:
        model, directions = target.model, self.directions
        if directions is None:
            original = target.streams[0]
            vectors = {
                Site(layer, "resid_post"): original.mean(layer) - original.mean(layer, "neutral")
                for layer in range(model.n_layers)
            }
            directions = Directions(vectors, name="forget minus neutral")
        found = aligned_value_vectors(model, directions, k=self.n_neurons)
        best = found.loc[found["side"] == "along"].sort_values("cosine", ascending=False)
        best = best.drop_duplicates(["mlp_layer", "neuron"]).head(self.n_neurons)  # two sites may share an MLP
        neurons: dict[int, list[int]] = {}
        for layer, neuron in zip(best["mlp_layer"].tolist(), best["neuron"].tolist(), strict=True):
            neurons.setdefault(layer, []).append(neuron)
        return neurons


def scaling(neurons: Neurons, factor: float) -> dict[Site, ScaleNeurons]:
    """The edits that scale neurons."""
    return {Site(layer, "mlp_post"): ScaleNeurons(tuple(chosen), factor) for layer, chosen in neurons.items()}


def random_neurons(model: "HookedModel", neurons: Neurons, seed: int) -> Neurons:
    """As many neurons of the same layers, drawn at random."""
    drawn: dict[int, list[int]] = {}
    for layer, chosen in neurons.items():
        generator = torch.Generator().manual_seed(seed * 1_000_003 + layer)
        width = model.architecture.width_at(Site(layer, "mlp_post"))
        drawn[layer] = torch.randperm(width, generator=generator)[: len(chosen)].tolist()
    return drawn


def mean_neurons(model: "HookedModel", setup: Setup) -> dict[int, Float[Tensor, " d_mlp"]]:
    """Mean activation of each layer's neurons over the tokens of the forget texts, in float64."""
    sites = [Site(layer, "mlp_post") for layer in range(model.n_layers)]
    store = read_texts(model, setup.data, sites, setup.n_texts, setup.seed)
    return {layer: token_mean(store, site) for layer, site in enumerate(sites)}


def sketch(model: "HookedModel", layer: int) -> Float[Tensor, "d_mlp sketch"]:
    """Projections of a layer's value vectors such that norms of differences are kept (Johnson and Lindenstrauss)."""
    values = value_vectors(model, layer)
    d = values.shape[1]
    return values @ random_unit_vectors(SKETCH, d, layer).T * (d / SKETCH) ** 0.5


def largest(change: Mapping[int, Float[Tensor, " d_mlp"]], n: int) -> Neurons:
    """The neurons of the largest change in all layers together; none that has not changed.

    Raises:
        ConfigError: no neuron has changed.
    """
    ranked = sorted(
        ((float(value), layer, neuron) for layer, values in change.items() for neuron, value in _top(values, n)),
        reverse=True,
    )
    neurons: dict[int, list[int]] = {}
    for _, layer, neuron in ranked[:n]:
        neurons.setdefault(layer, []).append(neuron)
    if not neurons:
        raise ConfigError("no neuron differs between the original and the unlearned model")
    return neurons


def _top(values: Float[Tensor, " d_mlp"], n: int) -> list[tuple[int, float]]:
    found = values.topk(min(n, len(values)))
    return [(i, v) for v, i in zip(found.values.tolist(), found.indices.tolist(), strict=True) if v > 0]
