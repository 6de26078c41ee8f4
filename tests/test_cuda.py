"""On a GPU as on the CPU: passes, edits, training, attacks and drift, where there is one to try it on."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import ALL_ARCHITECTURES, TEXTS, make_hf, make_tokenizer
from planted_classes import DATA, FORGET, NEUTRAL, QUICK
from planted_deltas import disturbed
from planted_unlearning import DATA as ATTACKED
from planted_unlearning import copied, make_original, misdirected, what_it_knows
from test_drift_suite import ANSWERS
from test_drift_suite import QUICK as DRIFTED
from test_drift_suite import TEXTS as CORPORA
from test_mechanism_dissection import CONFIG, goals_of
from test_unlearning_objectives import objectives

from interp_unlearn import Add, Clamp, HookedModel, ProjectOut, Scale, Site, collect, dissect, fit_probes, unlearn
from interp_unlearn.attacks import default_attacks, run_attacks
from interp_unlearn.drift import run_drift
from interp_unlearn.evaluation import perplexity, sample_documents
from interp_unlearn.models import tokenize, weights_hash
from interp_unlearn.sites import residual_stream
from interp_unlearn.unlearning import (
    AdversaryConfig,
    Checkpoints,
    GuardConfig,
    LoraConfig,
    MaskBySign,
    Misdirection,
    objective_names,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SITES = [Site.embed, Site(0, "attn_out"), Site(1, "mlp_out"), Site(2, "resid_post")]
TRAINED = replace(QUICK, steps=3, learning_rate=1e-3)
# A teacher's texts are drawn on its own device; a cosine with itself has no gradient but what rounding leaves.
APART = ("distilled", "oracle", "rerouting")


@pytest.fixture(autouse=True)
def full_precision():
    """Matrix products in float32 proper: TF32 would part the devices in the fourth digit."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def pair(architecture: str = "llama") -> tuple[HookedModel, HookedModel]:
    """The same model on the CPU and on the GPU."""
    hf = make_hf(architecture)
    return HookedModel(hf, make_tokenizer()), HookedModel(copy.deepcopy(hf).to("cuda"), make_tokenizer())


def on_gpu(model: HookedModel) -> HookedModel:
    return HookedModel(copy.deepcopy(model.hf).to("cuda"), model.tokenizer, name=model.name)


@pytest.mark.parametrize("architecture", ALL_ARCHITECTURES)
def test_passes_and_edits_agree(architecture: str) -> None:
    cpu, gpu = pair(architecture)
    u = torch.linspace(-1, 2, cpu.d_model)
    edits = {
        Site(0, "resid_post"): [ProjectOut(u), Add(u, 0.2)],
        Site(1, "mlp_out"): Scale(1.5, tokens="last"),
        Site(2, "resid_pre"): Clamp(u, 0.1),
    }
    for chosen in ({}, edits):
        traces = []
        for model in (cpu, gpu):
            batch = model.tokenize(TEXTS)
            with torch.no_grad():
                traces.append((model.run(batch, reads=SITES, edits=chosen, logits=True), batch))
        (expected, batch), (found, _) = traces
        assert expected.logits is not None and found.logits is not None and found.logits.is_cuda
        for a, b in [(expected[s], found[s]) for s in SITES] + [(expected.logits, found.logits)]:
            torch.testing.assert_close(b.cpu()[batch.content_mask], a[batch.content_mask], rtol=1e-4, atol=1e-4)


def test_stores_and_probes_agree() -> None:
    texts, labels = FORGET + NEUTRAL, [1] * len(FORGET) + [0] * len(NEUTRAL)
    found = []
    for model in pair():
        store = collect(model, texts, residual_stream(3), labels=labels, progress=False)
        found.append((store, fit_probes(store, folds=2, bootstrap=20, n_jobs=1, progress=False)))
    (a, probes_a), (b, probes_b) = found
    for site in a.sites:
        torch.testing.assert_close(torch.as_tensor(b[site]), torch.as_tensor(a[site]), rtol=1e-4, atol=1e-4)
        cosine = torch.cosine_similarity(probes_a.direction(site), probes_b.direction(site), dim=0)
        assert cosine > 0.999


# What is hardened begins at its minimum, where rounding leads.
@pytest.mark.parametrize("name", [name for name in objective_names() if name not in (*APART, "hardened")])
def test_every_objective_trains_alike(name: str) -> None:
    ends = []
    for model in pair():
        objective = objectives(model)[name]
        config = replace(TRAINED, optimizer="sgd", learning_rate=0.05, clip=1.0)
        if objective.meta:
            config = replace(config, adversary=AdversaryConfig(steps=2, gradient_steps=(1, 2)))
        start = {key: value.detach().cpu().clone() for key, value in model.hf.named_parameters()}
        history = unlearn(model, objective, DATA, config, progress=False).history
        moved = {key: value.detach().cpu() - start[key] for key, value in model.hf.named_parameters()}
        ends.append((history, moved))
    (history, moved), (other, also) = ends
    assert history["forget"].to_numpy() == pytest.approx(other["forget"].to_numpy(), rel=1e-3, abs=1e-4)
    largest = max(float(change.abs().max()) for change in moved.values())
    assert largest > 0
    for key, change in moved.items():
        torch.testing.assert_close(also[key], change, rtol=0, atol=0.01 * largest, msg=key)


@pytest.mark.parametrize("name", APART)
def test_what_begins_elsewhere_trains_too(name: str) -> None:
    _, model = pair()
    history = unlearn(model, objectives(model)[name], DATA, TRAINED, progress=False).history
    assert len(history) == 3 and history["forget"].notna().all()


