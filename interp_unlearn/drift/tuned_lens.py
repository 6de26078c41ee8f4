"""The tuned lens: an affine map at each layer that turns its stream into what the last layer's would be."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from interp_unlearn.activations import ActivationStore
from interp_unlearn.artifacts import environment, read_tensors, write_tensors
from interp_unlearn.directions.readout import Readout, stream_sites
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.settings import check_fields
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.interventions import HookedModel

FORMAT = "interp_unlearn tuned lens"
"""How a safetensors file says that `TunedLens.save` wrote it."""


@dataclass(frozen=True)
class TunedLensConfig:
    """How translators are fitted.

    Attributes:
        steps: of each translator; 0 leaves the identity.
        batch_texts: texts of a step, all their tokens.
        learning_rate: of Adam, falling linearly to 0.
        weight_decay: towards the identity, decoupled.
        held_out: share of the texts kept apart to measure the fit on.
        seed: of the split and the batches.

    Raises:
        ConfigError: a setting is out of range.
    """

    steps: int = 250
    batch_texts: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 0 or self.batch_texts < 1 or not self.learning_rate > 0 or self.weight_decay < 0:
            raise ConfigError(
                "expected steps and weight_decay of at least 0, batch_texts of at least 1 and a learning_rate above 0, "
                f"got {self.steps}, {self.weight_decay}, {self.batch_texts}, {self.learning_rate}"
            )
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out: expected a share between 0 and 1, got {self.held_out}")


@dataclass(frozen=True, eq=False)
class TunedLens:
    """A translator at each site: ``h + weight @ h + bias``; the stream after the last layer is left as it is.

    Attributes:
        weights: of each site below the last layer.
        biases: of the same sites.
        last: the site after the last layer.
        table: one row a site: ``site, layer, kl_logit, kl_tuned`` (mean KL of the model's own prediction from that of
            the logit lens and of the translated stream, nats per token, on held-out texts), ``n_tokens``. A translator
            that is no better than the logit lens there has not learned, or has learned its texts by heart.
        metadata: model and its hash, data hash, settings of the fit.
    """

    weights: Mapping[Site, Float[Tensor, "d_model d_model"]]
    biases: Mapping[Site, Float[Tensor, " d_model"]]
    last: Site
    table: "pd.DataFrame"
    metadata: Mapping[str, Any]

    def translate(self, stream: Float[Tensor, "*n d_model"], site: Site) -> Float[Tensor, "*n d_model"]:
        """The stream of a site in the last layer's terms, in float32.

        Raises:
            SiteError: there is no translator for the site.
        """
        stream = stream.float()
        if site == self.last:
            return stream
        if site not in self.weights:
            known = ", ".join(map(str, (*self.weights, self.last)))
            raise SiteError(f"no translator at {site}; the lens was fitted at {known}")
        return _translated(stream, self.weights[site].to(stream.device), self.biases[site].to(stream.device))

    def to_frame(self) -> "pd.DataFrame":
        """A copy of the table."""
        return self.table.copy()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        tensors = {f"{site}.weight": weight for site, weight in self.weights.items()}
        tensors |= {f"{site}.bias": bias for site, bias in self.biases.items()}
        record = {
            "format": FORMAT,
            "last": str(self.last),
            "table": json.dumps(self.table.to_dict("list")),
            "metadata": json.dumps(dict(self.metadata)),
        }
        write_tensors(path, tensors, record)

    @classmethod
    def load(cls, path: str | Path) -> "TunedLens":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing, damaged, or of another kind.
        """
        import pandas as pd

        tensors, record = read_tensors(path)
        if record.get("format") != FORMAT:
            raise ArtifactError(f"{path}: not written by TunedLens.save; fit the lens again")
        parts: dict[str, dict[Site, Tensor]] = {"weight": {}, "bias": {}}
        try:
            for name, tensor in sorted(tensors.items()):
                site, _, part = name.rpartition(".")
                parts[part][Site.parse(site)] = tensor
            table = pd.DataFrame(json.loads(record["table"])).astype({"layer": "Int64"})
            last, metadata = Site.parse(record["last"]), dict(json.loads(record["metadata"]))
        except (SiteError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{path}: its record cannot be read ({error}); fit the lens again") from error
        weights, biases = ({site: found[site] for site in sorted(found)} for found in parts.values())
        if not weights or not all(
            site in biases and biases[site].ndim == 1 and weight.shape == 2 * biases[site].shape
            for site, weight in weights.items()
        ):
            raise ArtifactError(f"{path}: expected a square matrix and a bias at each site; fit the lens again")
        return cls(weights, biases, last, table, metadata)


def fit_tuned_lens(
    model: "HookedModel",
    store: ActivationStore,
    config: TunedLensConfig | None = None,
    *,
    progress: bool = True,
) -> TunedLens:
    """Fit an affine translator for every layer of a model, by KL to the model's own final distribution.

    Fit it on the original and read an unlearned model through it: a lens fitted on the unlearned one would follow
    wherever the answer went. No pass is made: streams come from the store, and only norm and head of the model are
    used. Translators start at the identity, where the lens is the logit lens.
    Source: Belrose et al. 2023, arXiv 2303.08112, with the authors' code in the form of the translator (the map is
    added to the stream, so that decay draws it to the identity); Adam instead of their SGD, and fewer tokens, are ours.
    Caveat: translators learn what the texts of the fit need. On other texts, or on a changed model's stream, a poor
    reading may be the lens's fault: ``table`` shows the fit on held-out texts of the same kind.

    Args:
        model: the original; its weights are not touched.
        store: its token-level store of general texts, at sites of the stream with that after the last layer among them.
        config: how; defaults where None.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the store holds one vector a text, lacks the last layer, has no other site of the stream, or too
            few texts to hold some out.
        ArtifactError: the store is another model's.
        CheckpointError: the model has no head, or reads its stream out in a way that is not known.
    """
    import pandas as pd

    config = config or TunedLensConfig()
    store.check_model(model)
    last = Site(model.n_layers - 1, "resid_post")
    sites = [site for site in stream_sites(store) if site < last]
    if not store.token_level or last not in store.sites or not sites:
        raise ConfigError(
            f'a tuned lens needs a store with pool="none" at {last} and at sites of the stream before it; collect it so'
        )
    order = np.random.default_rng(config.seed).permutation(len(store))
    n_test = round(config.held_out * len(store))
    if not 0 < n_test < len(store):
        raise ConfigError(f"{len(store)} texts are too few to hold {config.held_out:.0%} of them out; give more")
    train, test = np.sort(order[n_test:]), np.sort(order[:n_test])
    readout = Readout(model)
    weights: dict[Site, Tensor] = {}
    biases: dict[Site, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for site in tqdm(sites, desc="tuned lens", disable=not progress):
        comparison = _Comparison(readout, store, site, last, config.batch_texts)
        weight, bias = comparison.fit(train, config)
        weights[site], biases[site] = weight.cpu(), bias.cpu()
        measures = {
            "kl_logit": comparison.mean_kl(test, torch.zeros_like(weight), torch.zeros_like(bias)),
            "kl_tuned": comparison.mean_kl(test, weight, bias),
            "n_tokens": int(store.rows["n_tokens"].to_numpy()[test].sum()),
        }
        rows.append({"site": str(site), "layer": site.layer, **measures})
    kept = {name: store.metadata.get(name) for name in ("model", "model_hash", "data_hash", "include_bos")}
    metadata = {**kept, **asdict(config), "versions": environment()}
    return TunedLens(weights, biases, last, pd.DataFrame(rows).astype({"layer": "Int64"}), metadata)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """The stream of a site, translated, against the stream after the last layer."""

    readout: Readout
    store: ActivationStore
    site: Site
    last: Site
    batch_texts: int

    def kl(
        self, texts: Int[np.ndarray, " text"], weight: Float[Tensor, "d d"], bias: Float[Tensor, " d"]
    ) -> Float[Tensor, " token"]:
        """KL of the model's own prediction from the translated stream's, in nats, of every token of some texts."""
        with torch.no_grad():
            target = self.readout(self.store.read(self.last, texts)).log_softmax(-1)
        stream = self.store.read(self.site, texts).float().to(self.readout.device)
        predicted = self.readout(_translated(stream, weight, bias)).log_softmax(-1)
        return F.kl_div(predicted, target, reduction="none", log_target=True).sum(-1)

    def fit(
        self, texts: Int[np.ndarray, " text"], config: TunedLensConfig
    ) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
        rng = np.random.default_rng(config.seed)
        d = self.store.read(self.site, [0]).shape[1]
        weight, bias = (torch.zeros(shape, device=self.readout.device, requires_grad=True) for shape in ((d, d), (d,)))
        optimizer = torch.optim.AdamW([weight, bias], lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(config.steps, 1))
        for _ in range(config.steps):
            chosen = np.sort(rng.choice(texts, min(self.batch_texts, len(texts)), replace=False))
            loss = self.kl(chosen, weight, bias).mean()
            # Not loss.backward(): that would leave gradients on the model's norm and head.
            weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
            optimizer.step()
            schedule.step()
        return weight.detach(), bias.detach()

    @torch.no_grad()
    def mean_kl(
        self, texts: Int[np.ndarray, " text"], weight: Float[Tensor, "d d"], bias: Float[Tensor, " d"]
    ) -> float:
        parts = np.array_split(texts, -(-len(texts) // self.batch_texts))
        return float(torch.cat([self.kl(part, weight, bias) for part in parts]).double().mean())


def _translated(stream: Tensor, weight: Float[Tensor, "d d"], bias: Float[Tensor, " d"]) -> Tensor:
    return stream + stream @ weight.T + bias
