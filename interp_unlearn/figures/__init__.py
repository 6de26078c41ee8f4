"""Figures as pure functions of tables: what is drawn can always be read back from the Parquet file beside it."""

from interp_unlearn.figures.dissociation import plot_dissociation
from interp_unlearn.figures.drift import plot_drift
from interp_unlearn.figures.probes import plot_probe_auroc
from interp_unlearn.figures.relearning import plot_relearning
from interp_unlearn.figures.style import save_figure
from interp_unlearn.figures.token_heatmap import draw_token_heatmap

__all__ = [
    "draw_token_heatmap",
    "plot_dissociation",
    "plot_drift",
    "plot_probe_auroc",
    "plot_relearning",
    "save_figure",
]
