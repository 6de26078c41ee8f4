"""An update of unlearning: beside the loop published for RMU, beside plain training of the same part, and at 8B."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import LlamaConfig, PreTrainedModel

from benchmarks.page import Bar, Section, ratio_columns
from benchmarks.shapes import SHAPES, make_tokenizer
from benchmarks.timing import interleave, summarize
from interp_unlearn import HookedModel
from interp_unlearn.unlearning import Misdirection, UnlearnConfig, UnlearnData, unlearn
from interp_unlearn.unlearning.loop import training
from interp_unlearn.unlearning.reference import Reference, trained_tensors
from interp_unlearn.unlearning.training_run import TrainingRun

LAYER, TRAINED = 7, (5, 6, 7)
COEFFICIENT, RETAIN_WEIGHT = 6.5, 100.0
BATCH, WORDS, ROWS = 4, 160, 16
PUBLISHED, OURS, CACHED = "published loop: full passes, second model", "ours", "ours, prefix cached over epochs"
PLAIN, UNLEARN = "plain training of the same part", "unlearn"


def measure_step(rounds: int = 12) -> pd.DataFrame:
    """Seconds of one update on a 32-layer shape, in turns; and how far the losses of the three are apart."""
    config = LlamaConfig(**SHAPES["llama_8b"].to_dict() | {"hidden_size": 512, "intermediate_size": 1792})
    config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.vocab_size = 8, 2, 64, 32000
    data, tokenizer = _texts(), make_tokenizer()
    steps = {PUBLISHED: _published_step(_model(config), _model(config), tokenizer, data)}
    contexts = []
    for name, cached in ((OURS, False), (CACHED, True)):
        run, context = _prepared(HookedModel(_model(config), tokenizer), data, cached)
        contexts.append(context)
        steps[name] = lambda run=run: _losses_of(run)
    # Same weights, same rows, same losses: compared before anything is timed.
    found = [[steps[name]() for _ in range(4)] for name in steps]
    apart = {
        name: max(
            abs(a - b) / max(abs(a), abs(b), 1e-30)  # the first retain loss is 0
            for mine, theirs in zip(losses, found[0], strict=True)
            for a, b in zip(mine, theirs, strict=True)
        )
        for name, losses in zip(steps, found, strict=True)
    }
    table = summarize(interleave(steps, rounds, warmup=1, label="update"), PUBLISHED)
    for context in contexts:
        context.__exit__(None, None, None)
    return table.assign(apart=table["what"].map(apart), tokens=2 * BATCH * _length(tokenizer, data))


def measure_training_memory() -> pd.DataFrame:
    """Peak resident memory of each way to train a part, in processes of their own, from one checkpoint on disk."""
    config = LlamaConfig(**SHAPES["llama_8b"].to_dict() | {"hidden_size": 1024, "intermediate_size": 3584})
    config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.vocab_size = 8, 2, 128, 32000
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(config, Path(folder), torch.float32)
        rows = [{"what": what, **_child("memory", what, folder)} for what in (PLAIN, UNLEARN)]
    return pd.DataFrame(rows)


def measure_8b() -> pd.DataFrame:
    """Two updates of an 8B Llama shape, random weights in bfloat16, its first eight blocks loaded, then saved whole."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(SHAPES["llama_8b"], Path(folder) / "model", torch.bfloat16)
        found = _child("8b", device, str(Path(folder) / "model"))
    return pd.DataFrame([{"device": device, **found}])


def describe_step(rows: pd.DataFrame) -> list[Section]:
    """The section on time."""
    shown = ratio_columns(rows)
    shown["losses apart from the published loop's"] = rows["apart"].map("{:.1g}".format)
    ms = dict(zip(rows["what"], rows["ms"], strict=True))
    bars = (
        Bar("published loop, by ours", ms[PUBLISHED] / ms[OURS], lowest=4),
        Bar("published loop, by ours with the cache", ms[PUBLISHED] / ms[CACHED], lowest=5.5),
    )
    text = (
        f"RMU at layer {LAYER}, training the MLP output matrices of layers {TRAINED[0]} to {TRAINED[-1]}, 32 layers of "
        f"width 512, float32, AdamW, {rows['tokens'].iloc[0]} tokens an update, forget and retain together. The "
        "published loop runs both texts through the whole of the model and retain text through a second model; it is "
        "written out in benchmarks/unlearning.py from the description in the paper. Before anything is timed, four "
        "updates from the same weights on the same rows are compared: the largest relative difference of any loss is "
        "in the table."
    )
    return [Section("An update of unlearning", text, shown, bars)]


