"""Every measure of drift on an unlearned model beside its original, one model in memory at a time."""

import logging
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from interp_unlearn.activations.store import hash_data
from interp_unlearn.artifacts import (
    IDENTITY_FILE,
    as_read_back,
    claim_folder,
    claimed,
    read_parquet,
    read_record,
    record_run,
    replaced,
    write_json,
    write_parquet,
)
from interp_unlearn.artifacts.fingerprint import fingerprint
from interp_unlearn.drift.comparison import ORIGINAL, TWIN, UNLEARNED, Comparison, Measured
from interp_unlearn.drift.measures import LACKING, MEASURES, Measure
from interp_unlearn.drift.readings import Reading, Readings, read_model
from interp_unlearn.drift.result import FOLDER, DriftResult, save_summary
from interp_unlearn.drift.setup import Answers, DriftSetup, DriftTexts
from interp_unlearn.drift.summary import joined, refused, summarise
from interp_unlearn.errors import ConfigError, DiskError, InterpError
from interp_unlearn.interventions.model_source import ModelSource, load_source, release, weights_of
from interp_unlearn.models.modes import eval_mode
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_MEASURE_FILE = "measure.json"
_HASHES = {UNLEARNED: "model_hash", ORIGINAL: "original_hash"}  # in run.json, as other verbs call them
_OF_OTHERS: frozenset[Reading] = frozenset({"answered", "pooled"})  # what is never read of the original
_READINGS = ("stream", "prompts", "answered", "pooled", "inputs")


def run_drift(
    unlearned: ModelSource,
    original: ModelSource,
    texts: DriftTexts | Mapping[str, Sequence[str]],
    sites: Sequence[Site] | None = None,
    measures: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    probes: ProbeSet | None = None,
    answers: Answers | None = None,
    twin: ModelSource | None = None,
    keep_activations: bool = False,
    **settings: Any,
) -> DriftResult:
    """Measure how an unlearned model differs from its original, in its weights and in its activations.

    The models are loaded one after another, the twin first and the original last: each is read onto disk (every token
    of the texts) and freed, and the measures are computed from what was read. A measure that needs what is not given
    (answers, probes, a twin), or that fails, gets a row with the reason, never a score.
    With ``out`` every finished measure is stored at once, and the same call on what an interrupted one left behind does
    only what is missing; other measures of the same models and texts may go into the same folder later.
    Caveat: of these measures only unlearning depth changes anything in a pass. What a change of the weights does,
    transplants and patching say (`interp_unlearn.mechanism`).

    Args:
        unlearned: the changed model; a model, where it is, or what loads it. Weights are compared only of models given
            themselves, as a path, or as a `Checkpoint`.
        original: what it was before.
        texts: on which to compare, by corpus; "forget" is what was to be forgotten. Or `DriftTexts`.
        sites: where; None for the embedding and resid_post of every layer.
        measures: names of `MEASURES`; None for all.
        out: folder of the results; None keeps only the tables, in memory.
        probes: fitted on the original; for re-trained probes, angles, and the weights' alignments.
        answers: prompts with true answers; for the lenses and unlearning depth.
        twin: a model that never knew; the floor of unlearning depth, lenses and re-trained probes.
        keep_activations: leave what was read in ``out``; otherwise it is removed once all measures are done.
        settings: of `DriftSetup`.

    Raises:
        ConfigError: a measure is not known or named twice, or a setting is out of range.
        ArtifactError: ``out`` holds another comparison, or another process writes to it.
        InterpError: of the first measure that failed, if nothing could be measured.
    """
    chosen = _chosen(measures)
    given = texts if isinstance(texts, DriftTexts) else DriftTexts.of(texts)
    setup = DriftSetup(given, sites, answers, probes, twin is not None, **settings)
    sources = {TWIN: twin, UNLEARNED: unlearned, ORIGINAL: original}
    with _workplace(out, setup) as folder:
        suite = _Suite(setup, folder, chosen)
        readings: dict[str, Readings] = {}
        for part in (TWIN, UNLEARNED):
            source = sources[part]
            if source is not None:
                readings[part] = suite.read(source, part)
                release(source)
        suite.measure(original, readings, (weights_of(unlearned), weights_of(original)))
        release(original)
        result = suite.result()
        if out is not None:
            save_summary(result, folder)
            hashes = {name: result.hashes[part] for part, name in _HASHES.items()}
            record_run(folder, {"identity": setup.identity() | hashes})
        if not keep_activations:
            for part in sources:
                for name in _READINGS:
                    shutil.rmtree(folder / part / name, ignore_errors=True)
    return result


def _chosen(names: Sequence[str] | None) -> list[Measure]:
    names = list(MEASURES) if names is None else list(names)
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names or len(set(names)) < len(names):
        wrong = f"no measure {unknown[0]!r}" if unknown else f"measures: got {', '.join(names) or 'none'}"
        raise ConfigError(f"{wrong}; expected at least one of {', '.join(MEASURES)}, each once")
    return [measure for name, measure in MEASURES.items() if name in names]


@contextmanager
def _workplace(out: str | Path | None, setup: DriftSetup) -> Generator[Path]:
    """The folder of the results, held while it is written to; a temporary one where none is wanted."""
    if out is None:
        with TemporaryDirectory(prefix="drift-") as folder:
            yield Path(folder)
    else:
        with claimed(out, _identity(Path(out), setup)) as folder:
            yield folder


