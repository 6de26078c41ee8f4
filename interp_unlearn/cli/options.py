"""Options that several verbs share, so that they are named and explained alike."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """Public data layouts that hold what is to be forgotten, and for some what is not."""

    pairs = "pairs"
    prompts = "prompts"
    texts = "texts"
    facts = "facts"


class Dtype(StrEnum):
    """Number formats of weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


SCORER_HELP = "Sequence classifier: directory or hub id, with #LABEL behind it where its toxic label is not plain."
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Directory in Hugging Face layout, or hub id.")]
AgainstOption = Annotated[str, typer.Option("--against", metavar="MODEL", help="The original model to compare with.")]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Target texts: a file of toxic/neutral pairs (ParaDetox TSV), of scored prompts (RealToxicityPrompts "
        "jsonl; target from toxicity 0.5), of plain texts (.jsonl with 'text', or a text a line), or of facts (TOFU's "
        "JSON lines with question and answer).",
    ),
]
LayoutOption = Annotated[Layout, typer.Option("--layout", help="Layout of --data.")]
NeutralOption = Annotated[
    Path | None, typer.Option("--neutral", help="Plain texts of the other class, for the layouts texts and facts.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Rows (pairs) used of each file but --retain; default: all."),
]
SkipOption = Annotated[
    int, typer.Option("--skip", min=0, help="Rows (pairs) passed over first, to evaluate on rows not trained on.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; one that holds another run is refused.")]
ProbesOption = Annotated[Path | None, typer.Option("--probes", help="Folder that `probe` wrote.")]
ScorersOption = Annotated[list[str], typer.Option("--scorer", help=f"{SCORER_HELP} Repeat it: a claim takes two.")]
SiteOption = Annotated[
    list[str] | None,
    typer.Option("--site", help="For example 5.resid_post, or embed; repeat it. Default: embed, every resid_post."),
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, help="Texts in a pass.")]
MaxLengthOption = Annotated[int | None, typer.Option("--max-length", min=2, help="Tokens kept of a text.")]
DeviceOption = Annotated[str, typer.Option("--device", help="Where the model runs: cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Format of the weights; default: what config.json states.")
]
