"""What a model knows of how the slots of a scene are related: a slot imputed from the others, and a slot swapped."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.checks import as_indices, require_count, require_kind, require_number, require_shape, require_tensor
from pyzoo.data.scenes import COLORS, Relation, Scenes, has_relation
from pyzoo.evaluation import SlotPieces, match_slots, pixels_of_slots
from pyzoo.infer import evaluating
from pyzoo.recipes.slots.decomposition import Decomposition, put_together
from pyzoo.settings import AtLeast

__all__ = [
    "are_related",
    "impute_slots",
    "related_after_swap",
    "related_by_chance",
    "relation_r2",
    "share_related",
    "share_shown",
    "swap_slots",
]

FEWEST_SCENES = 20
"""Scenes in which a slot shows a piece, for what it shows to be read from its latent."""


def impute_slots(model: Any, decomposed: Decomposition, slots: Tensor) -> Decomposition:
    """Scenes with one slot of each as the model expects it from the other slots.

    In MPP^M and MPP^G the slot's global latent is imputed, and its local one is the prior's mean; in MONet and Genesis all of it
    is the prior's mean, which in Genesis follows from the latents of the masks. In Genesis and MPP^G the masks stay: what is
    imputed is what the slot looks like there.

    Args:
        model: which took the scenes apart.
        decomposed: scenes taken apart.
        slots: the slot of each scene, (images,), int64.

    Raises:
        ValueError: there is another number of slots than of images, or no such slot.
    """
    missing = _chosen(model, decomposed, slots)
    local, related = _split(model, decomposed.latents)
    with evaluating(model):
        parts = [torch.where(missing.unsqueeze(-1), _split(model, _expected(model, decomposed))[0], local)]
        if model.relations is not None:
            parts.append(model.relations.impute(related, ~missing))
    return put_together(model, torch.cat(parts, -1), decomposed.mask_latents)


def _expected(model: Any, decomposed: Decomposition) -> Tensor:
    """The mean of the prior of what slots look like, (images, slots, z_dim)."""
    if model.has_mask_latents:
        return model.component_prior(decomposed.mask_latents).chunk(2, -1)[0]
    return torch.zeros_like(decomposed.latents)


def _expected_mask_latents(model: Any, mask_latents: Tensor) -> Tensor:
    """The mean of the prior of each mask's latent, given those of the slots before; in MONet and MPP^M there are none."""
    if not model.has_mask_latents:
        return mask_latents
    means, state = [torch.zeros_like(mask_latents[:, 0])], None
    for latent in mask_latents[:, :-1].unbind(1):
        prior, state = model.mask_prior(latent, state)
        means.append(prior.mean)
    return torch.stack(means, 1)


def swap_slots(model: Any, decomposed: Decomposition, slots: Tensor) -> Decomposition:
    """Scenes with one slot of each exchanged for that of the next scene; the others follow it where slots are related.

    It is the slot of the same number there, whatever that shows. In MPP^M and MPP^G the slot's global latent is exchanged, that
    of the scene is inferred from it alone, and the other slots' global latents follow. In MONet and Genesis all of the slot's
    latent is exchanged, and nothing follows.

    Args:
        model: which took the scenes apart.
        decomposed: scenes taken apart, at least 2.
        slots: the slot of each scene, (images,), int64.

    Raises:
        ValueError: there is one scene, another number of slots than of images, or no such slot.
    """
    swapped = _chosen(model, decomposed, slots)
    if len(swapped) < 2:
        raise ValueError("decomposed must be two or more scenes, to exchange slots between them.")
    local, related = _split(model, decomposed.latents)
    if model.relations is None:
        latents = torch.where(swapped.unsqueeze(-1), local.roll(-1, 0), local)
    else:
        with evaluating(model):
            latents = torch.cat([local, model.relations.impute(related.roll(-1, 0), swapped)], -1)
    return put_together(model, latents, decomposed.mask_latents)


