"""`score`: how well a classifier tells labelled texts apart, before its numbers are trusted."""

from typing import Annotated

import typer

from interp_unlearn.cli import options


def score(
    scorer: Annotated[str, typer.Argument(metavar="SCORER", help=options.SCORER_HELP)],
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    device: options.DeviceOption = "cpu",
) -> None:
    """Score labelled texts by a classifier: AUROC, accuracy, Brier score, calibration. Writes numbers, never a text."""
    import pandas as pd

    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import open_scorers, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.evaluation import classifier_quality, score_texts

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    require_both_classes(texts, data)
    opened = open_scorers([scorer], device)[0]
    identity = {
        "task": "score",
        "scorer": opened.describe(),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "layout": layout,
        "limit": limit,
        "skip": skip,
        "seed": seed,
    }
    with run_folder(out, identity) as folder:
        scores = score_texts(opened, texts.texts, progress=True)
        table = classifier_quality(scores.probabilities, texts.labels, texts.groups, seed=seed)
        table = table.assign(n_truncated=scores.truncated)
        write_parquet(folder / "quality.parquet", table)
        columns = {"label": texts.labels, "group": texts.groups, "probability": scores.probabilities}
        write_parquet(folder / "scores.parquet", pd.DataFrame(columns))
    show_table(table)
    show_written(out)
