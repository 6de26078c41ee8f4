"""What the fuzzers share: values of every kind, and the one thing that is asked of whatever is given to the package."""

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from interp_unlearn.errors import InterpError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
JSON = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=5,
)


def bounded(examples: int) -> settings:
    """The same examples in every run, so that a failure is never a matter of luck; FUZZ_TIMES=20 draws more, anew."""
    times = int(os.environ.get("FUZZ_TIMES", "1"))
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples * times,
        derandomize=times == 1,
        database=None,
        deadline=None,
        suppress_health_check=slow,
    )


def read_or_refused(act: Callable[[], object]) -> None:
    """Anything but success or an error of the package, of one line, fails the test."""
    try:
        act()
    except InterpError as error:
        assert len(str(error).splitlines()) == 1, repr(str(error))
