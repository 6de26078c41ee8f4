"""Parameters chosen by what they do, never by their position in a list.

Position 6 of a block is `mlp.down_proj` on Llama but `self_attn.o_proj` on Qwen2: public unlearning code that counts
trains another matrix there without a word.
"""

from collections.abc import Sequence

from torch import nn

from interp_unlearn.errors import ConfigError
from interp_unlearn.models.architecture import resolve_architecture
from interp_unlearn.models.quantisation import check_trainable

ATTENTION_ROLES = {
    "q_proj": "attn.q",
    "k_proj": "attn.k",
    "v_proj": "attn.v",
    "c_attn": "attn.qkv",
    "query_key_value": "attn.qkv",
    "qkv_proj": "attn.qkv",
    "o_proj": "attn.o",
    "out_proj": "attn.o",
    "c_proj": "attn.o",
    "dense": "attn.o",
}
MLP_ROLES = {
    "gate_proj": "mlp.gate",
    "up_proj": "mlp.up",
    "gate_up_proj": "mlp.gate_up",
    "c_fc": "mlp.up",
    "fc1": "mlp.up",
    "fc_in": "mlp.up",
    "dense_h_to_4h": "mlp.up",
    "down_proj": "mlp.down",
    "c_proj": "mlp.down",
    "fc2": "mlp.down",
    "fc_out": "mlp.down",
    "dense_4h_to_h": "mlp.down",
}
ROUTERS = ("gate", "router", "shared_expert_gate")
"""What sends tokens to experts; it computes nothing that a role names."""


def parameters_by_role(
    model: nn.Module, roles: Sequence[str], layers: Sequence[int] | None = None
) -> dict[str, nn.Parameter]:
    """Weight matrices of the blocks by role, keyed by their full name; biases and norms are never included.

    A matrix that an adapter of peft wraps is the one below it. Routers of mixtures of experts have no role.

    Args:
        model: a Hugging Face causal language model.
        roles: "attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down", or "attn" / "mlp" for all of
            them. Where q, k and v (or gate and up) are one matrix, it is "attn.qkv" (or "mlp.gate_up").
        layers: blocks counted from 0; None for all.

    Raises:
        ConfigError: a role matches nothing (the message lists what exists), a layer is out of range, a matrix is
            quantised, or a role would leave one out that belongs to it and is not known here, such as routed experts.
    """
    found, unknown = _roles(model, layers)
    existing = sorted({role for role, _ in found.values()})
    unmatched = [role for role in roles if not any(_covers(role, other) for other in existing)]
    left_out = [name for name, role in unknown.items() if any(_covers(wanted, role) for wanted in roles)]
    if left_out:
        raise ConfigError(
            f"{len(left_out)} matrices belong to {', '.join(roles)} that no role names, first {left_out[0]}; take "
            f"roles without such ({', '.join(existing) or 'none here'}), or all parameters"
        )
    if unmatched or not roles:
        raise ConfigError(
            f"no parameter has role {', '.join(unmatched) or '(none given)'}; this model has {', '.join(existing)}"
        )
    chosen_matrices = {
        name: parameter for name, (role, parameter) in found.items() if any(_covers(wanted, role) for wanted in roles)
    }
    check_trainable(chosen_matrices)
    return chosen_matrices


def roles_of_parameters(model: nn.Module) -> dict[str, str]:
    """The role of each weight matrix that has one, by its full name."""
    return {name: role for name, (role, _) in _roles(model, None)[0].items()}


def _roles(
    model: nn.Module, layers: Sequence[int] | None
) -> tuple[dict[str, tuple[str, nn.Parameter]], dict[str, str]]:
    """The matrices with their roles, and the part of those without one, by full name."""
    architecture = resolve_architecture(model)
    chosen = range(architecture.n_layers) if layers is None else layers
    outside = [layer for layer in chosen if not 0 <= layer < architecture.n_layers]
    if outside:
        raise ConfigError(f"layers {outside} out of range; the model has layers 0 to {architecture.n_layers - 1}")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[str, nn.Parameter]] = {}
    unknown: dict[str, str] = {}
    for layer in chosen:
        block = architecture.blocks[layer]
        parts = (("attn", architecture.attention(block), ATTENTION_ROLES), ("mlp", architecture.mlp(block), MLP_ROLES))
        for part, module, table in parts:
            for name, parameter in module.named_parameters():
                path = [word for word in name.split(".") if word != "base_layer"]
                full = names[id(parameter)]
                if path[-1] == "weight" and len(path) > 1 and path[-2] in table:
                    found[full] = (table[path[-2]], parameter)
                elif parameter.ndim > 1 and not any(word in ROUTERS or word.startswith("lora_") for word in path):
                    unknown[full] = table.get(path[-1], part)  # an expert's own name, or only where it is
    return found, unknown


def _covers(wanted: str, role: str) -> bool:
    return role == wanted or role.startswith(wanted + ".")
