"""Attempts to bring back what was unlearned."""

from interp_unlearn.attacks.relearn import RelearnConfig, relearn

__all__ = ["RelearnConfig", "relearn"]
