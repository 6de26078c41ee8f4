"""What the figures ask of their tables: the columns, and the mean over seeds with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from interp_unlearn.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

EMBED = -1
"""Where the embedding stands on an axis of layers."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the ends of its interval."""

    mean: float
    low: float
    high: float
    seeds: int


Key = tuple[Any, ...]


def require_columns(frame: "pd.DataFrame", columns: Sequence[str], figure: str) -> None:
    """Refuse an empty table, or one without the columns a figure draws.

    Raises:
        ArtifactError: names what is missing.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise ArtifactError(f"{figure} needs the columns {', '.join(missing)}; its table has only {found}")
    if frame.empty:
        raise ArtifactError(f"{figure} got a table without rows; run the step that fills it first")


def over_seeds(frame: "pd.DataFrame", keys: Sequence[str], value: str) -> dict[Key, Estimate]:
    """Mean over seeds of ``value`` for each combination of ``keys``; rows without a value are left out.

    The interval is the widest of the table's own columns low and high where it has them (see `interval_name`),
    otherwise the range over seeds. Caveat: the range of a few seeds is no confidence interval, and says nothing of the
    sampling of prompts.
    """
    low, high = ("low", "high") if _has_interval(frame) else (value, value)
    estimates: dict[Key, Estimate] = {}
    for key, group in frame.dropna(subset=[value]).groupby(list(keys), sort=True):
        estimates[cast(Key, key)] = Estimate(
            mean=float(group[value].to_numpy(dtype=float).mean()),
            low=float(group[low].to_numpy(dtype=float).min()),
            high=float(group[high].to_numpy(dtype=float).max()),
            seeds=len(set(group["seed"].tolist())),
        )
    return estimates


def interval_name(frame: "pd.DataFrame") -> str:
    """What the ends of an Estimate from this table are."""
    return "95% interval" if _has_interval(frame) else "range over seeds"


def caption(frame: "pd.DataFrame", estimates: Mapping[Key, Estimate], mark: str | None = None) -> str:
    """What the marks of a figure are over: seeds, the interval drawn as ``mark``, and n where the table has it."""
    seeds = spelled_range([estimate.seeds for estimate in estimates.values()])
    parts = ["One seed" if seeds == "1" else f"Mean over {seeds} seeds"]
    if mark and any(estimate.high > estimate.low for estimate in estimates.values()):
        parts.append(f"{mark}: {interval_name(frame)}")
    for column, unit in (("n", "generations"), ("n_tokens", "tokens")):
        if column in frame.columns and frame[column].notna().to_numpy().all():
            parts.append(f"n = {spelled_range(frame[column].astype(int).tolist())} {unit} a seed")
    return "; ".join(parts)


def one_component(frame: "pd.DataFrame", figure: str) -> str:
    """The component all sites of the table share, the embedding apart; empty where there is nothing but the embedding.

    Raises:
        ArtifactError: there are several, which one axis of layers cannot hold.
    """
    components = sorted({str(site).partition(".")[2] for site in frame["site"] if "." in str(site)})
    if len(components) > 1:
        raise ArtifactError(f"{figure} draws one component, got {', '.join(components)}; filter the table by site")
    return components[0] if components else ""


def layer_positions(frame: "pd.DataFrame") -> list[int]:
    """Where each row's site stands on an axis of layers."""
    sites, layers = frame["site"].tolist(), frame["layer"].tolist()
    return [EMBED if str(site) == "embed" else int(layer) for site, layer in zip(sites, layers, strict=True)]


def layer_ticks(layers: Sequence[int], at_most: int) -> tuple[list[int], list[str]]:
    """Positions and labels of an axis of layers: the embedding always, of a deep model only every so many layers."""
    embed, blocks = sorted({*layers} & {EMBED}), sorted({*layers} - {EMBED})
    step = max(1, -(-len(blocks) // at_most))
    ticks = embed + blocks[step if embed and step > 1 else 0 :: step]  # room beside the embedding's label
    return ticks, ["emb" if layer == EMBED else str(layer) for layer in ticks]


def spelled_range(numbers: Sequence[int]) -> str:
    """One number where all are alike, else the smallest "to" the largest."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _has_interval(frame: "pd.DataFrame") -> bool:
    return {"low", "high"} <= set(frame.columns) and bool(frame[["low", "high"]].notna().to_numpy().all())
