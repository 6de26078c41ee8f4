"""Directions brought by the user: a refusal direction, a row of a sparse autoencoder's decoder, a steering vector."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp_unlearn.artifacts import hash_file, read_tensors
from interp_unlearn.directions.direction_set import FORMAT, Directions
from interp_unlearn.errors import ArtifactError, ConfigError, SiteError
from interp_unlearn.probes import Estimator, ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


def read_directions(
    path: str | Path,
    sites: Site | Sequence[Site] | None = None,
    *,
    name: str | None = None,
    row: int | None = None,
    model: "HookedModel | None" = None,
    estimator: Estimator = "logistic",
) -> Directions:
    """Read directions from a folder that `probe` wrote, from a safetensors file or from a .npy file.

    - a folder: the probes' directions;
    - tensors named by sites ("12.resid_post"): one direction each;
    - one tensor, the only one or the one named (``path#name`` does the same): [width] is put at every site of
      ``sites``, [site, width] holds one for each of them;
    - a sparse autoencoder's decoder: ``row`` is the latent. [d_sae, d_model] is SAELens's W_dec; a decoder lying the
      other way round, as a Linear's weight, is told by the model's width.

    Nothing is ever unpickled. The vectors are brought to unit norm, so a file's steering coefficient is lost.

    Args:
        path: the folder or file.
        sites: where a tensor that does not name its site belongs; the sites to keep of those that do.
        name: which tensor of a safetensors file.
        row: which latent of a decoder.
        model: checked against: its width, and its weights where the file records them.
        estimator: which direction of the probes.

    Raises:
        ArtifactError: the path is missing, damaged or of another kind, or belongs to another model.
        ConfigError: the tensor's shape does not say which numbers are the direction, or is not of the model's width.
        SiteError: no site was given where one is needed, or the model has no such site.
    """
    chosen = [sites] if isinstance(sites, Site) else None if sites is None else list(sites)
    text, _, fragment = str(path).partition("#")
    file, name = Path(text), name or fragment or None
    if file.is_dir():
        if name is not None or row is not None:
            raise ConfigError(
                f"{file}: name and row pick a tensor of a file, and this is a folder of probes; drop them"
            )
        directions = Directions.of(ProbeSet.load(file), estimator)
        directions = directions if chosen is None else directions.at(chosen)
    else:
        tensors, record = _tensors_of(file)
        if name is not None or row is not None or not _names_sites(tensors):
            directions = _of_one(file, tensors, name, row, chosen, model)
        else:
            ours = record.get("format") == FORMAT
            directions = Directions.load(file) if ours else _named_by_sites(file, tensors)
            directions = directions if chosen is None else directions.at(chosen)
    if model is not None:
        directions.check_model(model)
    return directions


def _tensors_of(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.suffix == ".npy":
        import numpy as np

        try:
            # Mapped, so that a header which claims more than the file holds allocates nothing.
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise ArtifactError(f"{file}: no such file; expected .npy, .safetensors or a folder of probes") from error
        except (ValueError, EOFError, OSError, OverflowError) as error:
            raise ArtifactError(f"{file}: not a NumPy array of numbers: {error}; save one with numpy.save") from error
        if not isinstance(array, np.ndarray):  # an archive of several, whatever its name says
            raise ArtifactError(f"{file}: not a NumPy array of numbers, but an archive; save one array with numpy.save")
        if array.dtype.kind not in "fiu":
            raise ArtifactError(f"{file}: not a NumPy array of numbers, but of {array.dtype}")
        return {file.stem: torch.from_numpy(array.astype("float64"))}, {}
    if not file.exists():
        raise ArtifactError(f"{file}: no such file or folder; expected a folder of probes, .safetensors or .npy")
    if file.suffix != ".safetensors":
        raise ArtifactError(
            f"{file}: expected a folder of probes, .safetensors or .npy; save the tensor as one of these (pickled "
            "files are not read: they can run code)"
        )
    return read_tensors(file)


def _names_sites(tensors: dict[str, Tensor]) -> bool:
    try:
        return all(Site.parse(name) for name in tensors)
    except SiteError:
        return False


def _named_by_sites(file: Path, tensors: dict[str, Tensor]) -> Directions:
    vectors = {Site.parse(name): tensor for name, tensor in tensors.items()}
    return Directions(vectors, name=file.stem, metadata=_source(file))


def _of_one(
    file: Path,
    tensors: dict[str, Tensor],
    name: str | None,
    row: int | None,
    chosen: list[Site] | None,
    model: "HookedModel | None",
) -> Directions:
    if name is None and len(tensors) != 1:
        raise ConfigError(
            f"{file} holds {len(tensors)} tensors: {_listed(tensors)}; say which with name or {file}#NAME"
        )
    name = name or next(iter(tensors))
    if name not in tensors:
        raise ConfigError(f"{file} holds no tensor {name!r}; it holds {_listed(tensors)}")
    if not chosen:
        raise SiteError(f"{file}: the tensor {name!r} does not say where it belongs; give its site, as 12.resid_post")
    tensor = tensors[name]
    label = file.stem if row is None else f"{file.stem}[{row}]"
    metadata = {**_source(file), "tensor": name} | ({} if row is None else {"row": row})
    if row is not None:
        width = None if model is None else model.architecture.width_at(chosen[0])
        vector = _decoder_row(f"{file}#{name}", tensor, row, width)
        return Directions(dict.fromkeys(chosen, vector), name=label, metadata=metadata)
    if tensor.ndim == 1:
        return Directions(dict.fromkeys(chosen, tensor), name=label, metadata=metadata)
    if tensor.ndim == 2 and len(tensor) == len(chosen):
        return Directions(dict(zip(chosen, tensor, strict=True)), name=label, metadata=metadata)
    raise ConfigError(
        f"{file}#{name} has shape {tuple(tensor.shape)}; expected [width], or [site, width] with {len(chosen)} rows "
        f"for the {len(chosen)} sites given, or a decoder together with row"
    )


def _decoder_row(where: str, decoder: Tensor, row: int, width: int | None) -> Tensor:
    """One latent's vector, whichever way the decoder lies."""
    if decoder.ndim != 2:
        raise ConfigError(f"{where} has shape {tuple(decoder.shape)}; row picks a latent of a decoder [d_sae, d_model]")
    if width is None:
        raise ConfigError(
            f"{where}: give the model, whose width tells which axis of {tuple(decoder.shape)} is a latent"
        )
    as_rows, as_columns = decoder.shape[1] == width, decoder.shape[0] == width
    if as_rows == as_columns:
        problem = "both axes are" if as_rows else "no axis is"
        raise ConfigError(
            f"{where}: {problem} {width} wide, as the model is, in a decoder of shape {tuple(decoder.shape)}; save the "
            "one vector wanted as a tensor [d_model]"
        )
    latents = decoder if as_rows else decoder.T
    if not 0 <= row < len(latents):
        raise ConfigError(f"{where}: row {row} out of range; the decoder has latents 0 to {len(latents) - 1}")
    return latents[row]


def _source(file: Path) -> dict[str, str]:
    return {"source": file.name, "source_hash": hash_file(file)}


def _listed(tensors: dict[str, Tensor]) -> str:
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
