"""What is measured of a model that takes scenes apart.

- ``ari_fg``: adjusted Rand index of the pixels that belong to a piece, mean over scenes; 1 is a perfect separation.
- ``msc_fg``: mean segmentation covering of the pieces, mean over scenes.
- ``reconstruction_mse``: mean squared error of the reconstructions, by pixel and channel, from latents' means.
- ``nats_...``: terms of the negative ELBO, per image, without weights; ``test_elbo`` is minus their sum.
- ``parameters``: of model and guide.

Of images without masks there are neither ``ari_fg`` nor ``msc_fg``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyzoo.errors import UsageError
from pyzoo.evaluation import foreground_ari, generate, mean_segmentation_covering, segments_of, site_terms
from pyzoo.infer import AtMean
from pyzoo.recipes.images import ImageReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Apart", "SlotsReport", "take_apart"]

_CHUNK = 100  # images at a time


class Apart(NamedTuple):
    """Images taken apart.

    Attributes:
        masks: (images, slots, height, width), which sum to 1.
        components: each slot's image, (images, slots, channels, height, width).
        latents: means of the slots' latents, (images, slots, z_dim).
    """

    masks: Tensor
    components: Tensor
    latents: Tensor

    @property
    def reconstructions(self) -> Tensor:
        """Components put together by their masks, (images, channels, height, width)."""
        return (self.masks.unsqueeze(2) * self.components).sum(1)


@torch.no_grad()
def take_apart(model: Any, guide: Any, x: Tensor) -> Apart:
    """Takes images apart, from latents' means.

    Args:
        model: a MONet or a Genesis, with relations or without.
        guide: its guide.
        x: images, (images, channels, height, width), from 0 to 1.
    """
    found = []
    for part in x.split(_CHUNK):
        latents = {f"z_m_{slot + 1}" for slot in range(model.num_slots)} | {"z", "z_c", "z_g"}
        with AtMean(latents):
            sites = pyro.poutine.trace(guide).get_trace(x=part).nodes
        z = torch.cat([sites[name]["value"] for name in ("z", "z_c", "z_g") if name in sites], -1)
        found.append(Apart(sites["m"]["value"].exp(), model.components(z), z))
    return Apart(*(torch.cat(parts) for parts in zip(*found, strict=True)))


class SlotsReport(ImageReport):
    """The report of models that take scenes apart."""

    def validate(self, step: int) -> dict[str, float]:
        """The ELBO of held-out images, without weights, and how well masks separate the pieces."""
        found = super().validate(step)
        if self.recipe.is_generated:
            apart = take_apart(*self.pair, self.held_out)
            found["held_out_ari_fg"] = self._mean(foreground_ari, apart, self.recipe.held_out_scenes.segments)
        return found

    def _mean(self, metric: Any, apart: Apart, segments: Tensor) -> float:
        return metric(segments_of(apart.masks), segments.to(self.device)).nanmean().item()

    def metrics(self, full: bool = False) -> dict[str, float]:
        x, _ = self.measured
        apart = take_apart(*self.pair, x)
        found: dict[str, float] = {}
        if self.recipe.is_generated:
            segments = self.recipe.measured_scenes.segments
            found["ari_fg"] = self._mean(foreground_ari, apart, segments)
            found["msc_fg"] = self._mean(mean_segmentation_covering, apart, segments)
        found["reconstruction_mse"] = (apart.reconstructions - x).square().mean().item()
        terms = site_terms(*self.pair, {"x": x}, rows=_CHUNK)
        found |= {f"nats_{name}": value for name, value in terms.items()}
        return {**found, "test_elbo": -sum(terms.values()), "parameters": self.pair.num_parameters}

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.slots.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws scenes, from a model whose slots are related.

        Raises:
            UsageError: the slots are independent.
        """
        if not self.pair.model.draws_scenes:
            raise UsageError("monet draws no scenes: its slots are independent, and their masks do not fit; mpp-monet does")
        if given:
            raise UsageError(f"there is nothing '{min(given)}' to condition on in {self.recipe.name}")
        drawn = generate(self.pair.model, size=count)
        return {name: value.movedim(-1, 1) for name, value in drawn.items()}
