"""Methods of unlearning beside each other: the same search, the same seeds, the same measures and attack."""

from interp_unlearn.study.comparison.compare import ComparisonConfig, compare_methods

__all__ = ["ComparisonConfig", "compare_methods"]
