"""The rows that a measure's tables become, each number, band and count against tables written by hand."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from interp_unlearn.drift.measures import MEASURES
from interp_unlearn.drift.summary import COLUMNS, joined, refused, summarise

AT = {"site": "3.resid_post", "layer": 3, "corpus": "forget"}
PLACE = {"place": "3.resid_post", "layer": 3, "corpus": "forget"}
SAID = ("measure", "evidence", "cannot_show", "small_models")  # of the measure, whatever it found
NEVER_KNEW = "a model that never knew, 95%"

Table = list[dict[str, Any]]
CASES: list[tuple[str, dict[str, Table], Table]] = [
    (
        "unlearning_depth",
        {
            "score": [{"score": 0.4, "low": 0.3, "high": 0.5, "n": 7, "reason": None}],
            "texts": [{"text": number} for number in range(9)],
            "unlearning_depth": [AT | {"erasure": 0.25, "encoding": 0.7}, AT | {"erasure": None, "encoding": 0.0}],
        },
        [
            {"quantity": "unlearning depth", "place": "all", "value": 0.4, "low": 0.3, "high": 0.5, "n": 7}
            | {"counted": "texts that the original knows better"},
            PLACE
            | {"quantity": "erasure at the layer", "value": 0.25, "n": 6, "counted": "texts that count at the layer"},
        ],
    ),
    (
        "weight_delta",
        {
            "count": [{"n_tensors": 12, "n_changed": 2}],
            "weight_delta": [
                {"tensor": "a", "layer": 2, "elements": 64, "relative_change": 0.1}
                | {"effective_rank": 1.5, "input_energy": 0.8, "input_energy_null": 0.2},
                {"tensor": "b", "layer": None, "elements": 8, "relative_change": 0.2},
            ],
        },
        [
            {"quantity": "changed tensors", "place": "all", "value": 2.0, "n": 12, "counted": "tensors"},
            {"quantity": "relative change", "place": "a", "layer": 2, "value": 0.1, "n": 64, "counted": "numbers"},
            {"quantity": "effective rank of the change", "place": "a", "layer": 2, "value": 1.5, "n": 64}
            | {"counted": "numbers"},
            {"quantity": "energy on activation components", "place": "a", "layer": 2, "value": 0.8, "null_high": 0.2}
            | {"n": 64, "counted": "numbers", "null": "a change without regard to the activations"},
            {"quantity": "relative change", "place": "b", "value": 0.2, "n": 8, "counted": "numbers"},
        ],
    ),
    (
        "determinism",
        {
            "determinism": [{"n_tokens": 20}, {"n_tokens": 50}],
            "result": [{"passed": True, "first_tensor": "x.weight", "largest_below": 0.0}, {"first_tensor": "y"}],
        },
        [
            {"quantity": "largest difference before the first change", "place": "x.weight", "value": 0.0}
            | {"null_low": 0.0, "null_high": 0.0, "null": "exactly 0, or no drift can be believed"}
            | {"n": 50, "counted": "tokens"},
            {"quantity": "largest difference before the first change", "place": "y", "n": 50, "counted": "tokens"}
            | {"null_low": 0.0, "null_high": 0.0, "null": "exactly 0, or no drift can be believed"}
            | {"reason": "no site that was read lies before the first change"},
        ],
    ),
    (
        "displacement",
        {"displacement": [AT | {"n_tokens": 30, "relative_displacement": 0.6}]},
        [PLACE | {"quantity": "relative displacement", "value": 0.6, "n": 30, "counted": "tokens"}],
    ),
    (
        "massive_activations",
        {
            "massive_activations": [
                AT
                | {
                    "ratio": 201.0,
                    "ratio_changed": 190.0,
                    "relative_displacement_without": 0.3,
                    "n_tokens": 50,
                    "d": 64,
                }
            ]
        },
        [
            PLACE
            | {"quantity": "largest over median dimension, original", "value": 201.0, "n": 64, "counted": "dimensions"},
            PLACE
            | {"quantity": "largest over median dimension, unlearned", "value": 190.0, "n": 64}
            | {"counted": "dimensions"},
            PLACE
            | {"quantity": "relative displacement without massive dimensions", "value": 0.3, "n": 50}
            | {"counted": "tokens"},
        ],
    ),
    (
        "spectrum",
        {
            "spectrum": [
                AT
                | {"n_tokens": 30, "share": 0.9, "null_share_high": 0.1}
                | {"effective_rank": 1.2, "null_effective_rank_low": 8.0},
                AT | {"n_tokens": 0, "share": None},
            ]
        },
        [
            PLACE
            | {"quantity": "share of the main direction", "value": 0.9, "null_high": 0.1, "n": 30, "counted": "tokens"}
            | {"null": "each token along a direction of its own, 95%"},
            PLACE
            | {"quantity": "effective rank", "value": 1.2, "null_low": 8.0, "n": 30, "counted": "tokens"}
            | {"null": "each token along a direction of its own, 95%"},
        ],
    ),
    (
        "cka",
        {"cka": [AT | {"n_tokens": 30, "cka": 0.7, "null_low": -0.1, "null_high": 0.2}]},
        [
            PLACE
            | {"quantity": "debiased CKA", "value": 0.7, "null_low": -0.1, "null_high": 0.2, "n": 30}
            | {"counted": "tokens", "null": "permuted tokens, central 95%"}
        ],
    ),
    (
        "angles",
        {
            "angles": [
                AT
                | {"angle": angle, "first": "probe", "second": "displacement", "degrees": 10.0 * angle, "d": 16}
                | {"null_low": 60.0, "null_high": 80.0}
                for angle in (1, 2)
            ]
        },
        [
            PLACE
            | {"quantity": "smallest angle, probe and displacement (degrees)", "value": 10.0, "n": 16}
            | {"counted": "dimensions", "null_low": 60.0, "null_high": 80.0, "null": "random subspaces, central 95%"}
        ],
    ),
    *(
        (
            name,
            {
                "lens": [
                    AT | {"model": "original", "log_probability": -1.0, "low": -2.0, "high": -0.5, "n": 4},
                    AT | {"model": "twin", "log_probability": -5.0, "low": -6.0, "high": -4.0, "n": 4},
                    AT | {"model": "unlearned", "log_probability": -3.0, "low": -4.0, "high": -2.0, "n": 4},
                    AT | {"site": "4.resid_post", "layer": 4, "model": "original", "log_probability": -1.5, "n": 4},
                ]
            },
            [
                PLACE
                | {"quantity": "log-probability of the answer, original", "value": -1.0, "low": -2.0, "high": -0.5}
                | {"n": 4, "counted": "prompts", "null_low": -6.0, "null_high": -4.0, "null": NEVER_KNEW},
                PLACE
                | {"quantity": "log-probability of the answer, unlearned", "value": -3.0, "low": -4.0, "high": -2.0}
                | {"n": 4, "counted": "prompts", "null_low": -6.0, "null_high": -4.0, "null": NEVER_KNEW},
                {"place": "4.resid_post", "layer": 4, "corpus": "forget", "value": -1.5, "n": 4, "counted": "prompts"}
                | {"quantity": "log-probability of the answer, original"},
            ],
        )
        for name in ("logit_lens", "tuned_lens")
    ),
    (
        "retrained_probes",
        {
            "retrained_probes": [
                AT
                | {"model": "changed", "probe": "retrained", "auroc": 0.8, "low": 0.7, "high": 0.9, "n": 40}
                | {"auroc_shuffled": 0.52},
                AT | {"model": "never_knew", "probe": "retrained", "auroc": 0.6, "low": 0.55, "high": 0.65, "n": 40},
                AT | {"model": "never_knew", "probe": "original", "auroc": 0.5, "low": 0.1, "high": 0.2, "n": 40},
                {"site": "4.resid_post", "layer": 4, "corpus": "forget", "model": "original", "probe": "original"}
                | {"auroc": 0.95, "n": 40, "auroc_shuffled": 0.49},
                {"site": "5.resid_post", "layer": 5, "corpus": "forget", "model": "original", "probe": "original"}
                | {"auroc": 0.96, "n": 40},
            ]
        },
        [
            PLACE
            | {"quantity": "AUROC of the retrained probe on the unlearned model", "value": 0.8, "low": 0.7, "high": 0.9}
            | {"n": 40, "counted": "texts", "null_low": 0.55, "null_high": 0.65, "null": NEVER_KNEW},
            {"place": "4.resid_post", "layer": 4, "corpus": "forget", "value": 0.95, "n": 40, "counted": "texts"}
            | {"quantity": "AUROC of the original probe on the original model"}
            | {"null_low": 0.49, "null_high": 0.49, "null": "shuffled labels"},
            {"place": "5.resid_post", "layer": 5, "corpus": "forget", "value": 0.96, "n": 40, "counted": "texts"}
            | {"quantity": "AUROC of the original probe on the original model"},
        ],
    ),
]


def rows_of(table: pd.DataFrame) -> Table:
    """The rows without what is missing, and without what the measure says of itself."""
    return [
        {name: value for name, value in row.items() if name not in SAID and not pd.isna(value)}
        for row in table.to_dict("records")
    ]


@pytest.mark.parametrize(("name", "tables", "expected"), CASES, ids=[case[0] for case in CASES])
def test_rows_of_tables_written_by_hand(name: str, tables: Mapping[str, Table], expected: Table) -> None:
    found = summarise(name, {key: pd.DataFrame(rows) for key, rows in tables.items()})
    assert rows_of(found) == expected
    assert tuple(found.columns) == COLUMNS
    measure = MEASURES[name]
    assert set(found["measure"]) == {name}
    assert set(found["evidence"]) == {measure.evidence} and set(found["cannot_show"]) == {measure.cannot_show}
    if measure.small_models is None:
        assert found["small_models"].isna().all()
    else:
        assert set(found["small_models"]) == {f"carries little in small models: {measure.small_models}"}


def test_every_measure_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(MEASURES)


def test_what_is_refused_joins_what_was_measured() -> None:
    measured = summarise(
        "displacement", {"displacement": pd.DataFrame([AT | {"n_tokens": 3, "relative_displacement": 1}])}
    )
    table = joined([measured, refused("cka", "too few tokens")])
    assert rows_of(table)[1] == {"reason": "too few tokens"}
    assert table["measure"].tolist() == ["displacement", "cka"] and table["layer"].tolist() == [3, pd.NA]
    assert dict(table.dtypes.astype(str)) == dict(measured.dtypes.astype(str))
