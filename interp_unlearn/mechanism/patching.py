"""Activation patching between two models: at which layer and token what only one of them knows comes in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from interp_unlearn.interventions import HookedModel, Replace, TokenMask
from interp_unlearn.mechanism.donor_states import DonorStates, PatchConfig, collect_states, patch_batches, scores_of
from interp_unlearn.mechanism.outcome import PairedMeans, check_units
from interp_unlearn.mechanism.patch_texts import PatchTexts
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[int, str]
"""A layer and a class of positions."""
ModelSource = HookedModel | Callable[[], HookedModel]
"""A model, or what loads it: then it is in memory only while it is needed."""


@dataclass(frozen=True, eq=False)
class Patching:
    """Scores of one model with another's states put in.

    Attributes:
        config: how it was done.
        recipient: scores of the model as it is.
        donor: scores of the other model.
        patched: scores by layer and class of positions.
        floor: the same with states of the re-seeded original; None without one.
        present: by class, in how many texts it has a token.
        item_groups: keys of the texts.
    """

    config: PatchConfig
    recipient: Float[np.ndarray, " text"]
    donor: Float[np.ndarray, " text"]
    patched: Mapping[Place, Float[np.ndarray, " text"]]
    floor: Mapping[Place, Float[np.ndarray, " text"]] | None
    present: Mapping[str, int]
    item_groups: Sequence[object] | None

    def to_frame(self) -> "pd.DataFrame":
        """One row a layer and class of positions.

        Columns: layer, position; effect (patched minus recipient); share (of the difference between donor and
        recipient; NaN where the interval of that holds 0); floor (the effect of the re-seeded original's states) and
        beyond_floor (effect minus floor, paired), both NaN without one; each with _low and _high; recipient, donor
        (mean scores), n_present (texts that have such a token), n.
        """
        import pandas as pd

        conditions: dict[tuple[str, Place | None], np.ndarray] = {
            ("recipient", None): self.recipient,
            ("donor", None): self.donor,
            **{("patched", place): scores for place, scores in self.patched.items()},
            **{("floor", place): scores for place, scores in (self.floor or {}).items()},
        }
        means = PairedMeans(conditions, self.item_groups, self.config.resampling)
        start, end = ("recipient", None), ("donor", None)
        rows: list[dict[str, object]] = []
        for place in self.patched:
            layer, position = place
            row: dict[str, object] = {"layer": layer, "position": position}
            found = {
                "effect": means.effect(("patched", place), start),
                "share": means.share(("patched", place), start, end),
            }
            if self.floor is not None:
                found["floor"] = means.effect(("floor", place), start)
                found["beyond_floor"] = means.effect(("patched", place), ("floor", place))
            for name in ("effect", "share", "floor", "beyond_floor"):
                interval = found.get(name)
                row[name] = np.nan if interval is None else interval.mean
                row[f"{name}_low"] = np.nan if interval is None else interval.low
                row[f"{name}_high"] = np.nan if interval is None else interval.high
            row |= {"recipient": means.mean(start), "donor": means.mean(end)}
            rows.append(row | {"n_present": self.present[position], "n": means.n})
        return pd.DataFrame(rows)


def patch(
    recipient: HookedModel,
    donor: DonorStates,
    texts: PatchTexts,
    config: PatchConfig | None = None,
    *,
    floor: DonorStates | None = None,
    groups: Sequence[object] | None = None,
    progress: bool = False,
) -> Patching:
    """Put another model's stream into a model, after one block and at one class of positions at a time.

    Causal tracing between models (after Meng et al. 2022, arXiv 2202.05262, who patch between two runs of one model;
    between models as in UDS, arXiv 2605.24614). Where a twin's states make the original fail, or the original's make
    the twin answer, what tells the two apart is in those states, in a form that the layers above can read.

    Caveat: what this cannot show. Networks trained apart share no basis. A donor's state may hold the answer and the
    recipient not be able to read it: no effect is no evidence that nothing was there. And a foreign state disturbs
    whatever it holds: a loss is no evidence of what it lacks. The floor is what the states of a model do that can
    everything the original can, in another basis; only what goes beyond it is about what the models know. An unlearned
    model keeps its original's basis but for what unlearning changed, twins from a common checkpoint keep it in part.

    Args:
        recipient: the model that is run; nothing in it is changed.
        donor: the other model's states.
        texts: the same that the states were collected on.
        config: the same, too.
        floor: states of an original that was trained anew from another seed.
        groups: one key a text; those of a group are resampled together.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the states are of other texts, tokens, batches or layers, or of another width.
    """
    config = config or PatchConfig()
    rows, _ = texts.rows(recipient.tokenizer)
    layers = config.layers_of(recipient)
    donors = {"donor": donor} if floor is None else {"donor": donor, "floor": floor}
    places = [(layer, name) for layer in layers for name in texts.positions]
    found = {name: {place: np.full(len(rows), np.nan) for place in places} for name in donors}
    own = np.full(len(rows), np.nan)
    passes = list(patch_batches(recipient, texts, config))
    check_units({"score": own}, groups)
    for name, states in donors.items():
        states.check(name, rows, [chosen for chosen, _ in passes], layers)
    with torch.no_grad(), tqdm(desc="patching", total=len(passes) * len(places), disable=not progress) as bar:
        for number, (chosen, batch) in enumerate(passes):
            own[chosen] = scores_of(recipient.run(batch, logits=True).logits, batch, chosen, config)
            for layer, position in places:
                tokens = TokenMask(texts.mask(position, chosen, batch.input_ids.shape[1]))
                for name, states in donors.items():
                    edits = {Site(layer, "resid_post"): Replace(states.batches[number][1][layer], tokens=tokens)}
                    logits = recipient.run(batch, edits=edits, logits=True).logits
                    found[name][layer, position][chosen] = scores_of(logits, batch, chosen, config)
                bar.update()
    present = {name: sum(bool(mask.any()) for mask in masks) for name, masks in texts.positions.items()}
    return Patching(config, own, donor.scores, found["donor"], found.get("floor"), present, groups)


def patch_both_ways(
    first: ModelSource,
    second: ModelSource,
    texts: PatchTexts,
    config: PatchConfig | None = None,
    *,
    floor: ModelSource | None = None,
    groups: Sequence[object] | None = None,
    progress: bool = False,
) -> tuple[Patching, Patching]:
    """Patch the first model's states into the second, and the second's into the first; see `patch`.

    Models given by what loads them are in memory one at a time.

    Returns:
        Into the second, and into the first.
    """
    states = [collect_states(_opened(source), texts, config) for source in (first, second)]
    beside = None if floor is None else collect_states(_opened(floor), texts, config)
    into_second, into_first = (
        patch(_opened(source), donor, texts, config, floor=beside, groups=groups, progress=progress)
        for source, donor in ((second, states[0]), (first, states[1]))
    )
    return into_second, into_first


def _opened(source: ModelSource) -> HookedModel:
    return source if isinstance(source, HookedModel) else source()
