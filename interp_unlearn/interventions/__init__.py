"""The intervention layer: reads and edits at sites, during one forward pass, on any backend."""

from interp_unlearn.interventions.backends import Backend, register
from interp_unlearn.interventions.contexts import EditContext
from interp_unlearn.interventions.edits import Add, Clamp, Edit, EditMap, ProjectOut, Replace, Scale
from interp_unlearn.interventions.hooked_model import HookedModel
from interp_unlearn.interventions.model_source import Checkpoint, ModelSource
from interp_unlearn.interventions.selections import Span, TokenMask, TokenSelection, Where
from interp_unlearn.interventions.trace import Trace

__all__ = [
    "Add",
    "Backend",
    "Checkpoint",
    "Clamp",
    "Edit",
    "EditContext",
    "EditMap",
    "HookedModel",
    "ModelSource",
    "ProjectOut",
    "Replace",
    "Scale",
    "Span",
    "TokenMask",
    "TokenSelection",
    "Trace",
    "Where",
    "register",
]
