"""Figures as pure functions of tables: what is drawn can always be read back from the Parquet file beside it."""

from interp_unlearn.figures.causal_effects import plot_causal_effects
from interp_unlearn.figures.direction_cosines import plot_direction_cosines
from interp_unlearn.figures.dissociation import plot_dissociation
from interp_unlearn.figures.drift import plot_drift
from interp_unlearn.figures.excess import plot_excess
from interp_unlearn.figures.probes import plot_probe_auroc
from interp_unlearn.figures.promoted_tokens import plot_promoted_tokens
from interp_unlearn.figures.relearning import plot_relearning
from interp_unlearn.figures.style import save_figure
from interp_unlearn.figures.subspace_rank import plot_subspace_rank
from interp_unlearn.figures.token_heatmap import draw_token_heatmap
from interp_unlearn.figures.transfer import plot_transfer, plot_transfer_by_layer
from interp_unlearn.figures.value_vectors import plot_value_vectors

__all__ = [
    "draw_token_heatmap",
    "plot_causal_effects",
    "plot_direction_cosines",
    "plot_dissociation",
    "plot_drift",
    "plot_excess",
    "plot_probe_auroc",
    "plot_promoted_tokens",
    "plot_relearning",
    "plot_subspace_rank",
    "plot_transfer",
    "plot_transfer_by_layer",
    "plot_value_vectors",
    "save_figure",
]