def _identity(out: Path, setup: DriftSetup) -> dict[str, Any]:
    """With the hashes of both models where the folder has them: they are known only when both have been loaded, and
    that they are the same is seen at each model's own folder."""
    identity = setup.identity()
    if (out / IDENTITY_FILE).is_file():
        known = read_record(out / IDENTITY_FILE, identity=dict)["identity"]
        identity |= {name: known[name] for name in _HASHES.values() if name in known}
    return identity


class _Suite:
    """One call of `run_drift`: what is still to be done, and what has been found."""

    def __init__(self, setup: DriftSetup, folder: Path, chosen: Sequence[Measure]) -> None:
        self._setup, self._folder = setup, folder
        lacking = {need for need in LACKING if not self._is_given(need)}
        without = {
            measure.name: [LACKING[need] for need in LACKING if need in measure.needs & lacking] for measure in chosen
        }
        self._reasons = {name: "; ".join(reasons) for name, reasons in without.items() if reasons}
        self._todo = [m for m in chosen if m.name not in self._reasons and not self._is_done(m)]
        self._failures: dict[str, InterpError] = {}
        self._hashes: dict[str, str] = {}

    def read(self, source: ModelSource, part: str) -> Readings:
        """Load a model and read what the measures need of it; nothing holds it afterwards."""
        model = load_source(source)
        self._claim(model.hash(), part)
        with eval_mode(model.hf):
            return read_model(model, self._wanted(part), self._setup, self._folder / part)

    def measure(self, source: ModelSource, readings: Mapping[str, Readings], weights: Any) -> None:
        """Load the original, read it, and compute every measure that is still to be done."""
        setup, there = self._setup, self._folder / ORIGINAL
        model = load_source(source)
        self._claim(model.hash(), ORIGINAL)
        with eval_mode(model.hf):
            own = read_model(model, self._wanted(ORIGINAL), setup, there)
            with_energy = any(measure.name == "weight_delta" for measure in self._todo)
            parts = {ORIGINAL: own, **{part: readings[part] for part in (UNLEARNED, TWIN) if part in readings}}
            comparison = Comparison(model, parts, setup, weights, there, with_energy)
            for measure in tqdm(self._todo, "drift", disable=not setup.progress):
                try:
                    found = measure.compute(comparison)
                except DiskError:
                    raise
                except InterpError as error:
                    logger.warning("%s: %s", measure.name, error)
                    self._failures[measure.name] = error
                else:
                    self._store(measure, found)

    def result(self) -> DriftResult:
        """All measures that are stored in the folder, and the reasons of those that are not.

        Raises:
            InterpError: of the first that failed, if there is none.
        """
        reasons = self._reasons | {name: str(error) for name, error in self._failures.items()}
        tables: dict[str, dict[str, pd.DataFrame]] = {}
        parts: list[pd.DataFrame] = []
        for name in MEASURES:
            kept = self._folder / FOLDER / name
            if name not in self._failures and (kept / _MEASURE_FILE).is_file():
                tables[name] = {file.stem: read_parquet(file) for file in sorted(kept.glob("*.parquet"))}
                parts.append(summarise(name, tables[name]))
            elif name in reasons:
                parts.append(refused(name, reasons[name]))
        if not tables and self._failures:
            raise next(iter(self._failures.values()))
        return DriftResult(joined(parts), tables, dict(self._hashes))

    def _claim(self, hashed: str, part: str) -> None:
        self._hashes[part] = hashed
        claim_folder(self._folder / part, {"model_hash": hashed})

    def _wanted(self, part: str) -> set[Reading]:
        readings: set[Reading] = {reading for measure in self._todo for reading in measure.reads}
        if part == TWIN:
            readings.discard("stream")  # no other text is compared with it
        elif part == ORIGINAL:
            readings.difference_update(_OF_OTHERS)
        return readings

    def _is_given(self, need: str) -> bool:
        return self._setup.has_twin if need == "twin" else getattr(self._setup, need) is not None

    def _is_done(self, measure: Measure) -> bool:
        record = self._folder / FOLDER / measure.name / _MEASURE_FILE
        if not record.is_file():
            return False
        done = read_record(record)["told"] == as_read_back(self._told(measure))
        if not done:
            logger.info("%s: measured with other settings before, and now again", measure.name)
        return done

    def _told(self, measure: Measure) -> dict[str, Any]:
        """What a measure was told, beside what the folder is claimed for."""
        setup = self._setup
        taken: dict[str, Any] = {
            "answers": fingerprint(setup.answers),
            "probes": None if setup.probes is None else setup.probes.hash(),
            "twin": setup.has_twin,
        }
        given = {name: value for name, value in taken.items() if name in measure.needs | measure.takes}
        drawn = {"n_null": setup.n_null, "rank": setup.rank, "seed": setup.seed, "lens": fingerprint(setup.lens)}
        return {"given": hash_data([given]), **drawn}

    def _store(self, measure: Measure, found: Measured) -> None:
        """A finished measure: its folder is there whole or not at all."""
        with replaced(self._folder / FOLDER / measure.name) as temporary:
            for name, table in found.tables.items():
                write_parquet(temporary / f"{name}.parquet", table)
            for name, saved in found.files.items():
                saved.save(temporary / name)
            write_json(temporary / _MEASURE_FILE, {"measure": measure.name, "told": self._told(measure)})
