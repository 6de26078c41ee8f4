"""Layer by layer, how near to the answer a stream is when it is read out at once: the logit lens, or a tuned one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp_unlearn.activations import ActivationStore
from interp_unlearn.directions.readout import Readout, stream_sites
from interp_unlearn.drift.tuned_lens import TunedLens
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.models.encoding import encode_continuations

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

TEXTS_AT_ONCE = 256


@torch.no_grad()
def answer_lens(
    model: "HookedModel",
    store: ActivationStore,
    answers: Sequence[str],
    *,
    lens: TunedLens | None = None,
    position: int | Sequence[int] = -1,
    batch_size: int = TEXTS_AT_ONCE,
) -> "pd.DataFrame":
    """Probability and rank of each text's answer when the stream is read out after every layer.

    The stream comes from the store, final norm and head from the model: give the store's own model for its logit lens,
    or the original with the original's tuned lens to read a changed model's stream with the original's eyes. After the
    last layer the stream is taken before the final norm, so that there a model's own lens is its own prediction.
    Source: nostalgebraist 2020 (the logit lens); Belrose et al. 2023, arXiv 2303.08112 (the tuned lens).
    Caveat: an answer that the lens does not find may be there in a form that it does not read, and what it finds need
    not be what later layers use. Read a changed model beside the original and a model that never knew. Of an answer of
    several tokens only the first is scored.

    Args:
        model: whose final norm and head read.
        store: streams of the prompts up to the answer: a vector for each token, or pooled "last".
        answers: what follows each prompt, with its leading space.
        lens: translates the stream first; None for the logit lens.
        position: which token of a text, counted from 0 at its first that counts, negative from its end; one for all or
            one a text. In a store pooled "last" there is only the last.
        batch_size: texts in a readout.

    Returns:
        One row a site and text: ``site, layer`` (null for the embedding), ``row`` (of the text), ``token_id`` (of the
        answer), ``lens`` (logit, tuned), ``log_probability`` (nats), ``probability, rank`` (counted from 1, in the
        vocabulary; ties count as better).

    Raises:
        ConfigError: there is not one answer a text, the store is mean-pooled or of another width, it holds no site in
            the stream, or a position lies outside its text.
        DataError: an answer has no tokens.
        SiteError: the lens has no translator for a site.
        CheckpointError: the model has no head, or reads its stream out in a way that is not known.
    """
    import pandas as pd

    sites = stream_sites(store)
    targets = _first_tokens(model, answers, len(store))
    rows = _vector_rows(store, position)
    readout = Readout(model)
    parts: list[pd.DataFrame] = []
    for site in sites:
        vectors = store[site][rows]
        if vectors.shape[1] != model.d_model:
            raise ConfigError(f"{site}: the store's vectors are {vectors.shape[1]} wide, the model's {model.d_model}")
        values: list[Tensor] = []
        ranks: list[Tensor] = []
        for some, wanted in zip(vectors.split(batch_size), targets.split(batch_size), strict=True):
            read = readout(some.float() if lens is None else lens.translate(some, site)).log_softmax(-1)
            of_answer = read.gather(1, wanted[:, None].to(read.device))
            values.append(of_answer[:, 0].double().cpu())
            ranks.append((read >= of_answer).sum(1).cpu())
        columns = {
            "token_id": targets.numpy(),
            "lens": "logit" if lens is None else "tuned",
            "log_probability": torch.cat(values).numpy(),
            "probability": torch.cat(values).exp().numpy(),
            "rank": torch.cat(ranks).numpy(),
        }
        place = {"site": str(site), "layer": site.layer, "row": range(len(store))}
        parts.append(pd.DataFrame(place | columns).astype({"layer": "Int64"}))
    return pd.concat(parts, ignore_index=True)


def _first_tokens(model: "HookedModel", answers: Sequence[str], n: int) -> Int[Tensor, " text"]:
    if len(answers) != n:
        raise ConfigError(f"answers: expected one a text ({n}), got {len(answers)}")
    ids = encode_continuations(model.tokenizer, answers)
    if [] in ids:
        raise DataError("answers", f"answer {ids.index([])} has no tokens; drop its text")
    return torch.tensor([row[0] for row in ids])


def _vector_rows(store: ActivationStore, position: int | Sequence[int]) -> Int[Tensor, " text"]:
    """The store's row of each text's token."""
    n = len(store)
    if store.metadata.get("pool") == "last" and position == -1:
        return torch.arange(n)
    if not store.token_level:
        raise ConfigError('a lens reads single tokens: collect the store with pool="none", or "last" for the last ones')
    counts = torch.tensor(store.rows["n_tokens"].to_numpy())
    wanted = torch.tensor([position] * n if isinstance(position, int) else list(position))
    if len(wanted) != n:
        raise ConfigError(f"position: expected one number, or one a text ({n}), got {len(wanted)}")
    outside = (wanted >= counts) | (wanted < -counts)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ConfigError(f"position {int(wanted[row])} lies outside text {row}, which has {int(counts[row])} tokens")
    return counts.cumsum(0) - counts + wanted % counts
