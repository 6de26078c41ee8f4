"""`exam` and `facts`: what a model knows, asked in several forms."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options

QuestionsArgument = Annotated[
    list[Path],
    typer.Option(
        "--questions", help="WMDP .json, MMLU .csv or a folder of such; repeat it. What is in them is not shown."
    ),
]


def exam(
    model: options.ModelArgument,
    questions: QuestionsArgument,
    out: options.OutOption,
    forms: Annotated[
        list[str] | None,
        typer.Option("--form", help="text, letter, choices_only or generation; repeat it. Default: all."),
    ] = None,
    harness: Annotated[
        bool, typer.Option("--harness", help="The letters through lm-evaluation-harness too (extra: harness).")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="First questions of each subject; all where not given.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of a free answer.")] = 32,
    skip_long: Annotated[
        bool,
        typer.Option(
            "--skip-long", help="Leave out questions longer than the context, before any limit; how many is said."
        ),
    ] = False,
    batch_size: options.BatchSizeOption = 64,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Ask multiple-choice questions by text, by letter, without the question, and freely. Accuracies with intervals."""
    from collections import Counter

    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import open_model
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.data import read_questions
    from interp_unlearn.evaluation import FORMS, fitting_questions, score_with_harness, take_exam

    asked = [question for path in questions for question in read_questions(path)]
    hooked = open_model(model, device, dtype)
    n_read = len(asked)
    if skip_long:
        asked = list(fitting_questions(hooked, asked, max_new_tokens))
    n_long = n_read - len(asked)
    if limit is not None:
        seen: Counter[str] = Counter()
        kept = []
        for question in asked:
            seen[question.subject] += 1
            if seen[question.subject] <= limit:
                kept.append(question)
        asked = kept
    files = sorted(file for path in questions for file in (path.glob("*.csv") if path.is_dir() else [path]))
    identity = {
        "task": "exam",
        "model_hash": hooked.hash(),
        "questions": [hash_file(file) for file in files],
        "forms": forms or list(FORMS),
        "harness": harness,
        "limit": limit,
        "max_new_tokens": max_new_tokens,
        "left_out": n_long,
    }
    with run_folder(out, identity) as folder:
        result = take_exam(
            hooked,
            asked,
            forms or FORMS,  # pyright: ignore[reportArgumentType] unknown names are refused there
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            progress=True,
        )
        result.save(folder)
        harnessed = score_with_harness(hooked, asked, batch_size=batch_size) if harness else None
        if harnessed is not None:
            write_parquet(folder / "harness.parquet", harnessed)
    table = result.to_frame()
    show_table(table.loc[table["subject"] == "all"])
    if n_long:
        typer.echo(f"{n_long} of {n_read} questions are longer than the context and were left out.")
    if harnessed is not None:
        typer.echo(f"lm-evaluation-harness, letter: accuracy {harnessed['correct'].mean():.4g}, n {len(harnessed)}")
    show_written(out)


def facts(
    model: options.ModelArgument,
    data: Annotated[Path, typer.Option("--data", help="JSON lines with question and answer, as TOFU has them.")],
    out: options.OutOption,
    limit: options.LimitOption = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of a free answer.")] = 64,
    batch_size: options.BatchSizeOption = 32,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Ask questions answered in sentences: probability, ROUGE-L recall, truth ratio. Writes numbers, never a text."""
    import pandas as pd

    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import open_model
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.data import read_facts
    from interp_unlearn.evaluation import score_facts
    from interp_unlearn.statistics import bootstrap_mean

    asked = read_facts(data)[:limit]
    hooked = open_model(model, device, dtype)
    identity = {
        "task": "facts",
        "model_hash": hooked.hash(),
        "data": hash_file(data),
        "limit": limit,
        "max_new_tokens": max_new_tokens,
    }
    with run_folder(out, identity) as folder:
        table = score_facts(hooked, asked, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=True)
        write_parquet(folder / "facts.parquet", table)
    rows: list[dict[str, object]] = []
    for measure in ("probability", "rouge_l", "truth_ratio"):
        values = table[measure].dropna()
        if len(values) > 1:
            interval = bootstrap_mean(values)
            rows.append(
                {"measure": measure, "mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
            )
    show_table(pd.DataFrame(rows))
    show_written(out)
