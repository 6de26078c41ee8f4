"""`attack`: a reviewer's suite on an unlearned model, beside its original."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interp_unlearn.attacks import Attack
    from interp_unlearn.cli.inputs import LabelledTexts
    from interp_unlearn.unlearning import UnlearnData

ALL = "all"
FIELDS = {
    "--unrelated": "unrelated",
    "--learning-rate": "learning_rates",
    "--checkpoint": "checkpoints",
    "--layer": "layer",
    "--rank": "ranks",
    "--coefficient": "coefficients",
    "--factor": "factors",
    "--neurons": "n_neurons",
    "--random": "n_random",
    "--bits": "bits",
    "--sparsity": "sparsities",
    "--shots": "shots",
    "--wording": "wordings",
    "--prefix": "prefixes",
    "--max-length": "max_length",
}
"""The settings that options stand for."""
SHOWN = (
    *("attack", "setting", "step", "score", "recovered", "recovered_low", "recovered_high", "control", "p_adjusted"),
    *("n", "n_attempts"),
)


def attack(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="all, or relearn, relearn_lora, relearn_neutral, relearn_unrelated, relearn_lora_unrelated, "
            "ablate_direction, ablate_subspace, steer_back, scale_neurons, quantise, prune, reformat, few_shot.",
        ),
    ],
    model: Annotated[str, typer.Argument(metavar="UNLEARNED", help="The model attacked: directory or hub id.")],
    against: options.AgainstOption,
    data: options.DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results. An interrupted suite goes on in its own.")],
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    unrelated: Annotated[
        Path | None,
        typer.Option("--unrelated", help="Plain texts that have nothing to do with --data, for relearn_unrelated."),
    ] = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option(
            "--questions",
            help="What is asked: WMDP .json, MMLU .csv or a folder of such; repeat it. Default: the facts of --data, "
            "for other layouts the log-probability of its target texts.",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--form", help="Of questions: text, text_after_choices or letter.")] = "text",
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Of questions correct (default) or answer_probability; of facts probability (default) or rouge_l; of "
            "texts log_probability (default) or probability.",
        ),
    ] = None,
    by_subject: Annotated[
        bool, typer.Option("--by-subject", help="Resample the questions of a subject together.")
    ] = False,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    rates: Annotated[
        list[float] | None, typer.Option("--learning-rate", help="Of relearning; repeat it, the worst is shown.")
    ] = None,
    checkpoints: Annotated[
        list[int] | None, typer.Option("--checkpoint", min=1, help="Relearning steps after which it is asked; repeat.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", min=0, help="Whose direction is ablated everywhere, or steered at.")
    ] = None,
    ranks: Annotated[list[int] | None, typer.Option("--rank", help="Of ablated subspaces; repeat it.")] = None,
    coefficients: Annotated[list[float] | None, typer.Option("--coefficient", help="Of steering; repeat it.")] = None,
    factors: Annotated[list[float] | None, typer.Option("--factor", help="Of scaled neurons; repeat it.")] = None,
    n_neurons: Annotated[int | None, typer.Option("--neurons", min=1, help="How many are scaled.")] = None,
    n_random: Annotated[
        int | None, typer.Option("--random", min=0, help="Random directions or neurons of a control.")
    ] = None,
    bits: Annotated[list[int] | None, typer.Option("--bits", help="Of quantised weights; repeat it.")] = None,
    sparsities: Annotated[list[float] | None, typer.Option("--sparsity", help="Of pruning; repeat it.")] = None,
    shots: Annotated[list[int] | None, typer.Option("--shots", help="Solved examples; repeat it.")] = None,
    wordings: Annotated[
        list[str] | None, typer.Option("--wording", help="A text with {prompt} in it to ask in; repeat it.")
    ] = None,
    prefixes: Annotated[
        list[str] | None,
        typer.Option("--prefix", help="A text put before prompts; repeat it. Default: two neutral texts."),
    ] = None,
    n_texts: Annotated[int, typer.Option("--texts", min=2, help="Most texts whose activations are read.")] = 256,
    batch_size: options.BatchSizeOption = 32,
    max_length: options.MaxLengthOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of splits, random directions and the bootstrap.")] = 0,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Try to bring back what a model has unlearned; how much of the gap to its original comes back, with intervals.

    One of the two models is in memory at a time. Every attempt is written; of each attack the worst is shown.
    """
    from functools import partial

    from interp_unlearn.attacks import default_attacks, run_attacks
    from interp_unlearn.cli.asked import measure_from
    from interp_unlearn.cli.inputs import check_device, open_model, read_labelled_texts, read_plain
    from interp_unlearn.cli.outputs import show_table, show_written
    from interp_unlearn.models.loading import load_config

    known = default_attacks()
    chosen = [one for one in known if name in (ALL, one.name)]
    if not chosen:
        raise ConfigError(f"no attack {name!r}; expected {ALL} or {', '.join(one.name for one in known)}")
    check_device(device)
    for path in (model, against):
        n_layers: int = load_config(path).get_text_config().num_hidden_layers  # a mistyped path is found at once
        if layer is not None and layer >= n_layers:
            raise ConfigError(f"--layer {layer}: out of range; {path} has layers 0 to {n_layers - 1}")
    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    measure = measure_from(texts, data, layout, questions, form, score, by_subject, limit, skip, batch_size)
    given = {
        "--unrelated": None if unrelated is None else read_plain(unrelated)[:limit],
        "--learning-rate": rates,
        "--checkpoint": checkpoints,
        "--layer": layer,
        "--rank": ranks,
        "--coefficient": coefficients,
        "--factor": factors,
        "--neurons": n_neurons,
        "--random": n_random,
        "--bits": bits,
        "--sparsity": sparsities,
        "--shots": shots,
        "--wording": wordings,
        "--prefix": prefixes,
        "--max-length": max_length,
    }
    result = run_attacks(
        partial(open_model, model, device, dtype),
        partial(open_model, against, device, dtype),
        measure,
        _forget_and_neutral(texts),
        _told(chosen, {option: value for option, value in given.items() if value is not None}),
        out=out,
        n_texts=n_texts,
        seed=seed,
    )
    show_table(result.models())
    worst = result.worst()
    show_table(worst, [column for column in SHOWN if bool(worst[column].count())])
    for missing in worst.loc[worst["recovered"].isna()].to_dict("records"):
        typer.echo(f"{missing['attack']}: no share of the gap: {missing['reason']}")
    for note in result.notes():
        typer.echo(note)
    for drawn in draw_attacks(out):
        show_written(drawn)
    show_written(out)


