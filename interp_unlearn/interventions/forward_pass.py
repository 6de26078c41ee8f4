"""One forward pass as a backend sees it: which sites to visit, in which order, and what to do at each.

A backend hands every activation to `visit` and goes on with what comes back. All backends share this file, so an edit
means the same on each of them.
"""

from collections.abc import Callable, Iterable

from torch import Tensor

from interp_unlearn.interventions.contexts import EditContext
from interp_unlearn.interventions.edits import EditMap
from interp_unlearn.sites import Site

Keep = Callable[[Site, Tensor, EditContext], Tensor]
"""What is kept of a read, such as its mean over tokens; called inside the hook, so that nothing larger survives it."""


class ForwardPass:
    """The reads and edits of one pass.

    Attributes:
        context: what the edits are told about the tokens.
        edits: edits by site, in order of application.
        stop: the last site the pass has to reach; None for a whole pass.
        sites: the sites to visit, in the order the pass reaches them; none lies beyond `stop`.
        values: what was read so far.
        keep: what is kept of a read, given site, activation and context; the activation itself where there is none.
    """

    def __init__(
        self,
        context: EditContext | None,
        reads: Iterable[Site] = (),
        edits: EditMap | None = None,
        *,
        stop: Site | None,
        keep: Keep | None = None,
    ) -> None:
        self.context = context
        self.edits: EditMap = edits or {}
        self.stop = stop
        self.keep = keep
        self.values: dict[Site, Tensor] = {}
        self._reads = frozenset(reads)
        wanted = {*self._reads, *self.edits, *([] if stop is None else [stop])}
        self.sites = tuple(sorted(site for site in wanted if stop is None or site <= stop))

    def visit(self, site: Site, activation: Tensor) -> Tensor:
        """Apply the edits at a site, keep the result if it is read, and return what the pass goes on with.

        The very same tensor comes back if nothing was changed.
        """
        edits = self.edits.get(site)
        if edits:
            context = self._context_of(activation)
            for edit in edits:
                activation = edit(activation, context)
        if site in self._reads:
            keep = self.keep
            self.values[site] = activation if keep is None else keep(site, activation, self._context_of(activation))
        return activation

    def _context_of(self, activation: Tensor) -> EditContext:
        assert self.context is not None  # set by whoever starts the pass
        return self.context.on(activation.device).last(activation.shape[1])

    def needs_mid(self, layer: int | None) -> bool:
        """Whether resid_mid of a layer is to be visited, for which the block's input has to be kept."""
        return layer is not None and Site(layer, "resid_mid") in self.sites

    def visit_attn_out(self, layer: int, resid_pre: Tensor | None, attn_out: Tensor) -> Tensor:
        """Visit attn_out and, given the block's input after its edits, resid_mid = resid_pre + attn_out.

        An edit at resid_mid becomes a delta on attn_out: changing the input of the MLP's norm instead would reach the
        MLP branch alone, and the residual stream would keep the old value.
        """
        attn_out = self.visit(Site(layer, "attn_out"), attn_out)
        if resid_pre is None:
            return attn_out
        resid_mid = resid_pre + attn_out
        changed = self.visit(Site(layer, "resid_mid"), resid_mid)
        return attn_out if changed is resid_mid else attn_out + (changed - resid_mid)