def relation_r2(model: Any, decomposed: Decomposition, scenes: Scenes, relation: Relation, guide: Any = None) -> float:
    """Share of the variance of pieces' colors or places that is explained where a slot's latent is imputed from the others.

    A regression learns to read the color or place of the piece that a slot shows from the slot's latent as it was inferred, in
    every other scene. It then reads them from the latent as it is imputed, in the scenes between. Pictures would not do: the
    background leaves out where a piece was, and so does what a second piece leaves of the image.

    In MPP^M and MPP^G it is the global latent. In MONet it is the whole one, which is imputed the same in all scenes: it explains
    at most 0, and less as far as that one latent is from those that the regression was fitted on. In Genesis it is the whole one
    too, and it follows from the latent of the slot's mask. That is imputed as well, from those of the slots before, since the
    inferred one has seen the piece: both are the means of Genesis's prior.

    The variance is about each slot's own mean, so that to know where a slot's pieces are on average is worth nothing. Only pieces
    count that a slot shows, see :func:`share_shown`. nan where no slot shows pieces.

    A slot's encoder sees the whole image, and so the others may tell of a piece that they do not show. With a guide they are
    encoded again, from images in which the imputed slot's pixels have been painted over by the background.

    Args:
        model: which took the scenes apart.
        decomposed: the scenes, taken apart.
        scenes: the same scenes, as they were made.
        relation: "color" or "place".
        guide: encodes the other slots from images without the piece; None takes their latents as they are.

    Raises:
        ValueError: the relation is none of these.
    """
    if relation not in ("color", "place"):
        raise ValueError(f"relation is 'color' or 'place', not {relation!r}.")
    from sklearn.kernel_ridge import KernelRidge  # takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    target = {"color": scenes.colors, "place": scenes.places}[relation].double().cpu()
    shown_by = match_slots(decomposed.masks, scenes.segments.to(decomposed.masks.device), target.shape[1])
    error = variance = 0.0
    for slot in range(model.num_slots):
        scene, piece = (shown_by == slot).nonzero().unbind(1)
        if len(scene) < FEWEST_SCENES:
            continue
        images = scenes.images[scene.cpu()]
        inferred, imputed = _inferred_and_imputed(model, decomposed.of(scene), slot, None if guide is None else (guide, images))
        true = target[scene.cpu(), piece.cpu()]
        mean = true[::2].mean(0)  # which is read where a latent is far from those that the regression was fitted on
        kernel = KernelRidge(kernel="rbf", alpha=0.1, gamma=0.3 / inferred.shape[1])
        read = make_pipeline(StandardScaler(), kernel).fit(inferred[::2].numpy(), (true[::2] - mean).numpy())
        found = mean + torch.from_numpy(read.predict(imputed[1::2].numpy()))
        error += (true[1::2] - found).square().sum().item()
        variance += (true[1::2] - true[1::2].mean(0)).square().sum().item()
    return 1 - error / variance if variance else float("nan")


