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


def environments_since(last: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The entries of a record that say under which versions a run is made, now that it goes on.

    A run that goes on under other versions is not refused: a new release must not cost a day of compute. But a warning
    names what differs, and the record keeps every other environment that a part of it may have been made under.

    Args:
        last: the record as it was found; its environment, and earlier ones if there are any.
        place: named in the warning.

    Returns:
        `environment`, of the last that wrote there, and `earlier_environments` where there were others.
    """
    now, before, earlier = environment(), last.get(ENVIRONMENT), last.get(EARLIER)
    others: list[Any] = [*cast(list[Any], earlier)] if isinstance(earlier, list) else []
    if isinstance(before, dict) and before != now:
        there = cast(dict[str, Any], before)
        names = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
        logger.warning(
            "%s goes on under other versions than it was last written under (%s): what was finished before is theirs, "
            "so the whole need not be bit for bit what one version makes",
            place,
            ", ".join(f"{name} {there.get(name, 'unknown')} there, {now.get(name, 'none')} here" for name in names),
        )
        others.append(there)
    others = [each for number, each in enumerate(others) if each != now and each not in others[:number]]
    return {ENVIRONMENT: now} | ({EARLIER: others} if others else {})
