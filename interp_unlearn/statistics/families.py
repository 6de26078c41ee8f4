"""P-values of several tests that together carry one claim."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp_unlearn.errors import ConfigError


def holm(p_values: ArrayLike) -> Float[np.ndarray, " test"]:
    """Adjusted p-values of a family of tests, in the order given; strong control of the family-wise error (Holm 1979).

    Caveat: a family is named before its results are seen; leaving out the tests that failed makes every p too small.

    Raises:
        ConfigError: there are none, or one does not lie between 0 and 1.
    """
    values = np.atleast_1d(np.asarray(p_values, dtype=float))
    if values.ndim != 1 or not len(values) or not np.all((values >= 0) & (values <= 1)):
        raise ConfigError(f"holm needs p-values between 0 and 1 in one row, got {np.asarray(p_values).tolist()}")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
