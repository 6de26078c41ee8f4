"""What is read of one model while it is in memory, so that nothing of it is needed afterwards."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp_unlearn.activations import ActivationStore, collect, plan_collection
from interp_unlearn.drift.lens import answer_lens
from interp_unlearn.drift.setup import DriftSetup
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.probes.reading import collect_as_fitted
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import ProbeSet

Reading = Literal["stream", "prompts", "answered", "pooled"]
"""Every token of the texts; the last of each prompt; every token of prompts with answers; a vector a text."""


@dataclass(frozen=True, eq=False)
class Readings:
    """What was read of a model; None where no measure asked for it.

    Attributes:
        stream: every token of the texts, at the sites.
        prompts: the last token of each prompt, in the stream.
        lens: of these, the answers' probability by the model's own final norm and head (`answer_lens`).
        answered: every token of the prompts with their answers, after each layer.
        pooled: the texts with their labels, as the original's probes were fitted.
    """

    stream: ActivationStore | None = None
    prompts: ActivationStore | None = None
    lens: "pd.DataFrame | None" = None
    answered: ActivationStore | None = None
    pooled: ActivationStore | None = None


def read_model(model: "HookedModel", wanted: Collection[Reading], setup: DriftSetup, folder: Path) -> Readings:
    """Make the passes that are wanted, streamed to disk; what an earlier call has left there is not read again.

    Args:
        model: in eval mode.
        wanted: what to read.
        setup: of the comparison.
        folder: of this model.

    Raises:
        SiteError: the model lacks a site.
        ArtifactError: the folder holds other readings.
        ConfigError: prompts, answers or probes are wanted but not given.
        DataError: a prompt is longer than the model's context.
    """
    texts, answers = setup.texts, setup.answers
    told: dict[str, Any] = {"batch_tokens": setup.batch_tokens, "max_length": setup.max_length}
    told |= {"progress": setup.progress, "keep_texts": False}
    found: dict[str, Any] = {}
    if "stream" in wanted:
        sites = setup.sites_of(model)
        found["stream"] = collect(model, texts.texts, sites, "none", out=folder / "stream", **told)
    if "prompts" in wanted or "answered" in wanted:
        if answers is None:
            raise ConfigError("no prompts with their answers are given; give answers=Answers(...), or --facts")
        sites = setup.lens_sites(model)
        whole: dict[str, Any] = told | {"max_length": None}  # in a cut prompt no answer is due
        if plan_collection(model, answers.prompts, sites, "last").n_cut:
            raise DataError("answers", f"a prompt is longer than the {model.context_length} tokens of the context")
        if "prompts" in wanted:
            prompts = collect(model, answers.prompts, sites, "last", out=folder / "prompts", **whole)
            found |= {"prompts": prompts, "lens": answer_lens(model, prompts, answers.answers)}
        if "answered" in wanted:
            layers = [Site(layer, "resid_post") for layer in range(model.n_layers)]
            options: dict[str, Any] = {"completions": answers.answers, "tokens": "all", "out": folder / "answered"}
            found["answered"] = collect(model, answers.prompts, layers, "none", **options, **whole)
    if "pooled" in wanted:
        found["pooled"] = _read_pooled(model, setup, folder, told)
    return Readings(**found)


def _read_pooled(model: "HookedModel", setup: DriftSetup, folder: Path, told: dict[str, Any]) -> ActivationStore:
    texts, probes = setup.texts, setup.probes
    if probes is None:
        raise ConfigError("no probes of the original are given; give probes=..., or --probes")
    sites = probed_sites(probes, setup, model)
    options: dict[str, Any] = told | {"labels": texts.labels, "groups": texts.groups, "out": folder / "pooled"}
    return collect_as_fitted(probes, model, texts.texts, sites, **options)


def probed_sites(probes: "ProbeSet", setup: DriftSetup, model: "HookedModel") -> list[Site]:
    """Where probes are trained again: at the sites that are measured and probed, at the original's best, and where C
    is chosen for all.
    """
    measured = set(setup.sites_of(model))
    return sorted({site for site in probes.sites if site in measured} | {probes.best(), *probes.strength_sites})
