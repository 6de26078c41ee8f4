"""A probe's score at every token of a text, from a store that holds a vector for each token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp_unlearn.activations import ActivationStore
from interp_unlearn.activations.store import Rows
from interp_unlearn.errors import ConfigError
from interp_unlearn.probes.probe_set import Estimator, ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


def score_tokens(
    probes: ProbeSet,
    store: ActivationStore,
    tokenizer: "PreTrainedTokenizerBase",
    sites: Site | Sequence[Site] | None = None,
    rows: Rows | None = None,
    estimator: Estimator = "logistic",
) -> "pd.DataFrame":
    """Score single tokens, as `figures.draw_token_heatmap` draws them.

    A score is linear in the vector, so that a text's score under mean pooling is the mean over its tokens.
    Caveat: a probe fitted on pooled vectors never saw a single token, so that 0 need not part the classes there, and
    large scores of opposite sign may stand for nothing that the classes differ in.

    Args:
        probes: where to score and along which directions.
        store: collected with ``pool="none"``, from any model of the probes' width.
        tokenizer: that of the store's model, to write the tokens.
        sites: one or several; None for every site that both have.
        rows: which texts; None for all.
        estimator: which of the two directions.

    Returns:
        One line per site and token, site after site: ``row`` (of the text in the store), ``place`` (in the text,
        counted from 0 at its first token that counts), ``token`` (its text, with the space before it), ``site``,
        ``layer``, ``score`` (signed L2 distance from the probe's border in the residual stream, positive on the side of
        class 1).

    Raises:
        ConfigError: the store holds one vector per text or vectors of another width, no text is selected, or there is
            no site in common.
        SiteError: a site without probe or vectors.
    """
    import pandas as pd

    if sites is None:
        sites = [site for site in probes.sites if site in store.sites]
    chosen = [sites] if isinstance(sites, Site) else list(sites)
    if not chosen:
        raise ConfigError("no site to score: the store holds none of the probes' sites; collect it at those")
    vectors = {site: store.read(site, rows) for site in chosen}
    if len(vectors[chosen[0]]) == 0:
        raise ConfigError("rows: nothing is selected")
    for site in chosen:
        width, expected = vectors[site].shape[1], len(probes.direction(site, estimator))
        if width != expected:
            raise ConfigError(
                f"{site}: the probe is {expected} wide, the store's vectors {width}; take a store of their model"
            )
    tokens = store.token_frame(rows)
    ids = tokens["token_id"].tolist()
    texts = {token: token_text(tokenizer, token) for token in set(ids)}
    table = tokens[["row", "place"]].assign(token=[texts[token] for token in ids])
    parts = [
        table.assign(site=str(site), layer=site.layer, score=probes.score(vectors[site], site, estimator).numpy())
        for site in chosen
    ]
    return pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})


def token_text(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    """What a token adds to a text: decoded after itself, since some decoders drop the space before a first token."""
    once, twice = (
        str(tokenizer.decode([token] * n, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for n in (1, 2)
    )
    return twice[len(once) :]
