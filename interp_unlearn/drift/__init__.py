"""How far a model has moved from its original."""

from interp_unlearn.drift.displacement import measure_drift

__all__ = ["measure_drift"]
