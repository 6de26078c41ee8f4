"""Weight deltas: planted changes in models, checkpoint folders and references, and changes without any direction."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TEXTS, make_hf
from test_drift_paired import gaussian, token_store
from torch import Tensor, nn

from interp_unlearn.activations import collect
from interp_unlearn.directions import Directions
from interp_unlearn.drift import check_determinism, weight_delta
from interp_unlearn.errors import CheckpointError, ConfigError
from interp_unlearn.interventions import HookedModel, Scale
from interp_unlearn.models import parameters_by_role
from interp_unlearn.sites import Site, residual_stream
from interp_unlearn.unlearning import Reference

SITES = residual_stream(3)
POST = Site(1, "resid_post")
INPUT = Site(1, "mlp_post")
WRITTEN, READ = gaussian(1, 32).float(), gaussian(2, 48).float()


def down_proj(model: HookedModel) -> tuple[str, nn.Parameter]:
    ((name, weight),) = parameters_by_role(model.hf, ["mlp.down"], [1]).items()
    return name, weight


def add_rank_one(model: HookedModel, size: float = 0.5, read: Tensor = READ) -> None:
    name, weight = down_proj(model)
    pair = (read, WRITTEN) if "c_proj" in name else (WRITTEN, read)
    with torch.no_grad():
        weight.add_(size * torch.outer(*pair))


@pytest.fixture
def original(model: HookedModel) -> HookedModel:
    return HookedModel(copy.deepcopy(model.hf), model.tokenizer, name="original")


class TestPlantedChange:
    def test_it_is_the_one_named_with_its_rank_and_direction(self, model: HookedModel, original: HookedModel) -> None:
        add_rank_one(model)
        name, weight = down_proj(model)
        _, before = down_proj(original)
        delta = weight_delta(model, original, directions=Directions({POST: WRITTEN, Site(2, "resid_post"): WRITTEN}))
        assert delta.changed == (name,) and delta.first_tensor == name and delta.first_layer == 1
        assert delta.n_tensors == len(list(model.hf.named_parameters()))
        row: Any = delta.table.iloc[0]
        assert row["share"] == pytest.approx(1) and row["effective_rank"] == pytest.approx(1, abs=1e-4)
        assert (row["place"], row["moved"], row["full_rank"]) == ("block", 1.0, 32)
        assert row["relative_change"] == pytest.approx(float((weight - before).norm() / before.norm()), rel=1e-5)
        unit = WRITTEN / WRITTEN.norm()
        assert abs(float(delta.outputs[name][0] @ unit)) == pytest.approx(1, abs=1e-5)
        if model.architecture.post_norms:
            assert len(delta.alignments) == 0, "what is written there is not what arrives"
        else:
            aligned: Any = delta.alignments.iloc[0]
            assert len(delta.alignments) == 1 and aligned["site"] == "1.resid_post"
            assert aligned["cosine"] == pytest.approx(1, abs=1e-5) and aligned["energy"] == pytest.approx(1, abs=1e-5)

    def test_how_many_numbers_moved(self, model: HookedModel, original: HookedModel) -> None:
        _, weight = down_proj(model)
        with torch.no_grad():
            weight[0, :3] += 1.0
        row: Any = weight_delta(model, original).table.iloc[0]
        assert row["moved"] == pytest.approx(3 / weight.numel()) and row["elements"] == weight.numel()

    @pytest.mark.parametrize("shard", ["5GB", "20KB"])
    def test_folders_give_what_the_models_give(
        self, model: HookedModel, original: HookedModel, tmp_path: Path, shard: str
    ) -> None:
        add_rank_one(model)
        with torch.no_grad():
            model.architecture.embed.get_parameter("weight")[3] += 1
        in_memory = weight_delta(model, original)
        for one, folder in ((model, "changed"), (original, "original")):
            one.hf.save_pretrained(tmp_path / folder, max_shard_size=shard)
        assert (len(list((tmp_path / "changed").glob("*.safetensors"))) > 1) == (shard == "20KB")
        assert in_memory.table["place"].tolist()[0] == "embedding" and len(in_memory.changed) == 2
        for pair in (("changed", "original"), (model, "original"), ("changed", original)):
            sources = [tmp_path / source if isinstance(source, str) else source for source in pair]
            found = weight_delta(sources[0], sources[1])
            assert found.changed == in_memory.changed and found.n_tensors == in_memory.n_tensors
            for column in ("relative_change", "share", "effective_rank"):
                expected = in_memory.table[column].tolist()
                assert found.table[column].tolist() == pytest.approx(expected, rel=1e-5, nan_ok=True)

    def test_folders_are_read_without_loading_a_model(
        self, llama: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        llama.hf.save_pretrained(tmp_path / "original")
        add_rank_one(llama)
        llama.hf.save_pretrained(tmp_path / "changed")

        def refuse(*arguments: object, **options: object) -> None:
            raise AssertionError("a whole model was loaded")

        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
        monkeypatch.setattr("safetensors.torch.load_file", refuse)
        assert weight_delta(tmp_path / "changed", tmp_path / "original").changed == (down_proj(llama)[0],)

    def test_a_reference_remembers_the_original(self, model: HookedModel, original: HookedModel) -> None:
        reference = Reference(parameters_by_role(model.hf, ["mlp"]))
        add_rank_one(model)
        after = model.hash()
        found, expected = weight_delta(model, reference), weight_delta(model, original)
        assert found.table.to_dict("list") == expected.table.to_dict("list")
        assert model.hash() == after
        with pytest.raises(ConfigError, match="give that model"):
            weight_delta("folder", reference)

    def test_what_it_writes_into_the_stream_as_columns(self, model: HookedModel, original: HookedModel) -> None:
        add_rank_one(model)
        with torch.no_grad():  # what is no matrix of a block that writes has no part in it
            model.architecture.embed.get_parameter("weight")[3] += 1
        delta = weight_delta(model, original)
        if model.architecture.post_norms:
            assert delta.to_subspaces(2) == {}
            return
        ((site, columns),) = delta.to_subspaces(2).items()
        assert site == POST and columns.shape[0] == 32
        assert abs(float(columns[:, 0] @ (WRITTEN / WRITTEN.norm()))) == pytest.approx(1, abs=1e-5)
        assert delta.to_subspaces(1)[POST].shape == (32, 1)
        with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
            delta.to_subspaces(0)

    def test_two_matrices_of_a_layer_side_by_side(self, llama: HookedModel) -> None:
        before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
        add_rank_one(llama)
        ((_, weight),) = parameters_by_role(llama.hf, ["attn.o"], [1]).items()
        with torch.no_grad():
            weight.add_(torch.outer(gaussian(5, 32).float(), gaussian(6, weight.shape[1]).float()))
        columns = weight_delta(llama, before, n_directions=1).to_subspaces(1)[POST]
        written = torch.stack([gaussian(5, 32).float(), WRITTEN], dim=1)
        assert torch.linalg.matrix_rank(columns) == 2
        torch.testing.assert_close(columns @ torch.linalg.pinv(columns) @ written, written, rtol=1e-4, atol=1e-4)

    def test_its_frame_is_a_copy(self, llama: HookedModel) -> None:
        before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
        add_rank_one(llama)
        delta = weight_delta(llama, before)
        frame = delta.to_frame()
        frame["share"] = 7
        assert delta.table["share"].tolist() == pytest.approx([1])

    def test_saved(self, llama: HookedModel, tmp_path: Path) -> None:
        import pandas as pd

        before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
        add_rank_one(llama)
        delta = weight_delta(llama, before)
        delta.save(tmp_path)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "weight_delta.parquet"), delta.table)


class TestInputs:
    """What a change reads, against what comes in: activations along the first four of 48 axes mostly."""

    STORE = token_store({INPUT: gaussian(0, 200, 48) * torch.tensor([10.0] * 4 + [0.1] * 44)})

    def energy(self, model: HookedModel, read: Tensor) -> Any:
        before = HookedModel(copy.deepcopy(model.hf), model.tokenizer)
        add_rank_one(model, read=read)
        return weight_delta(model, before, store=self.STORE, n_directions=4).table.iloc[0]

    def test_along_the_activations_and_across_them(self, model: HookedModel) -> None:
        inside, outside = READ.clone(), READ.clone()
        inside[4:], outside[:4] = 0, 0
        along = self.energy(model, inside)
        assert along["input_energy"] == pytest.approx(1, abs=1e-3) and along["activation_energy"] > 0.99
        assert along["input_energy_null"] == pytest.approx(4 / 48)
        assert self.energy(model, outside)["input_energy"] < 0.01

    def test_a_change_that_knows_nothing_of_them_is_at_the_null(self, llama: HookedModel) -> None:
        before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
        name, weight = down_proj(llama)
        with torch.no_grad():
            weight.add_(gaussian(7, *weight.shape).float())
        delta = weight_delta(llama, before, store=self.STORE, n_directions=4)
        row: Any = delta.table.iloc[0]
        assert row["input_energy"] == pytest.approx(row["input_energy_null"], rel=0.5)
        assert row["share"] < 0.15 and row["effective_rank"] > 20
        alignments: list[Any] = [
            weight_delta(llama, before, directions=Directions({POST: gaussian(seed, 32)})).alignments.iloc[0]
            for seed in range(100, 130)
        ]
        within = [row["cosine"] < row["null_high"] for row in alignments]
        assert sum(within) / len(within) > 0.8
        assert sum(row["energy"] for row in alignments) / 30 == pytest.approx(1 / 32, rel=0.15)
        assert alignments[0]["energy_null"] == 1 / 32
        assert delta.outputs[name].shape == (4, 32)

    def test_another_models_store_is_refused(self, llama: HookedModel) -> None:
        before = HookedModel(copy.deepcopy(llama.hf), llama.tokenizer)
        add_rank_one(llama)
        with pytest.raises(ConfigError, match="reads 48 numbers a token, the store's vectors have 40"):
            weight_delta(llama, before, store=token_store({INPUT: gaussian(0, 20, 40)}))
        with pytest.raises(ConfigError, match="writes 32 numbers a token"):
            weight_delta(llama, before, directions=Directions({POST: READ}))


def test_other_precisions_and_other_models(llama: HookedModel) -> None:
    half = HookedModel(copy.deepcopy(llama.hf).to(dtype=torch.bfloat16), llama.tokenizer)  # pyright: ignore[reportCallIssue]
    assert len(weight_delta(half, llama).changed) == len(list(llama.hf.named_parameters()))
    again = HookedModel(copy.deepcopy(half.hf).float(), llama.tokenizer)
    assert weight_delta(again, half).changed == ()
    with pytest.raises(CheckpointError, match="do not have the same tensors"):
        weight_delta(HookedModel(make_hf("gpt2"), llama.tokenizer), llama)


def test_shapes_and_numbers_that_cannot_be_compared(llama: HookedModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    llama.hf.save_pretrained(tmp_path / "original")
    name, _ = down_proj(llama)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "cut": lambda weight: weight[:, :-1].contiguous(),
        "quantised": lambda weight: weight.to(torch.int8),
        "otherwise": lambda weight: weight.to(torch.float8_e4m3fn),
    }
    for folder, change in changes.items():
        llama.hf.save_pretrained(tmp_path / folder)
        file = tmp_path / folder / "model.safetensors"
        tensors = load_file(file)
        tensors[name] = change(tensors[name])
        save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"down_proj.*: shape \(32, 47\) in the changed model, \(32, 48\) before"):
        weight_delta(tmp_path / "cut", tmp_path / "original")
    with pytest.raises(ConfigError, match=r"down_proj.* is quantised to torch\.int8, torch\.float32"):
        weight_delta(tmp_path / "quantised", tmp_path / "original")
    with pytest.raises(ConfigError, match=r"is quantised to torch\.float32, torch\.int8"):
        weight_delta(tmp_path / "original", tmp_path / "quantised")
    for both in ("quantised", "otherwise"):  # their codes say nothing without the scales
        with pytest.raises(ConfigError, match="compare unquantised checkpoints"):
            weight_delta(tmp_path / both, tmp_path / both)
    with pytest.raises(ConfigError, match="n_directions must be at least 1, got 0"):
        weight_delta(tmp_path / "original", tmp_path / "original", n_directions=0)


def test_buffers_of_old_checkpoints_are_no_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_hf("gpt2")
    for folder in ("old", "new"):
        model.save_pretrained(tmp_path / folder)
    file = tmp_path / "old" / "model.safetensors"
    masks = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8), "transformer.h.0.crossattention.bias": torch.ones(1)}
    save_file(load_file(file) | masks, file, {"format": "pt"})
    found = weight_delta(tmp_path / "old", tmp_path / "new")
    assert found.changed == () and found.n_tensors == len(list(model.named_parameters()))
    save_file(load_file(file) | {"transformer.h.0.attn.other": torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"transformer\.h\.0\.attn\.other only in one"):
        weight_delta(tmp_path / "old", tmp_path / "new")


def test_a_folder_without_safetensors_is_refused(llama: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        weight_delta(tmp_path, llama)


class TestDeterminism:
    def test_below_the_change_nothing_moves(self, model: HookedModel, original: HookedModel) -> None:
        add_rank_one(model)
        sites = [*SITES, Site(1, "resid_pre"), Site(1, "attn_out")]
        stores = [collect(one, TEXTS, sites, "none", progress=False) for one in (original, model)]
        check = check_determinism(stores[0], stores[1], weight_delta(model, original))
        assert check.passed is True and check.largest_below == 0.0
        assert check.first_layer == 1 and check.first_tensor == down_proj(model)[0]
        below = check.table.set_index("site")["below"].to_dict()
        assert [site for site in below if below[site]] == ["embed", "0.resid_post", "1.resid_pre"]
        moved = check.table.set_index("site")["largest"].to_dict()
        assert moved["1.resid_post"] > 0 and moved["2.resid_post"] > 0

    def test_an_edit_that_was_left_on_is_found(self, model: HookedModel, original: HookedModel) -> None:
        add_rank_one(model)
        before = collect(original, TEXTS, SITES, "none", progress=False)
        with model.edited({Site(0, "resid_post"): Scale(1.001)}):
            after = collect(model, TEXTS, SITES, "none", progress=False)
        check = check_determinism(before, after, weight_delta(model, original))
        assert check.passed is False and check.largest_below > 0

    @pytest.mark.parametrize("tensor", ["embedding", "norm", "nothing"])
    def test_where_the_change_lies_outside_the_blocks(
        self, tensor: str, model: HookedModel, original: HookedModel
    ) -> None:
        parts = {"embedding": model.architecture.embed, "norm": model.architecture.final_norm, "nothing": None}
        part = parts[tensor]
        if part is not None:
            with torch.no_grad():
                part.get_parameter("weight").mul_(1.5)
        stores = [collect(one, TEXTS, [*SITES, Site.logits], "none", progress=False) for one in (original, model)]
        check = check_determinism(stores[0], stores[1], weight_delta(model, original))
        assert check.first_layer is None
        assert check.passed is (None if tensor == "embedding" else True)
        assert check.table["below"].tolist() == [tensor != "embedding"] * 4 + [tensor == "nothing"]
        assert (check.table["largest"].tolist()[-1] > 0) == (tensor != "nothing")

    def test_stores_of_other_passes_are_refused(self, llama: HookedModel) -> None:
        stores = [collect(llama, TEXTS, SITES, "none", batch_tokens=size, progress=False) for size in (4096, 16)]
        with pytest.raises(ConfigError, match="batch_tokens is 4096 in the original's store and 16"):
            check_determinism(stores[0], stores[1], weight_delta(llama, llama))
