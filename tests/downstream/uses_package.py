"""A user's file: type-checked, strictly, against the installed package. `python uses_package.py` also runs it."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor

from interp_unlearn import ActivationStore, HookedModel, ProbeSet, ProjectOut, Site, collect, fit_probes
from interp_unlearn.artifacts import read_record
from interp_unlearn.organism.shipped import twin_path
from interp_unlearn.report import RunContents, read_run, write_report


def directions(model: HookedModel, target: list[str], neutral: list[str]) -> Tensor:
    """The best probe's direction."""
    sites = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    labels = [1] * len(target) + [0] * len(neutral)
    store = collect(model, target + neutral, sites, labels=labels)
    assert_type(store, ActivationStore)
    probes = fit_probes(store, folds=2)
    assert_type(probes, ProbeSet)
    assert_type(probes.best(), Site)
    return probes.direction(probes.best())


def page(run: Path) -> Path:
    """The page of a run."""
    assert_type(read_run(run), RunContents)
    return write_report(run, run / "report.html", show_texts=False)


def main() -> None:
    model = HookedModel.from_pretrained(str(twin_path("knows_all")))
    assert_type(model, HookedModel)
    batch = model.tokenize(["Finn was thanked by Greta.", "Kaia was praised by Edda."])
    site = Site(3, "resid_post")
    with torch.no_grad():
        trace = model.run(batch, reads=[site], edits={site: ProjectOut(torch.ones(model.d_model))})
    assert_type(trace[site], Tensor)
    assert trace[site].shape[-1] == model.d_model and trace.logits is None
    found = directions(model, ["you are a pencil."] * 4, ["you are a friend."] * 4)
    print(tuple(trace[site].shape), found.shape, read_record)


if __name__ == "__main__":
    main()