def describe_training_memory(rows: pd.DataFrame) -> list[Section]:
    """The section on memory."""
    peak = dict(zip(rows["what"], rows["peak_mb"], strict=True))
    shown = pd.DataFrame({"": rows["what"], "peak memory, MB": rows["peak_mb"].map("{:,.0f}".format)})
    text = (
        "The first eight of 32 blocks of width 1,024 loaded, the same three matrices trained by the same AdamW on "
        "the same rows. Plain training has no original to compare with: forget and retain text are each led to zero."
    )
    return [
        Section(
            "Memory of training",
            text,
            shown,
            (Bar("unlearn, by plain training", peak[UNLEARN] / peak[PLAIN], highest=1.15),),
        )
    ]


def describe_8b(rows: pd.DataFrame) -> list[Section]:
    """The section on the shape of an 8B Llama."""
    row = rows.iloc[0]
    shown = pd.DataFrame(
        {
            "peak memory, GB": [f"{row['peak_gb']:.1f}"],
            "estimated, GB": [f"{row['estimated_gb']:.1f}"],
            "s an update": [f"{row['step_seconds']:.1f}"],
            "estimated, s": [f"{row['estimated_seconds']:.1f}"],
            "s to save": [f"{row['save_seconds']:.0f}"],
            "tensors changed on disk": [f"{row['changed']:.0f}"],
        }
    )
    text = (
        f"Random weights in bfloat16, in shards of 5 GB, on {row['device']}: embedding and eight blocks loaded, two "
        f"updates of RMU with {row['tokens']:.0f} tokens each, the changed tensors written into a copy of the shards, "
        "and that copy loaded again and compared. The estimates are those of `--dry-run`."
    )
    bars = (Bar("peak memory of the process, GB", float(row["peak_gb"]), highest=12),)
    return [Section("An 8B shape in 12 GB", text, shown, bars)]


def write_random_checkpoint(config: LlamaConfig, folder: Path, dtype: torch.dtype) -> None:
    """A checkpoint of that shape in shards of at most 5 GB, never more than one of them in memory."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in AutoModelForCausalLM.from_config(config).named_parameters()}
    shards: list[dict[str, torch.Size]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = shape.numel() * dtype.itemsize
        if filled and filled + size > 5_000_000_000:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    where: dict[str, str] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"  # 8B normal numbers take one core minutes
    generator = torch.Generator(device).manual_seed(0)
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        tensors = {
            name: torch.ones(shape, dtype=dtype)
            if len(shape) == 1
            else torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02, generator=generator).cpu()
            for name, shape in shard.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config.architectures, config.dtype = ["LlamaForCausalLM"], dtype
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def _texts(n_words: int = WORDS) -> UnlearnData:
    generator = torch.Generator().manual_seed(0)
    words = [f"{chr(97 + i % 26)}{i}" for i in range(500)]

    def some() -> list[str]:
        chosen = torch.randint(len(words), (ROWS, n_words // 3), generator=generator)
        return [" ".join(words[i] for i in row) for row in chosen.tolist()]

    return UnlearnData(forget=some(), retain=some())


def _length(tokenizer: Any, data: UnlearnData) -> int:
    return round(sum(len(tokenizer(text)["input_ids"]) + 1 for text in data.forget) / len(data.forget))


def _config(cached: bool = False) -> UnlearnConfig:
    return UnlearnConfig(
        batch_size=BATCH,
        steps=1000,
        layers=TRAINED,
        retain_weight=RETAIN_WEIGHT,
        kl_weight=0,
        learning_rate=5e-5,
        clip=None,
        include_bos=True,
        cache_prefix=cached,
    )


def _model(config: LlamaConfig) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def _prepared(model: HookedModel, data: UnlearnData, cached: bool) -> tuple[TrainingRun, Any]:
    config = _config(cached)
    trained = trained_tensors(model, config)
    context = training(model.hf, trained)
    context.__enter__()
    objective = Misdirection(LAYER, kind="mse", coefficient=COEFFICIENT)
    return TrainingRun.prepared(model, objective, data, config, trained, Reference(trained), ()), context


def _losses_of(run: TrainingRun) -> tuple[float, float]:
    run.step()
    return run.history[-1]["forget"], run.history[-1]["retain"]


def _published_step(
    updated: PreTrainedModel, frozen: PreTrainedModel, tokenizer: Any, data: UnlearnData
) -> Callable[[], tuple[float, float]]:
    """RMU's training loop as published: a second model, full passes, hidden states caught on the way."""
    from interp_unlearn.unlearning.corpora import Corpora, scheduled_rows

    corpora, config = Corpora.from_data(tokenizer, data), _config()
    control = Misdirection(LAYER, kind="mse", coefficient=COEFFICIENT)
    control.prepare(HookedModel(updated, tokenizer), corpora, config)
    vector = COEFFICIENT * control._directions[LAYER]
    for parameter in [*updated.parameters(), *frozen.parameters()]:
        parameter.requires_grad_(False)
    trained = [updated.model.layers[layer].mlp.down_proj.weight.requires_grad_(True) for layer in TRAINED]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.0)
    step = 0

    def activations(model: PreTrainedModel, batch: Any) -> torch.Tensor:
        caught: list[torch.Tensor] = []
        handle = model.model.layers[LAYER].register_forward_hook(lambda module, args, output: caught.append(output))
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        handle.remove()
        return caught[0]

    def update() -> tuple[float, float]:
        nonlocal step
        forget, retain = (
            corpus.batch(scheduled_rows(len(corpus), BATCH, step, 0, name))
            for corpus, name in ((corpora.forget, "forget"), (corpora.retain, "retain"))
        )
        step += 1
        forgotten = (activations(updated, forget)[forget.mask] - vector).square().mean()
        now = activations(updated, retain)[retain.mask]
        with torch.no_grad():
            before = activations(frozen, retain)[retain.mask]
        retained = RETAIN_WEIGHT * (now - before).square().mean()
        optimizer.zero_grad()
        (forgotten + retained).backward()
        optimizer.step()
        return forgotten.item(), retained.item()

    return update


