"""What one pass left behind."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interp_unlearn.errors import SiteError
from interp_unlearn.sites import Site


@dataclass(frozen=True, eq=False)
class Trace:
    """The reads of one pass, and the logits if it got that far.

    Attributes:
        sites: the sites that were read, in the order they were asked for.
        logits: None when the pass stopped early.
    """

    sites: tuple[Site, ...]
    logits: Float[Tensor, "batch pos vocab"] | None
    _values: Mapping[Site, Tensor]

    def __getitem__(self, site: Site) -> Float[Tensor, "batch pos d_model"]:
        """The activation read at a site, after the edits there.

        Raises:
            SiteError: the site was not read in this pass.
        """
        if site not in self._values:
            raise SiteError(f"{site} was not read in this pass; it read {', '.join(map(str, self.sites)) or 'nothing'}")
        return self._values[site]
