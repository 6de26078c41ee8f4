"""How every figure looks, and how it is saved: paper widths, 8 to 9 pt text, Okabe-Ito colours with a second code."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.artifacts import replaced
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_WIDTH = 5.5
"""Inches: the text width of a NeurIPS page."""

BLACK, ORANGE, SKY_BLUE, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe and Ito's colours, told apart under the common kinds of colour blindness."""

GREY = "#666666"

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so a figure is the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """The name of an objective in a figure, its colour, and the marker and line style that say the same again."""

    label: str
    color: str
    marker: str
    line: Any  # a matplotlib line style: a name or a dash pattern


_TWIN = Look("twin (never learned)", BLACK, "s", "-")
_ORIGINAL = Look("original model", GREY, "o", ":")
_LOOKS: dict[str, Look] = {
    "none": _ORIGINAL,
    "original": _ORIGINAL,
    "knows_all": _ORIGINAL,
    "twin": _TWIN,
    "never_knew": _TWIN,
    "never_toxic": _TWIN,
    "oracle": Look("oracle (twin distilled)", PURPLE, "P", "-"),
    "random_single": Look("random, one layer", VERMILLION, "v", "--"),
    "random_multi": Look("random, several layers", VERMILLION, "^", "-"),
    "probe_single": Look("probe, one layer", BLUE, "<", "--"),
    "probe_multi": Look("probe, several layers", BLUE, ">", "-"),
    "rmu": Look("RMU", ORANGE, "d", "--"),
    "cosine_rmu": Look("cosine RMU", ORANGE, "D", "-"),
    "cosine_rmu_meta": Look("cosine RMU, adversary", ORANGE, "H", ":"),
    "hardened": Look("hardened", BLUE, "8", ":"),
    "counterfactual": Look("counterfactual", GREEN, "p", "--"),
    "dpo": Look("DPO", VERMILLION, "h", "-."),
    "distilled": Look("edit distilled", GREEN, "X", "-"),
    "civil_finetuning": Look("civil fine-tuning", SKY_BLUE, "*", "-"),
}
_SPELLED = {
    "cir": "CIR",
    "grad_diff": "GradDiff",
    "mudman": "MUDMAN",
    "npo": "NPO",
    "profs": "ProFS",
    "rmu_lat": "RMU, latent adversary",
    "simnpo": "SimNPO",
    "undo": "UNDO",
}
_SPARE_LINES = ("-.", (0, (1, 1)), (0, (5, 1, 1, 1)))

_GOALS = {"knowledge": "Knowledge", "toxicity": "Toxicity"}
_UNITS = {"knowledge": "subjects", "toxicity": "scenes"}


def in_order(objectives: Iterable[str]) -> list[str]:
    """Objectives in the order of every figure: references, oracle, the factorial, recipes, baselines, then the rest."""
    order = list(_LOOKS)
    return sorted(set(objectives), key=lambda name: (order.index(name) if name in _LOOKS else len(order), name))


def looks_of(objectives: Sequence[str]) -> dict[str, Look]:
    """The look of each objective; names without one are drawn in black with spare line styles."""
    strangers = [name for name in objectives if name not in _LOOKS]
    markers = "1234x+|_"
    spare = {
        name: Look(
            _SPELLED.get(name, name.replace("_", " ")),
            BLACK,
            markers[i % len(markers)],
            _SPARE_LINES[i % len(_SPARE_LINES)],
        )
        for i, name in enumerate(strangers)
    }
    return {name: _LOOKS.get(name) or spare[name] for name in objectives}


def legend_handles(objectives: Sequence[str]) -> "list[Artist]":
    """One legend entry an objective, whether or not a panel shows it."""
    from matplotlib.lines import Line2D

    looks = looks_of(objectives).values()
    return [Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line, label=k.label) for k in looks]


def goals_in_order(goals: Iterable[str]) -> list[str]:
    """Knowledge, toxicity, then any other goal by name."""
    order = list(_GOALS)
    return sorted(set(goals), key=lambda name: (order.index(name) if name in _GOALS else len(order), name))


def goal_title(goal: str) -> str:
    """The heading of a goal's panels."""
    return _GOALS.get(goal, goal.replace("_", " "))


def unit_of(goal: str) -> str:
    """What is resampled of a goal."""
    return _UNITS.get(goal, "groups")


def styled() -> AbstractContextManager[None]:
    """The package's matplotlib settings, for the duration of a block: the caller's own are left alone."""
    import matplotlib

    return matplotlib.rc_context(_RC)


def new_figure(height: float) -> "Figure":
    """An empty figure of text width, `height` inches high.

    It is not registered with pyplot, so drawing many leaks nothing; a notebook shows the returned figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(
    rows: int, columns: int, height: float, ax: "Axes | Sequence[Axes] | None", share: bool = True
) -> "tuple[Figure, list[Axes]]":
    """The axes to draw on, row by row: the caller's, or those of a new figure of text width.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        height: inches, of a new figure.
        ax: the caller's axes, as many as there are panels, or None.
        share: whether the panels of a new figure have the same scales.

    Raises:
        ConfigError: the caller's axes are not as many as the panels, or lie on no figure.
    """
    if ax is None:
        figure = new_figure(height)
        return figure, list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    given = list(ax) if isinstance(ax, Iterable) else [ax]
    if len(given) != rows * columns:
        raise ConfigError(f"got {len(given)} axes for {rows} x {columns} panels; pass one a panel, or ax=None")
    figure = given[0].get_figure(root=True)
    if figure is None:
        raise ConfigError("the axes given belong to no figure; make them with figure.subplots()")
    return figure, given


def save_figure(figure: "Figure", path: str | Path) -> tuple[Path, Path]:
    """Save as vector PDF (TrueType text, no dates) and as 300-dpi PNG, named by ``path`` with its suffix replaced.

    What the figure says of its n and intervals is the file's description (PNG) and subject (PDF), for a caption.
    Drawing the same table again with the same libraries gives the same bytes.

    Returns:
        The paths of the PDF and of the PNG.
    """
    pdf, png = Path(path).with_suffix(".pdf"), Path(path).with_suffix(".png")
    notes = notes_of(figure)
    with styled():
        with replaced(pdf) as temporary:
            figure.savefig(temporary, format="pdf", metadata={"CreationDate": None, "Subject": notes})
        with replaced(png) as temporary:
            figure.savefig(temporary, format="png", dpi=300, metadata={"Description": notes})
    return pdf, png


def notes_of(figure: "Figure") -> str:
    """What a figure says of its n, bars and bands: the titles of its legends, and whatever else has an n."""
    said = [legend.get_title().get_text() for legend in figure.legends]
    for axis in figure.axes:
        said += [text for text in (axis.get_title("left"), axis.get_title(), axis.get_xlabel()) if "n = " in text]
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in said if text.strip()))
