"""Where tensors sit, swapping them in place, and the delta as something to take apart, add up and apply."""

from pathlib import Path

import pytest
import torch
from conftest import ALL_ARCHITECTURES, make_hf
from planted_deltas import copied, disturbed, logits_of
from transformers import PreTrainedTokenizerBase

from interp_unlearn.artifacts import write_tensors
from interp_unlearn.errors import ArtifactError, BackendError, CheckpointError, ConfigError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.mechanism import WeightDelta, applied, swapped, tensor_groups, tensor_places
from interp_unlearn.models import parameters_by_role


@pytest.mark.parametrize("name", ALL_ARCHITECTURES)
def test_every_tensor_has_its_place(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = HookedModel(make_hf(name), tokenizer)
    places = tensor_places(model)
    assert set(places) == {tensor for tensor, _ in model.hf.named_parameters()}
    for role, part in (("attn", "attention"), ("mlp", "mlp")):
        for layer in range(3):
            for tensor in parameters_by_role(model.hf, [role], [layer]):
                assert (places[tensor].layer, places[tensor].part) == (layer, part)
    for tensor, place in places.items():
        inside = [int(piece) for piece in tensor.split(".") if piece.isdigit()]
        assert place.layer == (inside[0] if inside else None)
        if "layernorm" in tensor or "ln_" in tensor or tensor == "model.norm.weight":
            assert place.part == "norm"
    head = model.hf.get_output_embeddings()
    assert head is not None
    tied = head.weight is model.hf.get_input_embeddings().weight
    assert ("unembedding" in {place.part for place in places.values()}) == (not tied)
    outside = [place for place in places.values() if place.layer is None and place.part == "norm"]
    assert outside and all(place.depth == float("inf") for place in outside)


def test_groups_cover_the_model(model: HookedModel) -> None:
    every = set(dict(model.hf.named_parameters()))
    for kind in ("layer", "part"):
        groups = tensor_groups(model, [kind])
        assert sorted(tensor for group in groups for tensor in group.tensors) == sorted(every)
    groups = tensor_groups(model, ["all", "layer", "up_to", "from", "part", "rest", "layer_part"])
    assert len({group.name for group in groups}) == len(groups)
    up_to, after = (tensor_groups(model, [kind]) for kind in ("up_to", "from"))
    for lower, upper in zip(up_to, after, strict=True):
        assert lower.tensors | upper.tensors == every
        assert not lower.tensors & upper.tensors
    parts = {group.name: group.tensors for group in tensor_groups(model, ["part", "rest"])}
    assert parts["rest"] == every - parts["attention"] - parts["mlp"]
    found = {group.name: group for group in tensor_groups(model, ["layer_part", "layer"])}
    assert found["layer 1 mlp"].layer == found["layer 1"].layer == 1
    assert found["layer 1 mlp"].tensors == found["layer 1"].tensors & parts["mlp"]
    assert found["before blocks"].layer is None
    with pytest.raises(ConfigError, match="kinds"):
        tensor_groups(model, [])


def test_swapped_weights_are_the_other_model_and_come_back(model: HookedModel) -> None:
    other = disturbed(model)
    before, after = logits_of(model), logits_of(other)
    own, theirs = model.hash(), other.hash()
    with swapped(model, {name: tensor.detach() for name, tensor in other.hf.named_parameters()}):
        assert model.hash() == theirs
        assert torch.equal(logits_of(model), after)
        with swapped(model, {}), pytest.raises(ConfigError, match="no tensor"), swapped(model, {"nothing": after}):
            pass
        assert model.hash() == theirs
    assert model.hash() == own
    assert torch.equal(logits_of(model), before)
    assert other.hash() == theirs


def test_weights_come_back_after_an_exception_down_to_the_sign_of_zero(llama: HookedModel) -> None:
    name, parameter = next(iter(llama.hf.named_parameters()))
    with torch.no_grad():
        parameter[0, :2] = torch.tensor([-0.0, 0.0])
    before = llama.hash()
    with pytest.raises(KeyError), swapped(llama, {name: torch.ones_like(parameter)}):
        assert llama.hash() != before
        raise KeyError
    assert llama.hash() == before
    with pytest.raises(ConfigError, match="shape"), swapped(llama, {name: torch.ones(3)}):
        pass
    assert llama.hash() == before


def test_other_backends_follow_or_refuse(tokenizer: PreTrainedTokenizerBase) -> None:
    mirrored = HookedModel(make_hf("llama"), tokenizer, backend="transformer_lens")
    plain = HookedModel(make_hf("llama"), tokenizer)
    delta = WeightDelta.between(plain, disturbed(plain))
    with applied(mirrored, delta), applied(plain, delta):
        assert torch.allclose(logits_of(mirrored), logits_of(plain), atol=1e-4)
    assert torch.allclose(logits_of(mirrored), logits_of(plain), atol=1e-4)
    copying = HookedModel(make_hf("gpt_neox"), tokenizer, backend="transformer_lens")
    logits_of(copying)  # the mirror is booted with copies of q, k and v
    before = copying.hash()
    with pytest.raises(BackendError), swapped(copying, {n: t + 1 for n, t in copying.hf.named_parameters()}):
        pass
    assert copying.hash() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_delta_leads_to_the_other_model_and_no_further(model: HookedModel, dtype: torch.dtype) -> None:
    model.hf.to(dtype=dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
    other = disturbed(model)
    own = model.hash()
    delta = WeightDelta.between(model, other)
    with applied(model, delta):
        assert model.hash() == other.hash()
    assert model.hash() == own
    with pytest.raises(ZeroDivisionError), applied(model, delta, 0.5):
        raise ZeroDivisionError
    assert model.hash() == own


def test_a_scaled_delta_goes_part_of_the_way_and_on_some_tensors(llama: HookedModel) -> None:
    other = disturbed(llama)
    delta = WeightDelta.between(llama, other)
    chosen = set(parameters_by_role(llama.hf, ["mlp"], [2]))
    start = {name: tensor.detach().clone() for name, tensor in llama.hf.named_parameters()}
    with applied(llama, delta, 0.25, chosen):
        for name, tensor in llama.hf.named_parameters():
            expected = start[name] + 0.25 * (other.hf.get_parameter(name) - start[name])
            assert torch.allclose(tensor, expected if name in chosen else start[name], atol=1e-6)
    assert delta.restricted(chosen).changes.keys() == chosen


def test_only_changed_tensors_are_kept_and_cannot_be_written_to(llama: HookedModel) -> None:
    other = disturbed(llama, lambda name: "layers.1.mlp" in name)
    delta = WeightDelta.between(llama, other)
    assert set(delta.changes) == set(parameters_by_role(llama.hf, ["mlp"], [1]))
    with pytest.raises(TypeError):
        delta.changes["new"] = torch.ones(1)  # pyright: ignore[reportIndexIssue]
    with pytest.raises(ConfigError, match="same weights"):
        WeightDelta.between(llama, copied(llama))


def test_norms_by_place(model: HookedModel) -> None:
    other = disturbed(model)
    delta = WeightDelta.between(model, other)
    squares = {
        n: float((p - model.hf.get_parameter(n)).double().square().sum()) for n, p in other.hf.named_parameters()
    }
    assert delta.norm == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)
    assert dict(zip(*delta.to_frame()[["tensor", "norm"]].T.to_numpy(), strict=True)) == pytest.approx(
        {name: square**0.5 for name, square in squares.items()}, rel=1e-5
    )
    table = delta.norms(model)
    for kind in ("layer", "part"):
        assert table.loc[table["kind"] == kind, "energy"].sum() == pytest.approx(1.0)
    mlp = parameters_by_role(model.hf, ["mlp"]).keys()
    mlp = {n for n in squares if any(n.rsplit(".", 1)[0] == m.rsplit(".", 1)[0] for m in mlp)}  # with their biases
    found = table.set_index("group").loc["mlp"]
    assert found["norm"] == pytest.approx(sum(squares[n] for n in mlp) ** 0.5, rel=1e-5)
    size = sum(float(model.hf.get_parameter(n).double().square().sum()) for n in mlp)
    assert found["relative"] == pytest.approx((sum(squares[n] for n in mlp) / size) ** 0.5, rel=1e-5)


def test_deltas_add_tensor_by_tensor(llama: HookedModel) -> None:
    first = WeightDelta.between(llama, disturbed(llama, lambda name: "mlp" in name or "lm_head" in name, 1))
    second = WeightDelta.between(llama, disturbed(llama, lambda name: "self_attn" in name or "lm_head" in name, 2))
    both = first + second
    assert set(both.changes) == set(first.changes) | set(second.changes)
    for name, change in both.changes.items():
        parts = [part.changes[name] for part in (first, second) if name in part.changes]
        assert torch.equal(change, torch.stack(parts).sum(0))


def test_checkpoints_and_files(llama: HookedModel, tmp_path: Path) -> None:
    other = disturbed(llama)
    other.save_pretrained(tmp_path / "changed")
    delta = WeightDelta.between(llama, str(tmp_path / "changed"))
    delta.save(tmp_path / "delta.safetensors")
    loaded = WeightDelta.load(tmp_path / "delta.safetensors")
    assert loaded.changes.keys() == delta.changes.keys()
    with applied(llama, loaded):
        assert llama.hash() == other.hash()
    write_tensors(tmp_path / "other.safetensors", {"a": torch.ones(1)}, {"kind": "activations"})
    with pytest.raises(ArtifactError, match="no weight delta"):
        WeightDelta.load(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError):
        WeightDelta.between(llama, tmp_path / "nowhere")


def test_models_that_do_not_fit_are_refused(llama: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    stranger = HookedModel(make_hf("gpt2"), tokenizer)
    with pytest.raises(ConfigError, match="in one model only"):
        WeightDelta.between(llama, stranger)
    half = copied(llama)
    half.hf.bfloat16()
    with pytest.raises(ConfigError, match="load both alike"):
        WeightDelta.between(llama, half)
    with (
        pytest.raises(ConfigError, match="no such tensor"),
        applied(stranger, WeightDelta.between(llama, disturbed(llama))),
    ):
        pass
    broken = disturbed(llama)
    with torch.no_grad():
        next(broken.hf.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigError, match="NaN"):
        WeightDelta.between(llama, broken)