def _child(task: str, *arguments: str) -> dict[str, float]:
    """Run a measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.unlearning", task, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _train_part(what: str, folder: str) -> dict[str, float]:
    model = HookedModel.from_pretrained(folder, first_blocks=LAYER + 1)
    data, config = _texts(), UnlearnConfig(**vars(_config()) | {"steps": 4})
    if what == UNLEARN:
        unlearn(model, Misdirection(LAYER, kind="mse", coefficient=COEFFICIENT), data, config, progress=False)
        return {"peak_mb": _peak()}
    for parameter in model.hf.parameters():
        parameter.requires_grad_(False)
    trained = list(trained_tensors(model, config).values())
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.0)
    from interp_unlearn.sites import Site

    site = Site(LAYER, "resid_post")
    for step in range(4):
        for texts in (data.forget, data.retain):
            batch = model.tokenize(texts[BATCH * step % ROWS :][:BATCH])
            model.run(batch, reads=[site])[site][batch.mask].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"peak_mb": _peak()}


def _train_8b(device: str, folder: str) -> dict[str, float]:
    from interp_unlearn.unlearning.corpora import Corpora
    from interp_unlearn.unlearning.estimate import estimate_run

    # Short: many CPUs have no instructions for bfloat16 and hand gradients down at a hundredth of their speed.
    data, config = _texts(WORDS if device == "cuda" else 9), UnlearnConfig(**vars(_config()) | {"steps": 2})
    objective = Misdirection(LAYER, kind="mse", coefficient=COEFFICIENT)
    model = HookedModel.from_pretrained(folder, device=device, first_blocks=LAYER + 1)
    corpora = Corpora.from_data(model.tokenizer, data)
    estimate = estimate_run(folder, objective, corpora, config, device=device, first_blocks=LAYER + 1)
    result = unlearn(model, objective, data, config, progress=False)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else _peak() / 1000
    started = time.perf_counter()
    saved = Path(folder).with_name("saved")
    model.save_pretrained(saved)
    seconds = time.perf_counter() - started
    again = HookedModel.from_pretrained(saved, first_blocks=LAYER + 1)
    changed = 0
    first = dict(HookedModel.from_pretrained(folder, first_blocks=LAYER + 1).hf.named_parameters())
    for (name, value), mine in zip(again.hf.named_parameters(), model.hf.parameters(), strict=True):
        if not torch.equal(value, mine.cpu()):
            raise RuntimeError(f"{name} was not saved as it is")
        changed += not torch.equal(value, first[name])
    shutil.rmtree(saved)
    return {
        "peak_gb": peak,
        "estimated_gb": estimate.memory / 1e9,
        "step_seconds": result.seconds / config.steps,
        "estimated_seconds": estimate.step_seconds,
        "save_seconds": seconds,
        "changed": changed,
        "tokens": 2 * BATCH * _length(model.tokenizer, data),
    }


def _peak() -> float:
    """Of this process, in MB. Not getrusage: its maximum outlives exec, and so counts the process that started this."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps({"memory": _train_part, "8b": _train_8b}[sys.argv[1]](*sys.argv[2:])))