def test_bfloat16_adapters_and_guard() -> None:
    model = HookedModel(make_hf("llama").to("cuda", torch.bfloat16), make_tokenizer())
    guard = GuardConfig(max_kl=100.0, every=1, rows=2)
    for config in (replace(TRAINED, guard=guard, accumulation=2), replace(TRAINED, lora=LoraConfig(rank=2))):
        before = weights_hash(model.hf)
        result = unlearn(model, Misdirection(1), DATA, config, progress=False)
        assert result.history["forget"].notna().all() and weights_hash(model.hf) != before


@pytest.mark.parametrize("rules", [(), (MaskBySign(),)], ids=["plain", "masked"])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, rules: tuple[MaskBySign, ...]) -> None:
    kept = Checkpoints(tmp_path / "state", every=2)
    config = replace(TRAINED, steps=6)

    def fail(step: int, model: HookedModel) -> Any:
        raise KeyboardInterrupt

    given: dict[str, Any] = {"rules": rules, "checkpoints": (3,), "progress": False}
    whole, begun, again = (pair()[1] for _ in range(3))
    unlearn(whole, Misdirection(1), DATA, config, callback=lambda step, model: {}, **given)
    with pytest.raises(KeyboardInterrupt):
        unlearn(begun, Misdirection(1), DATA, config, callback=fail, resume=kept, **given)
    unlearn(again, Misdirection(1), DATA, config, callback=lambda step, model: {}, resume=kept, **given)
    assert again.hash() == whole.hash()


def test_a_part_is_saved_whole_and_loaded_back(tmp_path: Path) -> None:
    hf = make_hf("llama")
    hf.save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    part = HookedModel.from_pretrained(tmp_path / "model", device="cuda", first_blocks=2)
    unlearn(part, Misdirection(1), DATA, replace(TRAINED, kl_weight=0.0, nll_weight=0.0), progress=False)
    part.save_pretrained(tmp_path / "saved")
    again = dict(HookedModel.from_pretrained(tmp_path / "saved", device="cuda").hf.named_parameters())
    moved = {name for name, value in hf.named_parameters() if not torch.equal(again[name].cpu(), value)}
    assert moved and all("mlp" in name for name in moved)
    for name, value in part.hf.named_parameters():  # the body alone was loaded
        assert torch.equal(value, again[f"model.{name}"])


def test_texts_and_their_probability() -> None:
    cpu, gpu = pair()
    assert perplexity(gpu, TEXTS, progress=False) == pytest.approx(perplexity(cpu, TEXTS, progress=False), rel=1e-4)
    first = sample_documents(gpu, 6, 5, seed=1, progress=False)
    assert first == sample_documents(gpu, 6, 5, seed=1, progress=False) and first
    batch = tokenize(gpu.tokenizer, TEXTS, padding_side="left")
    answers = []
    for model in (gpu, cpu):
        with model.edited({Site(1, "resid_post"): Add(torch.ones(gpu.d_model))}):
            answers.append(model.generate(batch, max_new_tokens=4).cpu())
    assert torch.equal(*answers)


def test_every_attack_finds_the_same() -> None:
    original = make_original()
    hidden = misdirected(original)
    tables = []
    for move in (lambda model: model, on_gpu):
        models, measure = (move(copied(hidden)), move(copied(original))), what_it_knows(original)
        result = run_attacks(*models, measure, ATTACKED, default_attacks(), n_resamples=50, progress=False)
        tables.append(result.to_frame())
    expected, found = tables
    assert found["attack"].tolist() == expected["attack"].tolist()
    assert found["reason"].fillna("").tolist() == expected["reason"].fillna("").tolist()
    numbers = expected.select_dtypes("number").columns
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], rtol=0, atol=0.15)


def test_every_measure_of_drift_finds_the_same() -> None:
    hf = make_hf("llama")
    tables = []
    for device in ("cpu", "cuda"):
        original = HookedModel(copy.deepcopy(hf).to(device), make_tokenizer(), name="original")
        changed, twin = (disturbed(original) for _ in range(2))
        labels = [1] * 12 + [0] * 12
        store = collect(
            original, [*CORPORA["forget"], *CORPORA["retain"]], residual_stream(3)[1:], labels=labels, progress=False
        )
        probes = fit_probes(store, folds=3, bootstrap=20, n_jobs=1, progress=False)
        given: dict[str, Any] = {"answers": ANSWERS, "probes": probes, "twin": twin}
        tables.append(run_drift(changed, original, CORPORA, **given, **DRIFTED).to_frame())
    expected, found = tables
    assert found["measure"].tolist() == expected["measure"].tolist()
    assert found["value"].isna().tolist() == expected["value"].isna().tolist()
    measured = expected["measure"].isin(["displacement", "weight_delta", "determinism", "logit_lens"])
    assert measured.sum() > 10
    assert found.loc[measured, "value"].to_numpy() == pytest.approx(
        expected.loc[measured, "value"].to_numpy(), rel=1e-3, abs=1e-4, nan_ok=True
    )


def test_a_dissection_finds_the_same() -> None:
    tables = []
    for model in pair():
        tables.append(dissect(model, goals_of(model), CONFIG, stranger=disturbed(model)).tables["transplant"])
    numbers = tables[0].select_dtypes("number").columns
    pd.testing.assert_frame_equal(tables[1][numbers], tables[0][numbers], rtol=1e-3, atol=1e-3)