def _inferred_and_imputed(
    model: Any, decomposed: Decomposition, slot: int, unseen: tuple[Any, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """A slot's latents as they were inferred, and as they are imputed from the others, (images, dimensions) each, float64.

    Args:
        model: which took the scenes apart.
        decomposed: scenes taken apart.
        slot: the slot.
        unseen: the guide and the scenes' images, (images, channels, height, width), uint8, from which it encodes the others
            without the slot's pixels; None takes their latents as they are.
    """
    local, related = _split(model, decomposed.latents)
    with evaluating(model):
        if model.relations is None:
            unseen_masks = decomposed._replace(mask_latents=_expected_mask_latents(model, decomposed.mask_latents))
            inferred, imputed = local[:, slot], _expected(model, unseen_masks)[:, slot]
        else:
            inferred = related[:, slot]
            if unseen is not None:
                guide, images = unseen
                x = _painted_over(decomposed, images, slot)
                with evaluating(guide):
                    related = _split(model, guide.slots(x, decomposed.masks.log())[0])[1]
            present = torch.arange(model.num_slots, device=related.device).expand(len(related), -1) != slot
            imputed = model.relations.impute(related, present)[:, slot]
    return inferred.double().cpu(), imputed.double().cpu()


def _painted_over(decomposed: Decomposition, images: Tensor, slot: int) -> Tensor:
    """Images, from 0 to 1, in which the pixels of a slot are painted over by the component of the slot with most pixels."""
    largest = pixels_of_slots(decomposed.masks).sum((2, 3)).argmax(1)
    background = decomposed.components[torch.arange(len(largest), device=largest.device), largest].clamp(0, 1)
    return torch.lerp(images.to(background) / 255, background, decomposed.masks[:, slot].unsqueeze(1))


def share_shown(decomposed: Decomposition, scenes: Scenes) -> float:
    """Share of the pieces that a slot of their own shows: those of which the probes tell.

    A sprite that others hide is a piece too, which no slot can show.

    Args:
        decomposed: the scenes, taken apart.
        scenes: the same scenes, as they were made.
    """
    shown_by = match_slots(decomposed.masks, scenes.segments.to(decomposed.masks.device), scenes.present.shape[1])
    return (shown_by[scenes.present.to(shown_by.device)] >= 0).double().mean().item()


def related_after_swap(model: Any, decomposed: Decomposition, scenes: Scenes, relation: Relation) -> float:
    """Share of scenes whose pieces are related after the first piece's slot was swapped.

    It is the share of those scenes in which each piece had a slot of its own; nan if there are fewer than two.

    Args:
        model: which took the scenes apart.
        decomposed: the scenes, taken apart.
        scenes: the same scenes, as they were made.
        relation: "color" or "place".
    """
    shown_by = match_slots(decomposed.masks, scenes.segments.to(decomposed.masks.device), scenes.present.shape[1])
    chosen = ((shown_by >= 0) | ~scenes.present.to(shown_by.device)).all(1)
    if chosen.sum() < 2:
        return float("nan")
    return share_related(swap_slots(model, decomposed.of(chosen), shown_by[chosen, 0]).pieces, relation, scenes)


def share_related(pieces: SlotPieces, relation: Relation, like: Scenes) -> float:
    """Share of scenes whose pieces are related, and as many as scenes of a kind have."""
    numbers = like.present.sum(1)
    return are_related(pieces, relation, int(numbers.max()), int(numbers.min())).double().mean().item()


def related_by_chance(pieces: SlotPieces, relation: Relation, like: Scenes) -> float:
    """The same where each slot is another scene's: what pieces that are drawn independently of each other would have."""

    def apart(values: Tensor) -> Tensor:
        return torch.stack([slot.roll(number, 0) for number, slot in enumerate(values.unbind(1))], 1)

    independent = SlotPieces(*map(apart, (pieces.colors, pieces.places, pieces.sizes, pieces.present)))
    return share_related(independent, relation, like)


def are_related(
    pieces: SlotPieces, relation: Relation, num_pieces: int, fewest_pieces: int | None = None, tolerance: float = 0.1
) -> Tensor:
    """Whether the pieces of each scene, in any order, are related as :func:`pyzoo.data.scenes.has_relation` says, (scenes,).

    A scene with another number of pieces is not: this is what generated scenes are asked.

    Args:
        pieces: as :func:`pyzoo.evaluation.pieces_of_slots` measures them.
        relation: "color" or "place".
        num_pieces: the number of pieces, or the most that there may be.
        fewest_pieces: the fewest that there may be; by default as many as the most.
        tolerance: what colors and places may be off.

    Raises:
        ValueError: a number or the relation is none of these, or there are fewer slots.

    Example:
        >>> colors = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])  # black, yellow, red
        >>> pieces = SlotPieces(colors, torch.rand(1, 3, 2), torch.rand(1, 3), torch.tensor([[False, True, True]]))
        >>> are_related(pieces, "color", num_pieces=2).tolist()  # yellow follows red
        [True]
    """
    require_kind(pieces, "pieces", SlotPieces)
    require_tensor(pieces.present, "present")
    if pieces.present.dtype != torch.bool:
        raise ValueError(f"present must be boolean, got {pieces.present.dtype}.")
    require_shape(pieces.present, "present", ("scenes", "slots"))
    require_shape(pieces.colors, "colors", (*pieces.present.shape, COLORS.shape[1]))
    require_shape(pieces.places, "places", (*pieces.present.shape, 2))
    require_count(num_pieces, "num_pieces")
    fewest_pieces = num_pieces if fewest_pieces is None else fewest_pieces
    require_count(fewest_pieces, "fewest_pieces")
    require_number(tolerance, "tolerance", AtLeast(0))
    scenes, slots = pieces.present.shape
    if not fewest_pieces <= num_pieces <= slots:
        numbers = f"{fewest_pieces} and {num_pieces}"
        raise ValueError(f"fewest_pieces and num_pieces must be in this order and at most {slots}, the slots, got {numbers}.")
    counts = pieces.present.sum(1)
    present, first = pieces.present.sort(dim=1, descending=True, stable=True)  # the slots with pieces, in any order of theirs
    colors, places = (each.take_along_dim(first.unsqueeze(-1), 1) for each in (pieces.colors, pieces.places))
    found = torch.zeros(scenes, dtype=torch.bool, device=counts.device)
    nothing = counts.new_zeros(scenes, 0, 0)  # what scenes look like is not asked
    for number in range(fewest_pieces, num_pieces + 1):
        for order in itertools.permutations(range(number)):
            scene = Scenes(nothing, nothing, colors[:, order], places[:, order], nothing, present[:, order])
            found |= (counts == number) & has_relation(scene, relation, tolerance)
    return found


def _chosen(model: Any, decomposed: Decomposition, slots: Tensor) -> Tensor:
    """Which slot of each scene is chosen, (images, slots), boolean."""
    require_shape(slots, "slots", (len(decomposed.latents),))
    return one_hot(as_indices(slots, "slots", below=model.num_slots), model.num_slots).bool()


def _split(model: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The slots' local and global latents; where slots are independent all is local."""
    dim = 0 if model.relations is None else model.relations.dim
    return latents.split([latents.shape[-1] - dim, dim], -1)
