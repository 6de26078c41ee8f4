"""`probe`: pooled activations in, directions and their AUROC out."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options


def probe(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder that `collect` wrote.")],
    out: options.OutOption,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Of the cross-validation; they keep groups whole.")] = 5,
    strength: Annotated[float, typer.Option("--C", help="Inverse strength of the L2 penalty.")] = 1.0,
    shuffles: Annotated[int, typer.Option("--shuffles", min=0, help="Label shufflings averaged in the control.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of folds, controls and bootstrap.")] = 0,
) -> None:
    """Fit a linear probe at every site of a store, with its controls, and draw AUROC by layer."""
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.figures import plot_probe_auroc, save_figure
    from interp_unlearn.probes import fit_probes

    activations = ActivationStore.open(store)
    settings = {"folds": folds, "C": strength, "shuffles": shuffles, "seed": seed}
    kept = {key: activations.metadata[key] for key in ("model_hash", "data_hash", "pool")}
    identity = {"task": "probe", **kept, "sites": [str(site) for site in activations.sites], **settings}
    with run_folder(out, identity) as folder:
        probes = fit_probes(activations, folds=folds, C=strength, shuffles=shuffles, seed=seed)
        probes.save(folder)
        if len({site.component for site in probes.sites} - {"embed"}) == 1:
            save_figure(plot_probe_auroc(probes.table), folder / "probe_auroc.pdf")
    controls = ("auroc_shuffled", "auroc_bag_of_words", "auroc_random_direction", "auroc_mean_difference")
    show_table(probes.table, ["site", "auroc", "auroc_low", "auroc_high", *controls, "n", "n_groups"])
    show_written(out)