def draw_attacks(run: Path) -> "list[Path]":
    """Draws the shares that came back and, of attacks that train, the curves; from the tables of a run."""
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.figures import plot_attack_curves, plot_attacks, save_figure

    attempts, worst, models = (read_parquet(run / f"{name}.parquet") for name in ("attempts", "worst", "models"))
    named = worst.dropna(subset=["recovered"]).assign(goal=models["score"].iloc[0], method="unlearned")
    drawn: list[Path] = []
    if len(named):
        drawn.append(save_figure(plot_attacks(named), run / "attacks")[0])
    if len(attempts.dropna(subset=["step", "score"])):
        drawn.append(save_figure(plot_attack_curves(attempts), run / "curves")[0])
    return drawn


def _forget_and_neutral(texts: "LabelledTexts") -> "UnlearnData":
    from interp_unlearn.unlearning import UnlearnData

    asked = texts.questions()
    return UnlearnData(
        forget=texts.of_class(1) if asked is None else asked[0],
        forget_completions=None if asked is None else asked[1],
        groups=texts.groups_of_class(1),
        neutral=texts.of_class(0),
    )


def _told(attacks: "Sequence[Attack]", given: "Mapping[str, Any]") -> "list[Attack]":
    """The attacks with the options that belong to them.

    Raises:
        ConfigError: an option belongs to none of them.
    """
    from interp_unlearn.attacks import Relearn, SteerBack

    used: set[str] = set()
    told: list[Attack] = []
    for one in attacks:
        values: dict[str, Any] = {}
        for option, value in given.items():
            setting = FIELDS[option]
            if setting == "layer" and isinstance(one, SteerBack):
                values["layers"] = (value,)
            elif setting == "max_length" and isinstance(one, Relearn):
                values["attacker"] = replace(one.attacker, max_length=value)
            elif setting == "unrelated" and getattr(one, "on", None) != "unrelated":
                continue
            elif setting in {entry.name for entry in fields(one)}:
                values[setting] = tuple(value) if isinstance(value, list) else value
            else:
                continue
            used.add(option)
        told.append(replace(one, **values))
    if unused := given.keys() - used:
        raise ConfigError(f"{', '.join(one.name for one in attacks)}: takes no {', '.join(sorted(unused))}")
    return told
