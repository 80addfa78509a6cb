"""What is measured of a model that takes scenes apart.

- ``ari_fg``: adjusted Rand index of the pixels that belong to a piece, mean over scenes; 1 is a perfect separation.
- ``ari_fg_elsewhere``: the same, if each scene had the slots of the next one. Slots that share out the places, whatever is
  there, have as much there as at home, 0.3 to 0.45 with a few pieces; slots that follow the pieces have next to nothing.
- ``msc_fg``: mean segmentation covering of the pieces, mean over scenes.
- ``reconstruction_mse``: mean squared error of the reconstructions, by pixel and channel, from latents' means.
- ``relation_r2``: share of the variance of pieces' colors or places that is explained where a slot's latent is imputed from the
  others; 0 or less if slots are independent.
- ``relation_r2_unseen``: the same, where the others' encoders did not see the imputed slot's pixels, which were painted over by
  the background. Such images are new to them.
- ``share_shown``: share of the pieces that have a slot of their own, of which ``relation_r2`` tells.
- ``related_after_swap``: share of scenes whose pieces are related after a slot was exchanged for another scene's.
- ``related_drawn``: share of drawn scenes whose pieces are related. Of the data that is all scenes of tetrominoes, and nine in
  ten or more of sprites, which hide each other.
- ``related_drawn_by_chance``: the same where each slot is replaced by that of another drawn scene. A model that draws all pieces
  at one place has as much as by chance, though many of its scenes are related. Of the data's scenes it is one in fifteen for two
  pieces by place; by color one in three of two tetrominoes, one in six of three, and next to none of sprites.
- ``drawn_distance``: how far the statistics of drawn scenes' pieces are from the data's, by the number of pieces and their sizes,
  colors and places (:func:`pyzoo.evaluation.pieces_distance`); 0 where they are the same.
- ``nats_...``: terms of the negative ELBO, per image, without weights; ``test_elbo`` is minus their sum. In MONet and MPP^M the
  divergence of the masks is one of them, with its weight: so ``test_elbo`` is no bound of log p(x) there, nor is it what they are
  trained by, which halves the latents' divergence (``--latent-weight``).
- ``parameters``: of model and guide.

Of images without masks there are neither ``ari_fg`` nor ``msc_fg``. What is said of relations is measured where one was planted.
In Genesis and MPP^G masks stay where a slot is swapped, so that ``relation_r2`` and ``related_after_swap`` are of colors only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.errors import UsageError
from pyzoo.evaluation import (
    SlotPieces,
    foreground_ari,
    generate,
    mean_segmentation_covering,
    pieces_distance,
    pieces_of_slots,
    segments_of,
    site_terms,
)
from pyzoo.random import derive_seed
from pyzoo.recipes.images import ImageReport
from pyzoo.recipes.slots.decomposition import CHUNK, Decomposition, decompose, draw_scenes
from pyzoo.recipes.slots.probes import related_after_swap, related_by_chance, relation_r2, share_related, share_shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training import Panel

__all__ = ["SlotsReport"]


class SlotsReport(ImageReport):
    """The report of models that take scenes apart."""

    def validate(self, step: int) -> dict[str, float]:
        """The ELBO of held-out images, without weights, and how well masks separate the pieces."""
        found = super().validate(step)
        segments = self.recipe.held_out_segments()
        if segments is not None:
            decomposed = decompose(*self.pair, self.held_out)
            found["held_out_ari_fg"] = self._mean(foreground_ari, decomposed, segments[: len(self.held_out)])
        return found

    def _mean(self, metric: Any, decomposed: Decomposition, segments: Tensor) -> float:
        return metric(segments_of(decomposed.masks), segments.to(self.device)).nanmean().item()

    def metrics(self, full: bool = False) -> dict[str, float]:
        x, _ = self.measured
        decomposed = decompose(*self.pair, x)
        found: dict[str, float] = {}
        segments = self.recipe.measured_segments()
        if segments is not None:
            found["ari_fg"] = self._mean(foreground_ari, decomposed, segments)
            if len(x) > 1:
                found["ari_fg_elsewhere"] = self._mean(
                    foreground_ari, decomposed._replace(masks=decomposed.masks.roll(-1, 0)), segments
                )
            found["msc_fg"] = self._mean(mean_segmentation_covering, decomposed, segments)
            found |= self._of_pieces(decomposed, x, segments)
        found["reconstruction_mse"] = (decomposed.reconstructions - x).square().mean().item()
        terms = site_terms(*self.pair, {"x": x}, rows=CHUNK)
        found |= {f"nats_{name}": value for name, value in terms.items()}
        return {**found, "test_elbo": -sum(terms.values()), "parameters": self.pair.num_parameters}

    def _of_pieces(self, decomposed: Decomposition, x: Tensor, segments: Tensor) -> dict[str, float]:
        """What is measured of the pieces that are drawn, and of how pieces are related where they are.

        Args:
            decomposed: the scenes, taken apart.
            x: the scenes.
            segments: their pieces' pixels.
        """
        model, relation, found = self.pair.model, self.recipe.relation, {}
        drawn = self.drawn(len(decomposed.masks)).pieces if model.draws_scenes else None
        if drawn is not None:
            found["drawn_distance"] = pieces_distance(drawn, _true_pieces(x, segments.to(self.device)))
        if relation != "none":
            found |= self._relations(decomposed, drawn)
        return {name: value for name, value in found.items() if math.isfinite(value)}  # where slots show pieces

    def _relations(self, decomposed: Decomposition, drawn: SlotPieces | None) -> dict[str, float]:
        model, scenes, relation = self.pair.model, self.recipe.measured_scenes, self.recipe.relation
        found: dict[str, float] = {}
        if relation == "color" or not model.has_mask_latents:
            found["relation_r2"] = relation_r2(model, decomposed, scenes, relation)
            if model.relations is not None:
                found["relation_r2_unseen"] = relation_r2(model, decomposed, scenes, relation, self.pair.guide)
            found["share_shown"] = share_shown(decomposed, scenes)
            found["related_after_swap"] = related_after_swap(model, decomposed, scenes, relation)
        if drawn is not None:
            found["related_drawn"] = share_related(drawn, relation, scenes)
            found["related_drawn_by_chance"] = related_by_chance(drawn, relation, scenes)
        return found

    def drawn(self, count: int) -> Decomposition:
        """Scenes drawn from the model, with their slots; always the same."""
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.recipe.seed, "drawn"))
            return draw_scenes(self.pair.model, count)

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.slots.panels import panels

        return panels(self)

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


def _true_pieces(x: Tensor, segments: Tensor) -> SlotPieces:
    """The pieces of scenes, as :func:`pieces_of_slots` sees them with true masks.

    Args:
        x: images, (images, channels, height, width).
        segments: the piece at each pixel, (images, height, width), integers; 0 is the background.
    """
    masks = one_hot(segments.long()).movedim(-1, 1).to(x)
    return pieces_of_slots(masks, x.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1))
