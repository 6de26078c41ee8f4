"""The versions that numbers depend on, and of runs that go on under others than they were begun with."""

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

logger = logging.getLogger(__name__)

ENVIRONMENT = "environment"
EARLIER = "earlier_environments"
RECORDED_PACKAGES = (
    "interp-unlearn",
    "torch",
    "transformers",
    "transformer-lens",
    "nnsight",
    "scikit-learn",
    "numpy",
    "pandas",
)


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, read from metadata without importing them."""
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def environments_since(begun: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The entries of a record that say under which versions a run is made, now that it goes on.

    A run that goes on under other versions is not refused: a new release must not cost a day of compute. But a warning
    names what differs, and the record keeps every environment before this one beside it.

    Args:
        begun: the record as it was found; its environment, and earlier ones if there are any.
        place: named in the warning.

    Returns:
        `environment`, and `earlier_environments` where there were others.
    """
    now, before, earlier = environment(), begun.get(ENVIRONMENT), begun.get(EARLIER)
    kept: list[Any] = [*cast(list[Any], earlier)] if isinstance(earlier, list) else []
    if isinstance(before, dict) and before != now:
        there = cast(dict[str, Any], before)
        names = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
        logger.warning(
            "%s goes on under other versions than it was begun with (%s): what is there stays, so the whole need not "
            "be bit for bit what one version makes",
            place,
            ", ".join(f"{name} {there.get(name)} there, {now.get(name)} here" for name in names),
        )
        kept.append(there)
    return {ENVIRONMENT: now} | ({EARLIER: kept} if kept else {})
