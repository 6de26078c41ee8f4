"""Bad input, what a model is asked: sites, edits, tokens, texts, collections, generations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import TEXTS, make_hf, make_tokenizer

from interp_unlearn import (
    Add,
    Clamp,
    HookedModel,
    ProjectOut,
    Replace,
    Scale,
    Site,
    Span,
    TokenMask,
    UnlearnConfig,
    Where,
    collect,
)
from interp_unlearn.directions import Directions, promoted_tokens
from interp_unlearn.errors import BackendError, ConfigError, DataError, InterpError, SiteError
from interp_unlearn.evaluation import generate_texts, perplexity, score_answers, take_exam
from interp_unlearn.models import TokenBatch, parameters_by_role, tokenize, tokenize_chats
from interp_unlearn.unlearning import UnlearnData, projection_scales

NAN, INF = float("nan"), float("inf")
Act = Callable[[HookedModel], object]
V, MID, Z = torch.ones(32), Site(1, "resid_post"), Site(1, "z")
BEYOND = Site(3, "z")


def odd(value: object) -> Any:
    """A value of a type that the type checker would refuse."""
    return value


def asked(*reads: Site, **options: Any) -> Act:
    """Run a pass."""
    return lambda model: model.run(model.tokenize(TEXTS), reads, **options)


def edited(edit: Any, site: Site = MID) -> Act:
    """Run a pass under an edit."""
    return asked(edits={site: edit})


def collected(**options: Any) -> Act:
    settings: dict[str, Any] = {"texts": TEXTS, "sites": [MID], "progress": False, **options}
    return lambda model: collect(model, **settings)


def generated(new_tokens: int, **options: Any) -> Act:
    return lambda model: model.generate(model.tokenize(["the cat"]), new_tokens, **options)


def written(**options: Any) -> Act:
    settings: dict[str, Any] = {"prompts": ["a"], "max_new_tokens": 1, "progress": False, **options}
    return lambda model: generate_texts(model, **settings)


EDITS: dict[str, tuple[Act, str]] = {
    "width": (
        edited(Add(torch.ones(8))),
        r"the edit has width 8 but the activation here has width 32; was it made for",
    ),
    "NaN": (lambda m: Add(V * NAN), r"vector holds infinite values or NaN; expected finite numbers"),
    "zero": (lambda m: ProjectOut(V * 0), r"all directions are zero; expected at least one direction to project out"),
    "coefficient": (lambda m: Add(V, NAN), r"coefficient: expected a finite number, got nan"),
    "threshold": (lambda m: Clamp(V, INF), r"threshold: expected a finite number, got inf"),
    "overshoot": (lambda m: Clamp(V, 0.0, NAN), r"overshoot: expected a finite number, got nan"),
    "side": (lambda m: Clamp(V, 0.0, side=odd("left")), r"side must be 'above' or 'below', got 'left'"),
    "factor": (lambda m: Scale(INF), r"factor: expected a finite number, got inf"),
    "replacement": (lambda m: Replace(V * INF), r"value holds infinite values or NaN; expected finite numbers"),
    "replacement's shape": (
        edited(Replace(torch.ones(4, 2, 32))),
        r"holds a value of shape \(4, 2, 32\) but .*; read it",
    ),
    "a list": (lambda m: Add(odd([1.0])), r"vector must be a tensor with 1 or 2 dimensions, got list"),
    "a head beyond": (edited(Scale(0.0, heads=[4]), Z), r"heads: got \[4\], the model has heads 0 to 3"),
    "heads elsewhere": (
        edited(Scale(0.0, heads=[0])),
        r"heads are told apart at the site z only; drop heads, or edit z",
    ),
    "a negative head": (lambda m: Scale(0.0, heads=[-1]), r"expected head numbers counted from 0, got \[-1\]"),
    "no heads": (lambda m: Scale(0.0, heads=[]), r"expected head numbers counted from 0, got \[\]"),
    "vectors of heads": (edited(Add(torch.ones(4, 32))), r"a vector for each of 4 heads .*; give one vector \[d\], or"),
    "an empty span": (lambda m: Span(3, 3), r"Span\(3, 3\) is empty; expected start < stop"),
    "a mask of numbers": (
        lambda m: TokenMask(torch.ones(2, 2)),
        r"expected a boolean tensor \[batch, pos\], got torch",
    ),
    "another mask": (
        edited(Scale(0.0, tokens=TokenMask(V[None] > 0))),
        r"does not fit a pass of .* tokens; make it for",
    ),
    "a condition": (lambda m: Where(V, NAN), r"Where: threshold: expected a finite number, got nan"),
    "a zero condition": (lambda m: Where(V * 0, 1.0), r"Where: expected a finite direction \[d\] that is not zero"),
    "tokens": (
        lambda m: Scale(0.0, tokens=odd("some")),
        r"expected one of all, last, prompt, completion, .*got 'some'",
    ),
    "completion": (
        edited(Scale(0.0, tokens="completion")),
        r"does not say which tokens are the completion; give a bat",
    ),
    "no edit": (edited("zork"), r"1\.resid_post: expected an edit such as ProjectOut\(direction\), got 'zork'"),
}
ASKED: dict[str, tuple[Act, str]] = {
    "role": (
        lambda m: parameters_by_role(m.hf, ["mlp.zork"]),
        r"no parameter has role mlp\.zork; this model has attn\.k",
    ),
    "layer of a role": (lambda m: parameters_by_role(m.hf, ["mlp"], [3]), r"layers \[3\] out of range; .* 0 to 2"),
    "a site twice": (collected(sites=[MID, MID]), r"expected at least one and each once, got 1\.resid_post, 1\.resid_"),
    "no sites": (collected(sites=[]), r"sites: expected at least one and each once, got none"),
    "pool": (collected(pool="max"), r"pool: expected mean, last or none, got 'max'"),
    "labels": (collected(labels=[0.5] * 4), r"labels: expected 4 integers or booleans, got float64 \(4,\)"),
    "groups": (collected(groups=["a"]), r"groups: expected one per text \(4\), got 1"),
    "budget": (collected(batch_tokens=0), r"batch_tokens must be at least 1, got 0"),
    "one string": (lambda m: m.tokenize("the cat"), r"must be a list of texts, got one string; wrap it in a list"),
    "no chat template": (lambda m: tokenize_chats(m.tokenizer, [[{"role": "user", "content": "a"}]]), r"no chat templ"),
    "no new tokens": (generated(0), r"max_new_tokens must be at least 1, got 0"),
    "no seed": (generated(1, do_sample=True), r"sampling needs a seed, temperature > 0 and .*, got seed=None"),
    "nucleus": (generated(1, do_sample=True, seed=0, top_p=NAN), r"0 < top_p <= 1, got .*top_p=nan"),
    "stop": (written(stop="zork zork"), r"'zork zork' is 2 tokens of this tokenizer; expected exactly one"),
    "batch size": (written(batch_size=0, do_sample=False), r"batch_size must be at least 1, got 0"),
    "form": (lambda m: take_exam(m, [], odd(["essay"])), r"no form essay; expected of text, letter, choices_only, gen"),
    "logits and a stop": (asked(stop_after=1, logits=True), r"stop_after=1 ends the pass before them; drop one"),
    "nothing": (asked(logits=False), r"no reads, logits=False and no stop_after; ask for one of them"),
    "many tokens": (lambda m: promoted_tokens(m, Directions({MID: V}), 27), r"k: expected 1 to 26 tokens, .*, got 27"),
    "a wide direction": (lambda m: Directions({MID: torch.ones(8)}).check_width(m), r"is 8 wide, but tiny-llama is 32"),
    "a zero direction": (
        lambda m: Directions({MID: V * 0}),
        r"1\.resid_post: the direction is zero; expected a vector",
    ),
}
TEXTUAL: dict[str, tuple[Act, str]] = {
    "none": (lambda m: m.tokenize([]), r"texts: empty; expected at least one text"),
    "an empty one": (
        lambda m: m.tokenize(["the", ""]),
        r"text 1 has no tokens \(max_length None\); drop or shorten it",
    ),
    "none collected": (collected(texts=[]), r"texts: no texts to collect activations from; expected at least one"),
    "no corpus": (lambda m: UnlearnData(forget=[]), r"forget: empty; expected at least one text"),
    "one string": (lambda m: UnlearnData(forget="the"), r"expected a list of texts, got one string; wrap it in a list"),
    "groups": (lambda m: UnlearnData(forget=["a"], groups=[]), r"groups: 0 groups for 1 forget texts; give one each"),
    "completions": (
        lambda m: UnlearnData(["a"], forget_completions=[]),
        r"1 texts but 0 completions; expected as many",
    ),
    "an empty row": (lambda m: TokenBatch.from_rows([[1], []]), r"batch: row 1 has no tokens; drop empty texts"),
    "an answer": (
        lambda m: score_answers(m, ["a"], [[" cat"]], [1]),
        r"answers: row 0: answer 1 outside its pool of 1",
    ),
    "no pool": (lambda m: score_answers(m, ["a"], [[]], []), r"answers: 0 answers for 1 pools; expected as many"),
    "cut": (
        lambda m: tokenize(m.tokenizer, ["a"], completions=["b"], max_length=2),
        r"completion 0 has no tokens \(max_",
    ),
    "no perplexity": (lambda m: perplexity(m, []), r"texts: empty; expected at least one text"),
}
PLACES: dict[str, tuple[Act, str]] = {
    "component": (
        lambda m: Site.parse("1.resid"),
        r"unknown component 'resid'; expected one of resid_pre, z, attn_out",
    ),
    "text": (
        lambda m: Site.parse("last"),
        r"cannot read 'last' as a site; expected for example 5\.resid_post, embed or",
    ),
    "digits": (
        lambda m: Site.parse("1" * 5000 + ".z"),
        r"as a site; expected for example 5\.resid_post, embed or logits",
    ),
    "no layer": (lambda m: Site(None, "z"), r"z needs a layer counted from 0, got None"),
    "a negative layer": (lambda m: Site(-1, "z"), r"z needs a layer counted from 0, got -1"),
    "a layer in words": (lambda m: Site(odd("1"), "z"), r"z needs a layer counted from 0, got 1"),
    "a layer of the logits": (lambda m: Site(1, "logits"), r"logits has no layer, got layer 1; use Site\.logits"),
    "a layer beyond": (asked(BEYOND), r"3\.z: layer out of range; the model has layers 0 to 2"),
    "an edit beyond": (edited(Scale(0.0), BEYOND), r"3\.z: layer out of range; the model has layers 0 to 2"),
    "collected beyond": (collected(sites=[BEYOND]), r"3\.z: layer out of range; the model has layers 0 to 2"),
    "beyond the stop": (asked(MID, stop_after=0), r"lies beyond stop_after=0; raise it or drop the read"),
    "edits by text": (asked(edits=odd({"1.z": Scale(0.0)})), r"edits are keyed by Site, got '1\.z'; use Site\.parse"),
    "directions by text": (
        lambda m: Directions(odd({"1.z": V})),
        r"directions are keyed by Site, got '1\.z'; use Site",
    ),
    "a direction at z": (lambda m: promoted_tokens(m, Directions({Z: V})), r"1\.z is not in the residual stream; give"),
}
GROUPS: dict[str, tuple[type[InterpError], dict[str, tuple[Act, str]]]] = {
    "edit": (ConfigError, EDITS),
    "asked": (ConfigError, ASKED),
    "texts": (DataError, TEXTUAL),
    "site": (SiteError, PLACES),
}
CASES = {f"{group}: {name}": (error, *case) for group, (error, cases) in GROUPS.items() for name, case in cases.items()}


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return HookedModel(make_hf("llama"), make_tokenizer(), name="tiny-llama")


@pytest.mark.parametrize("case", list(CASES))
def test_what_cannot_be_done_is_refused_with_one_clear_line(case: str, model: HookedModel) -> None:
    error, act, message = CASES[case]
    before = model.hash()
    with pytest.raises(error, match=message) as raised:
        act(model)
    assert len(str(raised.value).splitlines()) == 1
    assert model.hash() == before


def test_components_that_an_architecture_lacks_are_named() -> None:
    parallel = HookedModel(make_hf("gpt_neox"), make_tokenizer())
    with pytest.raises(
        SiteError, match=r"1\.resid_mid: attention and MLP run in parallel .*, so there is no resid_mid"
    ):
        asked(Site(1, "resid_mid"))(parallel)
    with pytest.raises(BackendError, match=r"unknown backend 'zork'; expected one of torch, transformer_lens, nnsight"):
        HookedModel(make_hf("llama"), make_tokenizer(), "zork")


def test_classes_that_do_not_part_are_named(model: HookedModel) -> None:
    data = UnlearnData(forget=TEXTS, neutral=TEXTS)
    with pytest.raises(ConfigError, match=r"gap of their medians is 0 .*choose another layer or another estimator"):
        projection_scales(model, data, {1: V}, [1], UnlearnConfig())
