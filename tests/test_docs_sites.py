"""docs/sites.md is what its command makes, and the names in it are those of the libraries."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import make_hf, make_tokenizer

from interp_unlearn.interventions import HookedModel
from interp_unlearn.sites import Site

SCRIPT = Path(__file__).parent.parent / "docs" / "write_sites.py"
FAMILIES = {"llama": "Llama", "qwen3": "Qwen3", "gemma2": "Gemma2", "gpt2": "GPT-2", "gpt_neox": "GPT-NeoX"}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_sites", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(family: str) -> dict[str, list[str]]:
    """The cells of one family's table, by site, at layer 1."""
    sections = SCRIPT.with_name("sites.md").read_text(encoding="utf-8").split("\n## ")[1:]
    (section,) = [text for text in sections if family in text.splitlines()[0].split(", ")]
    lines = [line for line in section.replace("{i}", "1").splitlines() if line.startswith("| `")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {site: rest for site, *rest in cells}


def test_the_page_is_current() -> None:
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_page_that_is_not_current_is_noticed_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script()
    monkeypatch.setattr(script, "PAGE", tmp_path / "sites.md")
    monkeypatch.setattr(script, "page", lambda: "new")
    monkeypatch.setattr(sys, "argv", ["write_sites.py", "--check"])
    for old in (None, "old"):
        if old:
            script.PAGE.write_text(old)
        with pytest.raises(SystemExit, match="is not what the code makes"):
            script.main()
        assert old is None or script.PAGE.read_text() == old
    monkeypatch.setattr(sys, "argv", ["write_sites.py"])
    script.main()
    assert script.PAGE.read_text() == "new"


def test_what_has_no_module_says_so() -> None:
    assert rows_of("Llama")["1.resid_mid"][:3] == ["none: `resid_pre + attn_out", "", "computed"]
    assert rows_of("GPT-NeoX")["1.resid_mid"] == ["does not exist", "", "", "", ""]
    assert rows_of("Mistral") == rows_of("Qwen2") == rows_of("Llama") != rows_of("Gemma2")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_name_holds_the_activation_of_its_site(name: str) -> None:
    """In nnsight and in TransformerLens, written as the table has it."""
    from nnsight import NNsight
    from transformer_lens.model_bridge import TransformerBridge

    rows = {site: row for site, row in rows_of(FAMILIES[name]).items() if row[0] != "does not exist"}
    assert len(rows) == (8 if name == "gpt_neox" else 9)
    model = HookedModel(make_hf(name), make_tokenizer())
    batch = model.tokenize(["the cat sat on a mat", "a big red dog ran on"])
    sites = {site: Site.parse(site) for site in rows}
    with torch.no_grad():
        expected = model.run(batch, list(sites.values()))

    wrapped = NNsight(make_hf(name))
    for site, (_, side, expression, *_) in rows.items():
        if expression == "computed":
            continue
        with torch.no_grad(), wrapped.trace(input_ids=batch.input_ids, use_cache=False):
            found = eval(f"wrapped.{expression}").save()
        torch.testing.assert_close(found, expected[sites[site]].reshape(found.shape))
        assert re.search(rf"\b{side}\b", expression)

    tokenizer = make_tokenizer()
    tokenizer.bos_token = None  # with one the bridge would load the tokenizer again from disk
    bridge = TransformerBridge.boot_transformers(
        type(model.hf).__name__, hf_model=make_hf(name), tokenizer=tokenizer, device="cpu"
    )
    found = {}
    for site, (*_, hook, shape) in rows.items():
        value = expected[sites[site]]
        assert len(value.shape) == shape.count(",") + 1
        if site == "logits":
            continue
        with torch.no_grad():
            bridge.run_with_hooks(
                batch.input_ids,
                fwd_hooks=[(hook, lambda value, hook, site=site: found.update({site: value}))],
                attention_mask=batch.attention_mask,
            )
        torch.testing.assert_close(found[site], value, atol=1e-5, rtol=1e-4)
