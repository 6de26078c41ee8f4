"""Weight edits: what they change and leave alone, on every architecture; what is put back, recorded and refused."""

import copy
import json

import pandas as pd
import pytest
import torch
from conftest import ALL_ARCHITECTURES, make_hf

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.models import parameters_by_role
from interp_unlearn.sites import Site
from interp_unlearn.unlearning import (
    AdversaryConfig,
    FineTuning,
    GuardConfig,
    LoraConfig,
    ProFS,
    TaskVector,
    UnlearnConfig,
    UnlearnData,
    WeightEdit,
    pair_subspaces,
    unlearn,
)

TOXIC = ["the cat sat on a mat", "a cat ran on a hill", "the small cat said yes", "it was the cat and not a dog"]
CIVIL = ["the dog sat on a mat", "a dog ran on a hill", "the big dog said no", "it was the dog and not a dog"]
PAIRS = UnlearnData(forget=TOXIC, counterparts=CIVIL)
CONFIG = UnlearnConfig(layers=(0, 2))
every_architecture = pytest.mark.parametrize("architecture", ALL_ARCHITECTURES, indirect=True)


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.hf.named_parameters()}


def pooled(model, texts, layer):
    """Mean over real tokens but the BOS, from the plain model, one text at a time: no padding anywhere."""
    rows = []
    for text in texts:
        ids = torch.tensor([[1, *model.tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            hidden = model.hf(ids, output_hidden_states=True).hidden_states[layer + 1]
        rows.append(hidden[0, 1:].mean(0))
    return torch.stack(rows).double()


def basis_by_hand(model, layer, rank):
    toxic, civil = pooled(model, TOXIC, layer), pooled(model, CIVIL, layer)
    mean = civil.mean(0) / civil.mean(0).norm()
    centred = ((toxic - civil) / 2) @ (torch.eye(len(mean), dtype=torch.float64) - torch.outer(mean, mean))
    return torch.linalg.eigh(centred.T @ centred)[1][:, -rank:].T


@every_architecture
def test_profs_removes_the_span_from_what_its_matrices_add_to_the_stream(model, texts):
    before = values(model)
    batch, sites = model.tokenize(texts), [Site(layer, "mlp_out") for layer in range(3)]
    bases = {0: basis_by_hand(model, 0, 2), 1: basis_by_hand(model, 1, 2)}
    with torch.no_grad():
        written = model.run(batch, reads=sites)
    result = ProFS(rank=2).apply(model, PAIRS, UnlearnConfig(layers=(0, 1)), progress=False)
    targets = set(parameters_by_role(model.hf, ["mlp.down"], [0, 1]))
    assert {name for name, value in values(model).items() if not torch.equal(value, before[name])} == targets
    assert set(result.changed["tensor"]) == targets
    with torch.no_grad():
        after = model.run(batch, reads=sites)
    for layer, basis in bases.items():
        bias = {name: value for name, value in before.items() if f".{layer}.mlp" in name and "bias" in name}
        # A bias still writes: the same for every token, so that nothing that depends on the text is left.
        kept = [trace[Site(layer, "mlp_out")][batch.content_mask].double() @ basis.T for trace in (written, after)]
        spread = [(part - part.mean(0)).abs().max() for part in kept]
        assert spread[1] < 1e-4 < 1e-2 < spread[0], layer
        if not bias:
            assert kept[1].abs().max() < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"], indirect=True)
def test_profs_is_the_projection_of_each_matrix(model):
    """`P W = 0` and `W' = (I - P) W`, with the orientation of each architecture's layer written out."""
    # The last layer is left out: what transformers returns of it is after the final norm.
    before, bases = values(model), {layer: basis_by_hand(model, layer, 2) for layer in (0, 1)}
    ProFS(rank=2).apply(model, PAIRS, UnlearnConfig(layers=(0, 1)), progress=False)
    for layer, basis in bases.items():
        (name, weight), *_ = parameters_by_role(model.hf, ["mlp.down"], [layer]).items()
        old, new = before[name].double(), weight.detach().double()
        if "c_proj" in name:  # GPT-2's Conv1D holds [in, out]
            old, new = old.T, new.T
        assert (basis @ new).abs().max() < 1e-5 < 1e-2 < (basis @ old).abs().max()
        torch.testing.assert_close(new, old - basis.T @ basis @ old, rtol=0, atol=1e-5)


def test_other_matrices_that_write_into_the_stream_can_be_edited_too(llama, texts):
    basis = basis_by_hand(llama, 1, 1)
    config = UnlearnConfig(roles=("attn.o",), layers=(1,))
    result = ProFS(rank=1).apply(llama, PAIRS, config, progress=False)
    assert result.changed["tensor"].tolist() == ["model.layers.1.self_attn.o_proj.weight"]
    batch = llama.tokenize(texts)
    with torch.no_grad():
        out = llama.run(batch, reads=[Site(1, "attn_out")])[Site(1, "attn_out")]
    assert (out[batch.content_mask].double() @ basis.T).abs().max() < 1e-5


def test_pairs_are_pooled_over_completions_where_these_count(llama):
    prompts, ends = ["the cat"] * 3 + ["a dog"], [" sat", " ran on a mat", " said yes", " was small"]
    civil = [" was", " sat and ran", " said no", " was big"]
    data = UnlearnData(forget=prompts, forget_completions=ends, counterparts=civil)
    found = pair_subspaces(llama, data, [1], 1, UnlearnConfig(forget_on="completion"), centre="none", progress=False)
    differences = []
    for prompt, *pair in zip(prompts, ends, civil, strict=True):
        batch = llama.tokenize([prompt, prompt], completions=pair)
        with torch.no_grad():
            h = llama.run(batch, reads=[Site(1, "resid_post")])[Site(1, "resid_post")]
        toxic, other = (h[row][batch.completion_mask[row]].mean(0) for row in range(2))
        differences.append((toxic - other).double())
    expected = torch.linalg.svd(torch.stack(differences), full_matrices=False).Vh[0]
    assert abs(expected @ found[1].basis[0]) == pytest.approx(1.0, abs=1e-5)
    whole = pair_subspaces(llama, data, [1], 1, UnlearnConfig(), centre="none", progress=False)
    assert abs(whole[1].basis[0] @ found[1].basis[0]) < 0.999  # the prompts count in the pool there


def test_the_pairs_drawn_depend_on_the_seed_alone(llama):
    def basis_of(seed, n_pairs):
        config = UnlearnConfig(seed=seed)
        found = pair_subspaces(llama, PAIRS, [1], 1, config, n_pairs=n_pairs, progress=False)
        assert found[1].n_pairs == min(n_pairs, 4)
        return found[1].basis[0]

    assert torch.equal(basis_of(0, 2), basis_of(0, 2))
    assert not torch.allclose(basis_of(0, 2).abs(), basis_of(3, 2).abs())
    torch.testing.assert_close(basis_of(0, 500).abs(), basis_of(3, 500).abs())  # all of them, in another order


@pytest.mark.parametrize("edit", [ProFS(rank=1), TaskVector(0.5)], ids=["profs", "task_vector"])
def test_an_edit_is_deterministic_and_can_be_taken_back(tokenizer, edit):
    hashes = []
    for noise in (1, 2):
        model = HookedModel(make_hf("llama"), tokenizer)
        torch.manual_seed(noise)
        before = model.hash()
        edit.apply(model, PAIRS, UnlearnConfig(steps=2, batch_size=2), restore=True, progress=False)
        assert model.hash() == before
        edit.apply(model, PAIRS, UnlearnConfig(steps=2, batch_size=2), progress=False)
        hashes.append(model.hash())
    assert hashes[0] == hashes[1] != before


@every_architecture
def test_a_task_vector_is_what_fine_tuning_adds(model):
    original = values(model)
    copied = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
    config = UnlearnConfig(steps=4, batch_size=2, roles=("mlp",), layers=(0, 1), learning_rate=3e-3)
    unlearn(copied, FineTuning("forget", retains=False), PAIRS, config, progress=False)
    tuned = values(copied)
    result = TaskVector(0.7).apply(model, PAIRS, config, progress=False)
    targets = set(parameters_by_role(model.hf, ["mlp"], [0, 1]))
    for name, value in values(model).items():
        if name in targets:
            expected = original[name] - 0.7 * (tuned[name] - original[name])
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
            assert (value - original[name]).abs().max() > 1e-4
        else:
            assert torch.equal(value, original[name])
    assert result.history["step"].tolist() == [0, 1, 2, 3]
    assert result.curve.to_dict("records")[0] == pytest.approx(
        {"coefficient": 0.7, "score": float("nan"), "chosen": True}, nan_ok=True
    )


def test_negation_makes_the_forget_texts_less_likely(llama):
    from interp_unlearn.evaluation import token_nll

    before = token_nll(llama, TOXIC)["nll"].sum()
    config = UnlearnConfig(steps=10, batch_size=4, learning_rate=3e-3)
    tuned = TaskVector(1.0).apply(llama, PAIRS, config, progress=False).history["forget"]
    assert tuned.iloc[-1] < tuned.iloc[0]
    assert token_nll(llama, TOXIC)["nll"].sum() > before


def test_the_coefficient_is_chosen_by_the_score_on_the_edited_model(llama):
    original = values(llama)
    name = next(iter(parameters_by_role(llama.hf, ["mlp.down"], [1])))
    moved, scores = [], iter([0.2, 0.9, float("nan"), 0.9])

    def score(model):
        assert not torch.is_grad_enabled()
        moved.append((dict(model.hf.named_parameters())[name] - original[name]).norm().item())
        return next(scores)

    config = UnlearnConfig(steps=2, batch_size=2, layers=(1,))
    result = TaskVector((0.5, 1.0, 2.0, 3.0), score).apply(llama, PAIRS, config, progress=False)
    assert moved == pytest.approx([moved[0] * factor for factor in (1, 2, 4, 6)], rel=1e-3)
    assert moved[0] > 1e-4
    assert result.curve["chosen"].tolist() == [False, True, False, False]  # the first of equals
    final = (dict(llama.hf.named_parameters())[name] - original[name]).norm().item()
    assert final == pytest.approx(moved[1])
    with pytest.raises(ConfigError, match="no number"):
        TaskVector((0.5, 1.0), lambda _: float("nan")).apply(llama, PAIRS, config, progress=False)


class Broken(WeightEdit):
    """Changes a tensor, then fails or spoils it."""

    def __init__(self, fault):
        super().__init__(name="broken")
        object.__setattr__(self, "fault", fault)

    def change(self, model, data, config, reference, progress):
        for tensor in reference.tensors.values():
            tensor.mul_(float("nan") if self.fault == "nan" else 2.0)
        if self.fault == "raises":
            raise KeyError("planted")
        if self.fault == "still":
            reference.restore()
        return pd.DataFrame(), pd.DataFrame()


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [("raises", KeyError, "planted"), ("nan", ConfigError, "not finite"), ("still", ConfigError, "have not moved")],
)
def test_whatever_goes_wrong_the_original_comes_back(llama, fault, error, match):
    before = llama.hash()
    with pytest.raises(error, match=match):
        Broken(fault).apply(llama, PAIRS, CONFIG, progress=False)
    assert llama.hash() == before


@pytest.mark.parametrize("edit", [ProFS(rank=1), TaskVector(0.5)], ids=["profs", "task_vector"])
def test_dropout_is_off_and_modes_are_left_as_found(tokenizer, edit):
    hashes = []
    for mode in (True, False):
        hf = make_hf("gpt2")  # has dropout 0.1
        hf.train(mode)
        model = HookedModel(hf, tokenizer)
        edit.apply(model, PAIRS, UnlearnConfig(steps=2, batch_size=2), progress=False)
        assert all(module.training == mode for module in hf.modules())
        hashes.append(model.hash())
    assert hashes[0] == hashes[1]


def test_a_backend_that_cannot_follow_gets_the_original_back(tokenizer):
    model = HookedModel(make_hf("gpt_neox"), tokenizer, backend="transformer_lens")
    before = model.hash()
    with pytest.raises(BackendError, match="cannot follow"):
        ProFS(rank=1).apply(model, PAIRS, UnlearnConfig(layers=(1,)), progress=False)
    assert model.hash() == before


def test_a_failing_score_puts_the_original_back(llama):
    before = llama.hash()

    def score(model):
        assert model.hash() != before
        raise RuntimeError("planted")

    config = UnlearnConfig(steps=2, batch_size=2)
    with pytest.raises(RuntimeError, match="planted"):
        TaskVector((0.5, 1.0), score).apply(llama, PAIRS, config, progress=False)
    assert llama.hash() == before
    assert all(parameter.requires_grad for parameter in llama.hf.parameters())


def test_the_record_is_written_like_that_of_a_training(llama, tmp_path):
    result = ProFS(rank=2, centre="none").apply(llama, PAIRS, CONFIG, progress=False)
    assert result.history["layer"].tolist() == [0, 2]
    assert result.history["tensor"].tolist() == result.changed["tensor"].tolist()
    assert ((result.history["share"] > 0.3) & (result.history["share"] <= 1)).all()
    assert result.seconds > 0
    result.save(tmp_path / "run")
    llama.save_pretrained(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "history.parquet"), result.history)
    assert not (tmp_path / "run" / "curve.parquet").exists()
    record = json.loads((tmp_path / "run" / "unlearn.json").read_text())
    assert record["objective"] == "profs"
    assert record["settings"] == {"rank": 2, "n_pairs": 500, "centre": "none"}
    assert UnlearnConfig(**record["config"]) == result.config
    assert HookedModel.from_pretrained(tmp_path / "run").hash() == llama.hash()
    scored = TaskVector((0.5, 1.0), lambda _: 1.0)
    assert scored.settings() == {"coefficient": (0.5, 1.0)}


@pytest.mark.parametrize(
    ("edit", "data", "config", "match"),
    [
        (ProFS(), UnlearnData(forget=TOXIC), CONFIG, "counterparts"),
        (ProFS(rank=9), PAIRS, CONFIG, "layer 0: rank must be between 1"),
        (ProFS(), PAIRS, UnlearnConfig(roles=("mlp.up",)), "write into the stream.*got mlp.up"),
        (ProFS(), PAIRS, UnlearnConfig(roles=("mlp",)), "got mlp"),
        (ProFS(), PAIRS, UnlearnConfig(roles=None), "got all"),
        (ProFS(), PAIRS, UnlearnConfig(layers=(7,)), "out of range"),
        (ProFS(), PAIRS, UnlearnConfig(roles=("mlp.sideways",)), "no parameter has role"),
        (ProFS(), PAIRS, UnlearnConfig(forget_on="completion"), "forget_completions"),
        (TaskVector(), PAIRS, UnlearnConfig(forget_on="completion"), "forget_completions"),
    ],
)
def test_what_does_not_fit_is_refused(llama, edit, data, config, match):
    before = llama.hash()
    with pytest.raises(ConfigError, match=match):
        edit.apply(llama, data, config, progress=False)
    assert llama.hash() == before


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TaskVector(0.0), "more than 0"),
        (lambda: TaskVector(()), "more than 0"),
        (lambda: TaskVector((0.5, 1.0)), "need a score"),
        (lambda: ProFS(rank=0), "at least 1"),
        (lambda: ProFS(n_pairs=0), "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_every_backend_edits_the_same_weights(tokenizer, backend):
    edited = []
    for name in ("torch", backend):
        model = HookedModel(make_hf("llama"), tokenizer, backend=name)
        ProFS(rank=2).apply(model, PAIRS, CONFIG, progress=False)
        edited.append(values(model))
    for name, value in edited[0].items():
        torch.testing.assert_close(edited[1][name], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "told",
    [
        {"guard": GuardConfig(max_kl=1e-6, every=1)},
        {"lora": LoraConfig(rank=2)},
        {"adversary": AdversaryConfig(steps=1, gradient_steps=(1,))},
    ],
)
def test_a_task_vector_is_that_of_a_whole_fine_tuning(llama, told):
    before = llama.hash()
    data = UnlearnData(forget=TOXIC, retain=CIVIL)
    with pytest.raises(ConfigError, match="drop guard, lora and adversary"):
        TaskVector().apply(llama, data, UnlearnConfig(steps=2, layers=(0, 1), **told), progress=False)
    assert llama.hash() == before
