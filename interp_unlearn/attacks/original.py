"""What is left of the original when the unlearned model is loaded: its scores, and what the attacks keep of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from interp_unlearn.activations.store import hash_data
from interp_unlearn.artifacts import claim_folder, replaced
from interp_unlearn.artifacts.fingerprint import fingerprint
from interp_unlearn.attacks.attack import RECORD, Attack, Record, Setup, measured
from interp_unlearn.attacks.measured_items import MeasuredItems
from interp_unlearn.attacks.prompted_measure import Measure
from interp_unlearn.attacks.streams import Streams, read_streams
from interp_unlearn.errors import DiskError, InterpError, ScoreError
from interp_unlearn.interventions import HookedModel
from interp_unlearn.interventions.model_source import ModelSource, load_source
from interp_unlearn.models.modes import eval_mode


@dataclass(frozen=True, eq=False)
class Original:
    """What is left of the original.

    Attributes:
        items: its scores.
        streams: None where no attack needs them.
        records: what each attack kept, by its key.
        failures: of the attacks that do not fit, by their key.
        hash: of its weights.
    """

    items: MeasuredItems
    streams: Streams | None
    records: Mapping[str, Record]
    failures: Mapping[str, InterpError]
    hash: str


def record_original(
    source: ModelSource, attacks: Sequence[Attack], setup: Setup, out: Path | None, progress: bool
) -> Original:
    """Load the original, measure it and let every attack keep what it needs; it is freed when this returns.

    Args:
        source: of the model.
        attacks: that will be made.
        setup: of the suite.
        out: folder of the suite, which has claimed it; what is stored there already is not measured again.
        progress: whether to show a progress bar.

    Raises:
        ScoreError: no item can be scored.
        ArtifactError: the folder holds another suite or another original.
    """
    model = load_source(source)
    folder = None
    if out is not None:
        folder = out / "original"
        claim_folder(folder, {"model_hash": model.hash()})
    records: dict[str, Record] = {}
    failures: dict[str, InterpError] = {}
    with eval_mode(model.hf):
        items = base_items(model, setup.measure, folder)
        streams = None
        if any(attack.reads_streams for attack in attacks):
            there = None if folder is None else folder / "streams"
            streams = read_streams(model, setup.data, setup.n_texts, setup.seed, there)
        for attack in tqdm(attacks, "original", disable=not progress):
            kept = None if folder is None else folder / attack.key
            if kept is not None and kept.exists():
                records[attack.key] = Record.load(kept)
                continue
            try:
                record = attack.record(model, setup)
            except DiskError:
                raise
            except InterpError as error:
                failures[attack.key] = error
                continue
            records[attack.key] = record
            if kept is not None:
                with replaced(kept) as temporary:
                    record.save(temporary)
    return Original(items, streams, records, failures, model.hash())


def suite_identity(setup: Setup) -> dict[str, Any]:
    """What makes a suite this suite, beside the models, which have their own folders."""
    return {
        "task": "attack",
        "measure": hash_data([fingerprint(setup.measure)]),
        "data": hash_data([fingerprint(setup.data)]),
        "n_texts": setup.n_texts,
        "seed": setup.seed,
        "n_resamples": setup.n_resamples,
    }


def base_items(model: HookedModel, measure: Measure, folder: Path | None) -> MeasuredItems:
    """The scores before any attack, measured or as they were kept in a folder.

    Raises:
        ScoreError: no item can be scored.
    """
    if folder is not None and (folder / RECORD).exists():
        return Record.load(folder).items["base"]
    items = measured(model, measure)
    if not len(items):
        first = next(iter(items.left_out.items()), ("(no item)", "the measure gave none"))
        raise ScoreError(f"no item can be scored on {model.name or 'the model'}; first {first[0]}: {first[1]}")
    if folder is not None:
        Record({"base": items}).save(folder)
    return items
