"""Texts of two classes, and directions along which a tiny random model's activations part them."""

import torch

from interp_unlearn.sites import Site
from interp_unlearn.unlearning import UnlearnConfig, UnlearnData

FORGET = ["the cat sat on a mat", "a cat ran on a hill", "the small cat said yes", "it was the cat and not a dog"]
RETAIN = ["who said no", "the big red hill", "a blue dog ran and sat", "yes it was small then"]
NEUTRAL = ["a dog sat on a hill", "the dog ran", "it was blue and big", "who sat then"]
DATA = UnlearnData(
    forget=FORGET,
    retain=RETAIN,
    neutral=NEUTRAL,
    prompts=["the cat", "a"],
    groups=list("aabb"),
    counterparts=[text.replace("cat", "dog") for text in FORGET],
)
QUICK = UnlearnConfig(steps=25, batch_size=4, roles=("mlp",), layers=(0, 1), learning_rate=5e-3)


def planted_directions(model, layers):
    """A direction at each layer along which forget texts do lie beyond neutral ones."""
    sites = [Site(layer, "resid_post") for layer in layers]
    means = []
    for texts in (FORGET, NEUTRAL):
        batch = model.tokenize(texts)
        with torch.no_grad():
            trace = model.run(batch, reads=sites)
        means.append({site: trace[site][batch.content_mask].median(0).values for site in sites})
    return {site.layer: means[0][site] - means[1][site] for site in sites}


def planted_spans(model, layers):
    """Two directions at each layer, in whose span forget texts lie further from the neutral centre than neutral."""
    spans = {}
    for layer, direction in planted_directions(model, layers).items():
        generator = torch.Generator().manual_seed(layer)
        spans[layer] = torch.stack([direction, torch.randn(model.d_model, generator=generator).to(direction.device)])
    return spans


def read_at(model, texts, layer):
    batch = model.tokenize(texts)
    with torch.no_grad():
        trace = model.run(batch, reads=[Site(layer, "resid_post")])
    return trace[Site(layer, "resid_post")][batch.content_mask]
