"""Figures as pure functions of tables: what is drawn can always be read back from the Parquet file beside it."""

from interp_unlearn.figures.angles import plot_principal_angles
from interp_unlearn.figures.attack_curves import plot_attack_curves
from interp_unlearn.figures.attacks import plot_attacks
from interp_unlearn.figures.causal_effects import plot_causal_effects
from interp_unlearn.figures.depth import plot_unlearning_depth
from interp_unlearn.figures.direction_cosines import plot_direction_cosines
from interp_unlearn.figures.displacement_spectrum import plot_displacement_spectrum
from interp_unlearn.figures.dissection import plot_dissection
from interp_unlearn.figures.dissociation import plot_dissociation
from interp_unlearn.figures.drift import plot_drift
from interp_unlearn.figures.excess import plot_excess
from interp_unlearn.figures.lens import plot_lens
from interp_unlearn.figures.method_cosines import plot_method_cosines
from interp_unlearn.figures.patching import plot_patching
from interp_unlearn.figures.probes import plot_probe_auroc
from interp_unlearn.figures.promoted_tokens import plot_promoted_tokens
from interp_unlearn.figures.relearning import plot_relearning
from interp_unlearn.figures.replication import plot_replication
from interp_unlearn.figures.retrained_probes import plot_retrained_probes
from interp_unlearn.figures.sensitivity import plot_sensitivity
from interp_unlearn.figures.similarity import plot_cka
from interp_unlearn.figures.style import save_figure
from interp_unlearn.figures.subspace_rank import plot_subspace_rank
from interp_unlearn.figures.token_heatmap import draw_token_heatmap
from interp_unlearn.figures.transfer import plot_transfer, plot_transfer_by_layer
from interp_unlearn.figures.value_vectors import plot_value_vectors
from interp_unlearn.figures.weight_delta import plot_weight_delta

__all__ = [
    "draw_token_heatmap",
    "plot_attack_curves",
    "plot_attacks",
    "plot_causal_effects",
    "plot_cka",
    "plot_direction_cosines",
    "plot_displacement_spectrum",
    "plot_dissection",
    "plot_dissociation",
    "plot_drift",
    "plot_excess",
    "plot_lens",
    "plot_method_cosines",
    "plot_patching",
    "plot_principal_angles",
    "plot_probe_auroc",
    "plot_promoted_tokens",
    "plot_relearning",
    "plot_replication",
    "plot_retrained_probes",
    "plot_sensitivity",
    "plot_subspace_rank",
    "plot_transfer",
    "plot_transfer_by_layer",
    "plot_unlearning_depth",
    "plot_value_vectors",
    "plot_weight_delta",
    "save_figure",
]
