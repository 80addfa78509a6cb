"""Running a program with some of its sites at their means."""

from collections.abc import Collection
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyzoo.checks import require_names_of

__all__ = ["AtMean"]


class AtMean(Messenger):
    """A context in which the named sites take their distributions' means instead of samples.

    Sites drawn later see those means: with ``AtMean({"z", "w"})`` a guide that draws z first gives w's mean given z's.

    Args:
        sites: names of the sites.

    Example:
        >>> with AtMean({"z"}):
        ...     pyro.sample("z", dist.Normal(3.0, 1.0))
        tensor(3.)
    """

    def __init__(self, sites: Collection[str]) -> None:
        super().__init__()
        require_names_of(sites, "sites")
        self.sites: frozenset[str] = frozenset(sites)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.sites and not (msg["done"] or msg["is_observed"] or site_is_subsample(msg)):
            msg["value"] = mean_of(msg["fn"], msg["name"])
            msg["done"] = True


def mean_of(distribution: Any, site: str) -> Tensor:
    """The mean of a site's distribution.

    Raises:
        ValueError: it has none, as of classes or of a Cauchy variable.
    """
    try:
        mean = distribution.mean
    except NotImplementedError:
        mean = None
    if mean is None or (mean.numel() and mean.isnan().all()):
        raise ValueError(f"The site '{site}' has no mean: its distribution is {type(distribution).__name__}.")
    return mean
