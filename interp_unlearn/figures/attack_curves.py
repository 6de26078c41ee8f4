"""How what was unlearned comes back as an attacker trains on."""

import json
from typing import TYPE_CHECKING, Any

from interp_unlearn.errors import ArtifactError
from interp_unlearn.figures.attacks import ATTACK_NAMES
from interp_unlearn.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, VERMILLION, panels, styled
from interp_unlearn.figures.tables import require_columns, spelled_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ["attack", "setting", "step", "score", "low", "high", "original", "unlearned", "n"]
_LINES: tuple[tuple[str, str, Any], ...] = (
    (BLUE, "o", "-"),
    (VERMILLION, "s", "--"),
    (GREEN, "^", ":"),
    (PURPLE, "d", "-."),
    (ORANGE, "v", (0, (5, 1, 1, 1))),
    (SKY_BLUE, "P", (0, (1, 1))),
)


def plot_attack_curves(df: "pd.DataFrame", ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
    """Score by training step, a panel an attack that trains, a line a setting; original and unlearned model across.

    Caveat: a model that never learned the target learns some of it under the same attack, too.

    Args:
        df: attempts of `attacks.AttackResult`: attack, setting (JSON), step, score, low, high, original, unlearned, n;
            attempts without a step or a score are left out.
        ax: one Axes an attack, or None for a new figure.

    Returns:
        The figure drawn on.

    Raises:
        ArtifactError: a column is missing, or no attack has steps.
    """
    require_columns(df, _COLUMNS, "plot_attack_curves")
    table = df.dropna(subset=["step", "score"])
    attacks = [name for name in ATTACK_NAMES if name in set(table["attack"])]
    if not attacks:
        raise ArtifactError("plot_attack_curves found no attack with steps; run one that trains, such as relearn")
    with styled():
        figure, axes = panels(1, len(attacks), 2.6, ax)
        for axis, attack in zip(axes, attacks, strict=True):
            part = table.loc[table["attack"] == attack]
            for place, setting in enumerate(dict.fromkeys(part["setting"])):
                color, marker, line = _LINES[place % len(_LINES)]
                rows = part.loc[part["setting"] == setting].sort_values("step")
                steps = rows["step"].astype(int)
                axis.plot(
                    steps, rows["score"], color=color, marker=marker, linestyle=line, label=_spelled(str(setting))
                )
                axis.vlines(steps, rows["low"], rows["high"], color=color)
            axis.axhline(part["original"].mean(), color=GREY, linestyle=":")
            axis.axhline(part["unlearned"].mean(), color=BLACK, linewidth=0.6)
            axis.set_xticks(sorted(set(part["step"].astype(int))))
            axis.set_title(ATTACK_NAMES[attack].replace(", ", ",\n"), loc="left")
            axis.set_xlabel(f"steps (n = {spelled_range(part['n'].astype(int).tolist())})")
            axis.legend()
        axes[0].set_ylabel("score")
        if ax is None:
            note = "bars: 95% interval; dotted: original; thin: unlearned, before any attack"
            figure.legend(handles=[], loc="outside lower center", title=note)
    return figure


def _spelled(setting: str) -> str:
    """A setting, shortly: its rate, or all of it."""
    known = json.loads(setting)
    rate = known.get("learning_rate")
    return setting if rate is None else f"rate {rate:g}"
