"""Which matrices of which layers have changed, and by how much."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    Look,
    panels,
    styled,
)
from interp_unlearn.figures.tables import require_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROLES = {
    "attn.q": Look("attn.q", BLUE, "o", "-"),
    "attn.k": Look("attn.k", SKY_BLUE, "s", "--"),
    "attn.v": Look("attn.v", GREEN, "^", "-."),
    "attn.qkv": Look("attn.qkv", BLUE, "P", "-"),
    "attn.o": Look("attn.o", BLACK, "D", ":"),
    "mlp.gate": Look("mlp.gate", ORANGE, "v", "--"),
    "mlp.up": Look("mlp.up", PURPLE, "<", "-."),
    "mlp.gate_up": Look("mlp.gate_up", ORANGE, "X", "--"),
    "mlp.down": Look("mlp.down", VERMILLION, ">", "-"),
}


def plot_weight_delta(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """By layer and role of the matrix: left the relative size of the change, right its effective rank.

    Caveat: a small change may matter more than a large one; the rank is largely the optimiser's doing.

    Args:
        df: the table of `drift.weight_delta`: tensor, layer (null outside the blocks), role (null but for a block's
            matrices), relative_change, effective_rank, full_rank.
        ax: two Axes, or None for a new figure, which also gets the legend.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or no matrix of a block has changed.
    """
    columns = ["tensor", "layer", "role", "relative_change", "effective_rank", "full_rank"]
    require_columns(df, columns, "plot_weight_delta")
    table = df.loc[df["role"].notna()].sort_values("layer")
    if table.empty:
        raise ArtifactError(f"plot_weight_delta: of {len(df)} changed tensors none is a block's matrix; read the table")
    layers = sorted({int(layer) for layer in table["layer"]})
    span = range(layers[0], layers[-1] + 1)
    step = -(-len(span) // 9)
    with styled():
        figure, (left, right) = panels(1, 2, 3.1, ax, share=False)
        for role, look in _ROLES.items():
            own = table.loc[table["role"] == role].to_dict("list")
            style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": look.line}
            if own["layer"]:
                left.plot([int(layer) for layer in own["layer"]], own["relative_change"], label=look.label, **style)
                right.plot([int(layer) for layer in own["layer"]], own["effective_rank"], **style)
        left.set_ylim(0, 1.1 * max(v for v in table["relative_change"] if v < float("inf")))
        right.set_yscale("log")
        right.set_ylim(0.8, 1.3 * float(table["full_rank"].max()))
        right.axhline(float(table["full_rank"].max()), color=GREY, linewidth=0.6)
        left.set_title("size $||W - W_0|| \\, / \\, ||W_0||$", loc="left")
        right.set_title("effective rank (line: full)", loc="left")
        for axis in (left, right):
            axis.set_xticks(list(span)[::step])
            axis.set_xlim(span[0] - 0.5, span[-1] + 0.5)
            axis.set_xlabel("layer")
            axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        if ax is None:
            note = f"n = {len(table)} matrices of blocks, of {len(df)} changed tensors"
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, title=note)
    return figure
