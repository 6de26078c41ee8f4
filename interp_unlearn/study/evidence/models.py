"""The unlearned models of the evidence, each a checkpoint folder of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from interp_unlearn.artifacts import environment, write_json
from interp_unlearn.study.comparison.bench import Bench, load_bench
from interp_unlearn.study.comparison.contest import contest_on

if TYPE_CHECKING:
    from interp_unlearn.organism.sets import Goal
    from interp_unlearn.study.evidence.plan import EvidenceConfig, Subject

RECORD = "evidence.json"  # written last: a folder without it is no model


def model_folder(out: Path, subject: Subject, seed: int) -> Path:
    """Where an unlearned model lies."""
    return out / "models" / f"{subject.name}-{seed}"


def probe_folder(out: Path, goal: Goal) -> Path:
    """Where the probes of a goal lie."""
    return out / "probes" / goal


def bench_of(goal: Goal, config: EvidenceConfig, out: Path) -> Bench:
    """The comparison's bench of a goal, with the probes of this study."""
    return load_bench(goal, probe_folder(out, goal), config.steps or contest_on(goal).steps)


def make_model(subject: Subject, seed: int, config: EvidenceConfig, out: Path) -> Path:
    """Unlearns the original as a subject says, unless that was done already."""
    folder = model_folder(out, subject, seed)
    if (folder / RECORD).exists():
        return folder
    bench = bench_of(subject.goal, config, out)
    model = bench.stage.model("knows_all")
    contest_on(subject.goal).roster[subject.method].forget(model, bench, dict(subject.setting), seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_json(
        folder / RECORD,
        {
            "subject": asdict(subject),
            "seed": seed,
            "steps": bench.steps,
            "weights": model.hash(),
            "original": bench.stage.model("knows_all").hash(),
            "environment": environment(),
        },
    )
    return folder
