"""Run by torchrun: what two processes do together, for test_processes.py to compare with what one does alone."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from conftest import TEXTS, make_hf, make_tokenizer
from planted_classes import DATA

from interp_unlearn import HookedModel, Site, UnlearnConfig, collect, unlearn
from interp_unlearn.activations import plan
from interp_unlearn.cli import main as command
from interp_unlearn.models.processes import ALONE, Processes
from interp_unlearn.unlearning import (
    DPO,
    AdversaryConfig,
    Checkpoints,
    GuardConfig,
    Misdirection,
    Objective,
    TradeOffConfig,
    UnlearnData,
)
from interp_unlearn.unlearning.sharding import shard

SITES = [Site(1, "resid_post"), Site(2, "z")]
# Rows of different lengths, and three of them over two processes: a mean of the processes' means would be off.
UNEVEN = UnlearnData(
    forget=["the cat", "a small cat ran on a big red hill", "the cat sat on it then"],
    counterparts=["the dog", "a small dog ran on a big red hill", "the dog sat on it then"],
    retain=["who", "the big red hill was small then", "no dog sat"],
    neutral=DATA.neutral,
    groups=["a", "b", "c"],
)
CONFIG = UnlearnConfig(steps=3, batch_size=3, layers=(0, 1), roles=("mlp",), learning_rate=1e-2, nll_weight=0.5)
EVERYTHING = replace(CONFIG, layers=None, roles=None)
"""All parameters: of GPT-2 the tied embedding, and what lies outside the blocks, with them."""
CASES: dict[str, tuple[str, Objective, UnlearnConfig]] = {
    "misdirection": ("llama", Misdirection(1), CONFIG),
    "dpo": ("gpt2", DPO(layers=(0,)), EVERYTHING),
    "attacked": (
        "llama",
        Misdirection(1),
        replace(
            CONFIG,
            accumulation=2,
            adversary=AdversaryConfig(steps=1, gradient_steps=(1,), batch_size=2),
            trade_off=TradeOffConfig("lookahead"),
            guard=GuardConfig(max_kl=100.0, every=1, rows=2),
        ),
    ),
}
SHARDED = ("misdirection", "dpo")


def double_model(architecture: str) -> HookedModel:
    return HookedModel(make_hf(architecture).double(), make_tokenizer())


def collect_texts(folder: Path, processes: Processes = ALONE) -> None:
    plan.SHARD_ROWS = 3
    texts = [text for text in TEXTS for _ in range(4)]
    collect(double_model("llama"), texts, SITES, out=folder, processes=processes, progress=False)


def unlearn_sharded(case: str, out: Path, processes: Processes) -> HookedModel:
    """Interrupted after two steps, and gone on with."""
    architecture, objective, config = CASES[case]

    def interrupt(step: int, model: HookedModel) -> None:
        raise InterruptedError

    for callback in (interrupt, None):
        model = double_model(architecture)
        shard(model, processes)
        try:
            result = unlearn(
                model,
                objective,
                UNEVEN,
                config,
                checkpoints=[2],
                callback=callback,
                resume=Checkpoints(out / f"{case}.state", 1),
                progress=False,
                processes=processes,
            )
        except InterruptedError:
            continue
        if processes.is_first:
            result.save(out / f"{case}-sharded")
        return model
    raise AssertionError


def main(out: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes.of_torchrun()
    collect_texts(out / "store", processes)
    for case, (architecture, objective, config) in CASES.items():
        model = double_model(architecture)
        result = unlearn(model, objective, UNEVEN, config, processes=processes, progress=False)
        if processes.is_first:
            model.save_pretrained(out / case)
            result.save(out / case)
        if case not in SHARDED:
            continue
        model = unlearn_sharded(case, out, processes)
        with torch.no_grad():  # two passes that end nowhere early, of weights in parts
            read = model.run(model.tokenize(TEXTS), reads=SITES)
        model.save_pretrained(out / f"{case}-sharded")
        if processes.is_first:
            torch.save({site: read[site] for site in SITES}, out / f"{case}-reads.pt")
    os.chdir(out)
    for verb in ("collect", "unlearn", "unlearn --shard"):
        given = (out / f"{verb}.txt").read_text(encoding="utf-8").split()
        assert command(given) == 0, given


if __name__ == "__main__":
    main(Path(sys.argv[1]))
