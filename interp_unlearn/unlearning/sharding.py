"""A model of which every process holds a part: FSDP2, block by block."""

from typing import TYPE_CHECKING

from interp_unlearn.errors import BackendError, ConfigError
from interp_unlearn.models.processes import Processes, is_sharded

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel


def shard(model: "HookedModel", processes: Processes, device: str | None = None) -> None:
    """Cut a model's weights over processes, in place, each block as one unit and the rest as another.

    A block is gathered when a pass reaches it and let go after it, so that reads and edits at every site work as they
    did. From here on whatever runs the model, hashes or saves it has to be called by every process. A pass is not ended
    early any more: it costs a whole one, however shallow its reads.

    Every process loads the whole model first, which takes it a moment; on the CPU, if it is larger than a GPU.

    Args:
        model: loaded whole, with the backend torch.
        processes: that hold a part each, see `Processes.of_torchrun`.
        device: "cuda" or "cpu", where the parts go; None for where the model is.

    Raises:
        ConfigError: there is one process alone, the model is sharded already, or only its first blocks are loaded.
        BackendError: the backend looks at modules in a way of its own.
    """
    if processes.size == 1:
        raise ConfigError("sharding needs several processes; start them with torchrun --nproc-per-node N")
    if model.is_partial or is_sharded(model.hf):
        raise ConfigError("sharding takes a whole model once; load it again, without first_blocks")
    if model.backend != "torch":
        raise BackendError(f"sharding needs the backend torch, got {model.backend}; load the model with it")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device or model.device.type, (processes.size,))
    # Stated for the whole, too: by default its outermost weights (embedding, head) would stay gathered after a pass
    # without gradients, and a pass on the original's values would see the trained ones.
    for module in (*model.architecture.blocks, model.hf):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    model.mark_changed()
