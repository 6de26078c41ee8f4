"""Files a run leaves behind: safetensors, Parquet and JSON, each written whole or not at all."""

from interp_unlearn.artifacts.claims import (
    IDENTITY_FILE,
    check_claim,
    claim_folder,
    claimed,
    record_run,
)
from interp_unlearn.artifacts.environments import RECORDED_PACKAGES, environment, environments_since
from interp_unlearn.artifacts.files import (
    LARGEST_JSON,
    as_read_back,
    check_columns,
    hash_file,
    hash_tensors,
    read_json,
    read_parquet,
    read_record,
    read_sites,
    read_tensors,
    write_json,
    write_parquet,
    write_tensors,
)
from interp_unlearn.artifacts.writing import replaced

__all__ = [
    "IDENTITY_FILE",
    "LARGEST_JSON",
    "RECORDED_PACKAGES",
    "as_read_back",
    "check_claim",
    "check_columns",
    "claim_folder",
    "claimed",
    "environment",
    "environments_since",
    "hash_file",
    "hash_tensors",
    "read_json",
    "read_parquet",
    "read_record",
    "read_sites",
    "read_tensors",
    "record_run",
    "replaced",
    "write_json",
    "write_parquet",
    "write_tensors",
]
