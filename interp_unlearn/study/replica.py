"""One organism of a replication: built, gated and studied, down to the small folder that the tests over organisms read.

An organism takes more than an hour, and none needs another: they may be made on several machines and put together,
since such a folder says what it was made by.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp_unlearn.artifacts import (
    as_read_back,
    environment,
    read_json,
    read_parquet,
    replaced,
    write_json,
    write_parquet,
)
from interp_unlearn.errors import ArtifactError
from interp_unlearn.organism.build import SHIPPED_TWINS, BuildConfig, build_organism
from interp_unlearn.organism.quality import check_organism
from interp_unlearn.organism.shipped import shipped_twins, twin_hashes
from interp_unlearn.study.plan import StudyConfig
from interp_unlearn.study.reproduce import reproduce

RECORD, MEASURES, QUALITY = "replica.json", "dissociation.parquet", "quality.json"


def make_replica(out: Path, number: int, study: StudyConfig, build: BuildConfig) -> Path:
    """Builds an organism, measures its gates and, if it passed them, runs the study on it; one thread.

    Continues where an interrupted run stopped. Nothing is unlearned on an organism that failed a gate.

    Args:
        out: the replication's folder.
        number: of the organism; 0 is the shipped one, k has world and initialisation of seed k.
        study: its study.
        build: its build, but for the seeds.

    Returns:
        `out/replicas/<number>`, which appears whole: replica.json (hashes, settings, versions, the value and bounds of
        every gate) and, for an organism that passed, dissociation.parquet (the study's measures by cell and seed).

    Raises:
        ArtifactError: the folder holds a replica made by other settings.
    """
    folder = replica_folder(out, number)
    if is_made(out, number, study, build):
        return folder
    organism = build_replica(out, number, build)
    described = describe_organism(organism, number)
    if described["passed"]:
        reproduce(study_folder(out, number), workers=1, config=study, organism=organism)
    with replaced(folder) as temporary:
        if described["passed"]:
            write_parquet(temporary / MEASURES, read_parquet(study_folder(out, number) / MEASURES))
        record = {"identity": _identity(number, study, build), "organism": described, "environment": environment()}
        write_json(temporary / RECORD, record | {"gates": read_gates(organism)})
    return folder


def is_made(out: Path, number: int, study: StudyConfig, build: BuildConfig) -> bool:
    """Whether a replica is there, made by these settings.

    Raises:
        ArtifactError: it was made by others.
    """
    file = replica_folder(out, number) / RECORD
    if not file.exists():
        return False
    if read_json(file).get("identity") != as_read_back(_identity(number, study, build)):
        raise ArtifactError(
            f"{file} was made by other settings than this replication's; remove its folder to make organism {number} "
            "anew, or choose another --out"
        )
    return True


def build_replica(out: Path, number: int, config: BuildConfig) -> Path:
    """Builds an organism and measures its gates, unless that was done already, or it is the shipped one.

    The original comes first: where it fails a gate, the others, which could not save the organism, are not built.
    """
    folder = organism_folder(out, number)
    settings = replace(config, world_seed=number, init_seed=number)
    for twins in (SHIPPED_TWINS[:1], SHIPPED_TWINS):
        if not (folder / twins[-1] / QUALITY).exists():
            build_organism(folder, settings, twins)
            check_organism(folder, twins)
        if not read_json(folder / twins[0] / QUALITY)["passed"]:
            break
    return folder


def describe_organism(folder: Path, number: int) -> dict[str, Any]:
    """A line of the table of organisms: organism, passed, failed (which gates, in words), each twin's hash if built."""
    gates = read_gates(folder)
    failed = [f"{twin}: {gate['name']}" for twin, ones in gates.items() for gate in ones if not gate["passed"]]
    digests = twin_hashes(folder)
    hashes = {f"{twin}_sha256": digests[twin] if twin in gates else "" for twin in SHIPPED_TWINS}
    return {"organism": number, "passed": not failed, "failed": "; ".join(failed), **hashes}


def read_gates(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every gate of the twins that are built: name, value, low, high, n, passed."""
    built = [twin for twin in SHIPPED_TWINS if (folder / twin / QUALITY).exists()]
    return {twin: read_json(folder / twin / QUALITY)["gates"] for twin in built}


def read_replicas(out: Path, numbers: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of made replicas, the table of organisms and the measures of those that passed, with a column organism."""
    organisms = pd.DataFrame([read_json(replica_folder(out, number) / RECORD)["organism"] for number in numbers])
    passed: list[int] = organisms.loc[organisms["passed"], "organism"].tolist()
    parts = [read_parquet(replica_folder(out, number) / MEASURES).assign(organism=number) for number in passed]
    return organisms, pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def organism_folder(out: Path, number: int) -> Path:
    """Where an organism's twins lie."""
    return out / "organisms" / str(number) if number else shipped_twins()


def study_folder(out: Path, number: int) -> Path:
    """Where an organism's study lies."""
    return out / "studies" / str(number)


def replica_folder(out: Path, number: int) -> Path:
    """Where what the tests need of an organism lies."""
    return out / "replicas" / str(number)


def _identity(number: int, study: StudyConfig, build: BuildConfig) -> dict[str, Any]:
    made_from: dict[str, Any] = {"build": asdict(replace(build, world_seed=number, init_seed=number))}
    if not number:
        made_from = {"shipped": twin_hashes()}
    return {"task": "replica", "study": asdict(study), **made_from}
