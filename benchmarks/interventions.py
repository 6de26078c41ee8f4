"""The intervention layer and activation collection: which measurements make up the page, and what is promised."""

import pandas as pd

from benchmarks import collecting, memory, reading
from benchmarks.page import Bar, Section, ratio_columns

OURS = "all resid_post, backend torch"


def measure_reading() -> pd.DataFrame:
    """A middling model, and one so small that only the fixed cost of a call is seen."""
    return pd.concat(
        [reading.measure("gpt2_small", 8, 64, rounds=25), reading.measure("gpt2_tiny", 1, 16, rounds=40, calls=10)]
    )


def measure_collecting() -> pd.DataFrame:
    """Pooling and writing; ragged text where the data is there."""
    parts = [
        collecting.measure_writing("gpt2_small", 64, rounds=20, batch_tokens=2048),
        collecting.measure_ragged("gpt2_small", 256, rounds=20),
    ]
    return pd.concat([part for part in parts if part is not None])


def measure_memory() -> pd.DataFrame:
    return memory.measure()


def describe_reading(rows: pd.DataFrame) -> list[Section]:
    """Sections on single passes."""
    sections: list[Section] = []
    for shape, title in (("gpt2_small", "Reading, GPT-2 shape"), ("gpt2_tiny", "Fixed cost of a call, tiny model")):
        table = rows[rows["shape"] == shape]
        ratio = dict(zip(table["what"], table["ratio"], strict=True))
        if shape == "gpt2_tiny":
            bars = (Bar("all resid_post, against the body", ratio[OURS], highest=1.3),)
            text = "4 layers, width 64, one short row: nearly all of it is Python."
            table = table[~table["what"].str.startswith("to layer")]
        else:
            text = (
                "12 layers, width 768, float32. The baseline is the body without the unembedding. Every way reads the "
                "same tensors. Ours and nnsight's end after the last block; `run_with_cache` of TransformerLens goes "
                "on to the logits whatever `stop_at_layer` says, so that no bar is set against it."
            )
            bars = _reading_bars(table, ratio)
        batch = table["batch"].iloc[0]
        sections.append(Section(title, f"{text} Batch of {batch} tokens.", ratio_columns(table), bars))
    return sections


def describe_collecting(rows: pd.DataFrame) -> list[Section]:
    """Sections on whole collections."""
    ragged = rows["batch"].str.contains("ParaDetox")
    writing, text = rows[~ragged], rows[ragged]
    to_disk = writing.loc[writing["what"] == "collect, to disk", "ratio"].iloc[0]
    sections = [
        Section(
            "Pooling and writing",
            "`collect` of all resid_post, mean over tokens, tokenising and the table of rows included, beside bare "
            f"passes over the same tokens. {writing['batch'].iloc[0]}.",
            ratio_columns(writing),
            (Bar("collect to disk, against bare passes", to_disk, highest=1.15),),
        )
    ]
    if len(text):
        shown = ratio_columns(text)
        shown["padding"] = text["padding"].map("{:.0%}".format)
        gain = text.loc[text["what"].str.startswith("file order"), "ratio"].iloc[0]
        sections.append(
            Section(
                "Ragged text",
                "`collect` sorts by length and fills a budget of tokens. Beside it, the same reads and pooling in "
                f"batches of 32 in file order, tokenised beforehand. {text['batch'].iloc[0]}, GPT-2 shape.",
                shown,
                (Bar("file order, against collect", gain, lowest=1.5),),
            )
        )
    return sections


def describe_memory(rows: pd.DataFrame) -> list[Section]:
    """The section on memory."""
    shown = pd.DataFrame(
        {
            "short texts": rows["texts"].map("{:,.0f}".format),
            "peak memory, MB": rows["peak_mb"].map("{:,.0f}".format),
            "added, MB": rows["added_mb"].map("{:,.0f}".format),
        }
    )
    added = float(rows["added_mb"].iloc[-1])
    bar = Bar("100,000 texts more than 1,000, MB", added, highest=200)
    text = "`collect` of the residual stream of the organism to disk, each in a process of its own; peak resident set."
    return [Section("Memory", text, shown, (bar,))]


def _reading_bars(table: pd.DataFrame, ratio: dict[str, float]) -> tuple[Bar, ...]:
    bars = [Bar("all resid_post, against the body", ratio[OURS], highest=1.10)]
    other = ratio.get("all resid_post, trace of nnsight")
    if other is not None:
        bars.append(Bar("the same, against trace of nnsight", ratio[OURS] / other, highest=1.0))
    early = table[table["what"].str.startswith("to layer")]
    for what, share in zip(early["what"], early["share_of_layers"], strict=True):
        bars.append(Bar(f"{what}, by its share of the layers", ratio[what] / share, lowest=0.9, highest=1.1))
    return tuple(bars)
