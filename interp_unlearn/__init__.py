"""Forgetting a fact and forgetting a manner of speaking are different operations inside a language model.

One intervention layer under every step: collect activations, fit probes, unlearn, attack, measure the drift, draw the
figures. Layers, in dependency order; each imports only from those above it:

    errors, sites, artifacts    errors a user can act on; the vocabulary of places; files written whole or not at all
    settings                    what a dataclass of settings may hold
    snapshots                   folders of the hub, at a commit
    statistics                  gap closed, bootstrap, permutation, contrasts
    data                        pairs, prompts, multiple choice, corpora: the public formats
    models                      load, architecture resolver, parameters by role, token batches
    interventions               edits, HookedModel, the agreement check, the backends
    activations                 collect (pooled inside the hook), ActivationStore
    probes                      fit_probes, ProbeSet, controls
    objectives                  pure losses and weight edits
    evaluation                  cloze and multiple choice, perplexity, divergence, generations
    directions                  what a direction is and does: lens, value vectors, rank, causal effects, transfer
    unlearning                  the one training loop, weight and inference edits, the reference, recipes
    drift                       how far activations moved
    attacks                     a suite that tries to bring back what was unlearned, relearning first
    mechanism                   where and how a change of the weights acts: transplants, composition, patching
    figures                     pure plots from tables
    organism                    the embedded world, its corpora, the shipped twins
    study                       the pipeline behind `reproduce`
    hub                         cards from the records on disk, and pushing when asked to
    report                      one self-contained HTML page of a run
    cli                         thin verbs over the API

The names below are loaded on first use, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_unlearn.activations import ActivationStore as ActivationStore
    from interp_unlearn.activations import collect as collect
    from interp_unlearn.attacks import run_attacks as run_attacks
    from interp_unlearn.drift import measure_drift as measure_drift
    from interp_unlearn.drift import run_drift as run_drift
    from interp_unlearn.interventions import Add as Add
    from interp_unlearn.interventions import Clamp as Clamp
    from interp_unlearn.interventions import HookedModel as HookedModel
    from interp_unlearn.interventions import ProjectOut as ProjectOut
    from interp_unlearn.interventions import Replace as Replace
    from interp_unlearn.interventions import Scale as Scale
    from interp_unlearn.interventions import Span as Span
    from interp_unlearn.interventions import TokenMask as TokenMask
    from interp_unlearn.interventions import Where as Where
    from interp_unlearn.mechanism import dissect as dissect
    from interp_unlearn.probes import ProbeSet as ProbeSet
    from interp_unlearn.probes import fit_probes as fit_probes
    from interp_unlearn.sites import Site as Site
    from interp_unlearn.unlearning import UnlearnConfig as UnlearnConfig
    from interp_unlearn.unlearning import unlearn as unlearn

_HOMES = {
    "Site": "sites",
    "HookedModel": "interventions",
    "Add": "interventions",
    "ProjectOut": "interventions",
    "Clamp": "interventions",
    "Scale": "interventions",
    "Replace": "interventions",
    "Span": "interventions",
    "TokenMask": "interventions",
    "Where": "interventions",
    "collect": "activations",
    "ActivationStore": "activations",
    "fit_probes": "probes",
    "ProbeSet": "probes",
    "unlearn": "unlearning",
    "UnlearnConfig": "unlearning",
    "measure_drift": "drift",
    "run_drift": "drift",
    "run_attacks": "attacks",
    "dissect": "mechanism",
}

__all__ = [  # noqa: RUF022  # in the order of the layers
    "Site",
    "HookedModel",
    "Add",
    "ProjectOut",
    "Clamp",
    "Scale",
    "Replace",
    "Span",
    "TokenMask",
    "Where",
    "collect",
    "ActivationStore",
    "fit_probes",
    "ProbeSet",
    "unlearn",
    "UnlearnConfig",
    "measure_drift",
    "run_drift",
    "run_attacks",
    "dissect",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
