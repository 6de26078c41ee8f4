"""`classifier`: labelled texts in, a small toxicity classifier in Hugging Face layout out."""

from typing import Annotated, Any

import typer

from interp_unlearn.cli import options


def classifier(
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    kind: Annotated[
        str,
        typer.Option("--kind", help="encoder (DistilBERT on characters) or decoder (GPT-2 on bytes)."),
    ] = "encoder",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Most passes over the texts; default 10.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Default 0.001.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the split, the weights and the batches.")] = 0,
    device: options.DeviceOption = "cpu",
) -> None:
    """Train a small toxicity classifier from labelled texts and measure it on groups it never saw.

    Two of different --kind are two scorers for `toxicity` on a machine without a model hub.
    """
    from dataclasses import asdict

    from interp_unlearn.artifacts import hash_file, record_run
    from interp_unlearn.cli.inputs import check_device, quiet_transformers, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.evaluation import ClassifierConfig, train_classifier

    given: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    config = ClassifierConfig(kind=kind, seed=seed, **{key: v for key, v in given.items() if v is not None})
    check_device(device)
    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    require_both_classes(texts, data)
    sources = {"data": hash_file(data), "neutral": None if neutral is None else hash_file(neutral)}
    identity = {"task": "classifier", **sources, "layout": layout, "limit": limit, "skip": skip, **asdict(config)}
    quiet_transformers()
    with run_folder(out, identity) as folder:
        trained = train_classifier(texts.texts, texts.labels, texts.groups, config, device=device)
        trained.save(folder, sources)
        record_run(folder, {"seconds": round(trained.seconds, 1)})
    show_table(trained.quality)
    typer.echo(f"{len(trained.history)} epochs in {trained.seconds:.0f} s")
    show_written(out)
