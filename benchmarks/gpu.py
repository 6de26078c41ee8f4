"""The same at the shape of an 8B Llama in bfloat16, where there is a GPU."""

import pandas as pd
import torch

from benchmarks import collecting, reading
from benchmarks.page import Section, ratio_columns
from benchmarks.shapes import SHAPES
from benchmarks.timing import interleave

SHAPE = "llama_8b"
SETTINGS = {"device": "cuda", "dtype": "bfloat16"}


def measure_reading() -> pd.DataFrame | None:
    """Passes with reads, with the share of the rate that plain matrix products reach; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return _beside_peak(reading.measure(SHAPE, 16, 512, rounds=20, **SETTINGS))


def measure_collecting() -> pd.DataFrame | None:
    """Collections, pooled and written to disk; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return _beside_peak(collecting.measure_writing(SHAPE, 512, rounds=20, batch_tokens=16384, **SETTINGS))


def describe_reading(rows: pd.DataFrame) -> list[Section]:
    """The section on passes."""
    return [Section("8B shape on a GPU", _text(rows), _shown(rows))]


def describe_collecting(rows: pd.DataFrame) -> list[Section]:
    """The section on collections."""
    return [Section("Collecting at the 8B shape on a GPU", _text(rows), _shown(rows))]


def _beside_peak(table: pd.DataFrame) -> pd.DataFrame:
    peak = _matmul_rate()
    table["share_of_peak"] = 2 * _body_parameters() * table["tokens_per_second"] / peak
    return table.assign(matmul_flops=peak)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    shown = ratio_columns(rows)
    deep = rows["share_of_layers"].fillna(1.0) if "share_of_layers" in rows else 1.0
    shown["share of matmul peak"] = (rows["share_of_peak"] * deep).map("{:.0%}".format)
    return shown


def _text(rows: pd.DataFrame) -> str:
    return (
        f"32 layers, width 4096, random weights, bfloat16, {rows['batch'].iloc[0]}. The share is 2 x parameters x "
        "tokens/s (attention left out, so a lower bound), by the rate of an 8192-wide bfloat16 matrix product measured "
        f"there: {rows['matmul_flops'].iloc[0] / 1e12:,.0f} TFLOP/s."
    )


def _matmul_rate(width: int = 8192) -> float:
    """Operations a second of a large matrix product, the most that can be hoped for."""
    a, b = (torch.randn(width, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = interleave({"matmul": lambda: a @ b}, rounds=20)["matmul"].median()
    return 2 * width**3 / float(seconds)


def _body_parameters() -> int:
    """Weights in the blocks that every token is multiplied with."""
    config = SHAPES[SHAPE]
    heads = config.num_key_value_heads / config.num_attention_heads
    attention = 2 * config.hidden_size**2 * (1 + heads)
    return int(config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size))
