"""`probe`: pooled activations in, directions and their AUROC out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp_unlearn.cli import options

if TYPE_CHECKING:
    import pandas as pd

_MAIN = ["site", "auroc", "auroc_low", "auroc_high", "accuracy", "selectivity", "calibration_slope"]
_ASKED_FOR = [
    "auroc_shuffled",
    "auroc_bag_of_words",
    "auroc_random_direction",
    "auroc_mean_difference",
    "auroc_leace",
    "stability",
    "stability_halves",
]


def probe(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder that `collect` wrote.")],
    out: options.OutOption,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Of the cross-validation; they keep groups whole.")] = 5,
    strength: Annotated[
        list[float] | None,
        typer.Option("--C", help="Inverse strength of the L2 penalty, by default 1; repeat it to choose by nested CV."),
    ] = None,
    strength_site: Annotated[
        list[str] | None,
        typer.Option("--C-site", help="Choose C here only, for all sites; repeat it. Default: at every site."),
    ] = None,
    shuffles: Annotated[int, typer.Option("--shuffles", min=0, help="Label shufflings averaged in the control.")] = 1,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples for the AUROC's interval.")] = 1000,
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Refits for the direction's stability, whole and in halves.")
    ] = 0,
    leace: Annotated[bool, typer.Option("--leace", help="Erase the concept in each fold and probe again.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of folds, controls and resamples.")] = 0,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Sites at a time; by default one a core.")] = None,
) -> None:
    """Fit a linear probe at every site of a store, with its controls, and draw AUROC by layer."""
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.activations.store import IDENTITY
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.figures import plot_probe_auroc, save_figure
    from interp_unlearn.probes import fit_probes
    from interp_unlearn.probes.settings import ProbeSettings
    from interp_unlearn.sites import Site

    activations = ActivationStore.open(store)
    C_sites = [Site.parse(name) for name in strength_site] if strength_site else None
    C = 1.0 if not strength else strength[0] if len(strength) == 1 else strength
    settings = {"folds": folds, "C": C, "shuffles": shuffles, "seed": seed}
    settings |= {"bootstrap": bootstrap, "resamples": resamples, "leace": leace}
    ProbeSettings(folds, C, C_sites, seed, shuffles, bootstrap, resamples, leace)  # refused before a folder is made
    kept = {key: activations.metadata.get(key) for key in IDENTITY}
    identity = {"task": "probe", **kept, "sites": [str(site) for site in activations.sites], **settings}
    identity["C_sites"] = None if C_sites is None else [str(site) for site in C_sites]
    with run_folder(out, identity) as folder:
        probes = fit_probes(
            activations,
            folds=folds,
            C=C,
            C_sites=C_sites,
            shuffles=shuffles,
            bootstrap=bootstrap,
            resamples=resamples,
            leace=leace,
            seed=seed,
            n_jobs=jobs,
        )
        probes.save(folder)
        if len({site.component for site in probes.sites} - {"embed"}) == 1:
            save_figure(plot_probe_auroc(probes.table), folder / "probe_auroc.pdf")
    show_table(probes.table, _shown(probes.table, chosen=bool(strength and len(strength) > 1)))
    show_written(out)


def _shown(table: "pd.DataFrame", chosen: bool) -> list[str]:
    """The main columns, and of the others those that were asked for."""
    asked = [name for name in _ASKED_FOR if table[name].notna().to_numpy().any()]
    return [*_MAIN, *asked, *(["C"] if chosen else []), "n", "n_groups"]
