"""Which columns of a table hold texts: what models were asked and what they said, toxic ones among them."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TEXT_NAMES = frozenset(
    "answer answers chat choices completion completions context continuation document example generation messages "
    "neutral prompt prompts question reply response sentence source target_text text texts title token token_text "
    "tokens toxic utterance word words".split()
)
_PROSE = re.compile(r"(?:^|\s)(?:[^\W\d_]+['’]?[^\W\d_]*[,.;:!?]?\s+){4}")


def text_columns(frame: "pd.DataFrame") -> list[str]:
    """Columns of a table that hold texts: strings under a name of `TEXT_NAMES`, or a string that reads as prose.

    Prose is four words in a row, so a column under any other name is found out too, unless it holds only shorter
    texts. Lists count as texts, since it is tokens that tables keep in them.

    Caveat: a rule of thumb. A short text under a name that is not known is not recognised.
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    found: list[str] = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]  # by position: two columns may bear one name
        if is_numeric_dtype(column) or is_bool_dtype(column):
            continue
        values = [value for value in column.tolist() if value is not None]
        strings = [value for value in values if isinstance(value, str)]
        lists = any(hasattr(value, "__len__") and not isinstance(value, str) for value in values)
        if lists or (strings and (str(name).lower() in TEXT_NAMES or any(map(_PROSE.search, set(strings))))):
            found.append(str(name))
    return found
