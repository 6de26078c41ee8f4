"""Steering back: what the unlearned model no longer computes is added to its stream."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from interp_unlearn.attacks.attack import Attack, Attempt, Record, Target
from interp_unlearn.attacks.streams import displacement, most_displaced
from interp_unlearn.directions.nulls import random_unit_vectors
from interp_unlearn.errors import ConfigError
from interp_unlearn.interventions import Add
from interp_unlearn.sites import Site

Vector = Literal["forget_minus_neutral", "displacement"]


@dataclass(frozen=True)
class SteerBack(Attack):
    """Add a vector to every token of the stream after a block while the model is asked.

    The control adds random vectors of the same norm.
    Caveat: one vector for all tokens; what was forgotten token by token it cannot bring back.

    Attributes:
        vectors: "forget_minus_neutral", the mean of the original's stream on forget texts less that on neutral ones
            (the mean difference of steering); "displacement", what the mean on forget texts has lost, `mean(h0) -
            mean(h)`.
        coefficients: factors on the vector.
        layers: each alone; None takes the layer whose mean has moved furthest, relative to its norm.
        n_random: vectors of the control; 0 for none.
        include_bos: also at the BOS token.
    """

    vectors: tuple[Vector, ...] = ("forget_minus_neutral", "displacement")
    coefficients: tuple[float, ...] = (0.5, 1.0, 2.0)
    layers: tuple[int, ...] | None = None
    n_random: int = 3
    include_bos: bool = False
    reads_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.vectors or not self.coefficients or self.layers == () or self.n_random < 0:
            raise ConfigError(
                f"expected a vector, a coefficient, a layer and n_random of 0 or more, got {self.vectors}, "
                f"{self.coefficients}, {self.layers}, {self.n_random}"
            )

    @property
    def name(self) -> str:
        return "steer_back"

    def attempts(self, target: Target, record: Record) -> Iterator[Attempt]:
        original, unlearned = target.streams
        layers = self.layers or (most_displaced(original, displacement(original, unlearned)),)
        for vector in self.vectors:
            for layer in layers:
                try:
                    if vector == "displacement":
                        added = original.mean(layer) - unlearned.mean(layer)
                    else:
                        added = original.mean(layer) - original.mean(layer, "neutral")
                except ConfigError as error:
                    yield Attempt({"vector": vector, "layer": layer}, None, reason=str(error))
                    continue
                for coefficient in self.coefficients:
                    told = {"vector": vector, "layer": layer, "coefficient": coefficient}
                    yield self._steered(target, layer, added.float(), coefficient, told)

    def _steered(
        self, target: Target, layer: int, vector: Tensor, coefficient: float, told: Mapping[str, object]
    ) -> Attempt:
        def edits(added: Tensor) -> dict[Site, Add]:
            return {Site(layer, "resid_post"): Add(added, coefficient, include_bos=self.include_bos)}

        def random_edits(seed: int) -> dict[Site, Add]:
            return edits(random_unit_vectors(1, len(vector), seed)[0] * vector.norm())

        items, control = target.beside_random(edits(vector), random_edits, self.n_random)
        return Attempt({**told, "n_random": self.n_random}, items, control=control)
