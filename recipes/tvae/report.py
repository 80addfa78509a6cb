"""What is measured of a T-VAE and of its baselines: the standard VAE within it, its embedding, and its transformations.

In results.json; on test images, or, with ``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``:

- ``test_elbo``: of the standard VAE within, z_0 and x, in nats per image; one sample for each.
- ``test_log_likelihood``: of the same, by 200 importance samples of the first 500 images or what there are, which on MNIST are
  easier than the others; with ``--full`` also ``test_log_likelihood_full``, by 1,000 samples of all. Of gray images both
  are of minus the cross-entropy.
- ``knn_same``: accuracy in percent of a k-NN classifier on the means of q(z_0 | x), training images to measured ones.
- ``knn_affnist``: the same from affNIST's training images to its test images, brought to 28x28 by making all of it smaller (the
  model has seen neither; but trained on MNIST, it has seen the digits that the training images were made of);
  ``knn_affnist_crop``: by keeping its middle. With ``--validation`` a part of its training images is classified by the
  others: the last sixth, or, where affNIST is made of the images that are trained on, those of the held-out ones.
- ``knn_affnist_N_labels`` and ``..._spread``: mean and standard deviation over 20 draws of N labeled training images, as
  many of each class, by 5 neighbors or as many as a class has.
- ``rotation_error_degrees``: T is inferred from an image turned by an angle and by its negative, and applied to other images; the
  angle by which their decoded images then turn is compared with the true one, which is 5, 10, 15 or 20 degrees either way: a T
  without effect is 12.5 off. A VAE has no T: there it is half the difference of the two latents' means. Latents are their
  posteriors' means, where the paper's figure 3 draws them. T is inferred from 40 images and applied to 50.
- ``parameters``: of model and guide.

With ``--binarize dynamic`` likelihoods are of binary images, and all else is of gray ones.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from pyzoo.data.affnist import fit_to_28
from pyzoo.data.transformations import FAMILIES
from pyzoo.evaluation import few_label_accuracy, knn_accuracy, mean_log_likelihood, site_terms
from pyzoo.infer import evaluating
from pyzoo.recipes.images import ImageReport
from pyzoo.training import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training import Panel

__all__ = ["LABELS", "TVAEReport", "embed", "infer_transformation", "rotation_error", "transferred"]

LABELS = (10, 30, 100, 300, 1000, 3000)
"""Numbers of labeled images of figure 2."""
_ROWS = 1000  # images in a call
_ANGLES = (-20.0, -15.0, -10.0, -5.0, 5.0, 10.0, 15.0, 20.0)


class TVAEReport(ImageReport):
    """The report of T-VAE and of its baselines."""

    quick_images: ClassVar[int] = 500
    quick_samples: ClassVar[int] = 200
    num_sources: ClassVar[int] = 40
    """Images that T is inferred from, for each angle."""
    num_targets: ClassVar[int] = 50
    """Images that it is applied to."""

    def metrics(self, full: bool = False) -> dict[str, float]:
        split, (x, _) = self.recipe.measured_split, self.measured
        found = {f"{split}_elbo": -sum(site_terms(*self.pair, {"x": x}).values())}
        found[f"{split}_log_likelihood"] = mean_log_likelihood(
            *self.pair, {"x": x[: self.quick_images]}, self.quick_samples, max_rows=2000
        )
        if full:
            found[f"{split}_log_likelihood_full"] = mean_log_likelihood(*self.pair, {"x": x}, 1000, max_rows=2000)
        found |= self._accuracies()
        images = self.recipe.measured_images()[0][: self.num_sources + self.num_targets].to(self.device) / 255
        sources = min(self.num_sources, len(images) // 2)
        # A VAE has two views too: it reads a transformation off them, though it learns from none.
        if self.pair.model.num_views == 2 and sources:
            found["rotation_error_degrees"] = rotation_error(self.pair, images[:sources], images[sources:])
        return found | {"parameters": self.pair.num_parameters}

    def _accuracies(self) -> dict[str, float]:
        """k-NN accuracies in percent; there are none of images without labels, or with a class that training has not seen."""
        recipe = self.recipe
        training, measured = recipe.training_images(), recipe.measured_images()
        if training[1] is None or measured[1] is None or not set(measured[1].tolist()) <= set(training[1].tolist()):
            return {}

        def classify(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
            return 100 * knn_accuracy(*train, *test, recipe.neighbors)

        def embedded(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return embed(self.pair.guide, images, self.device), labels

        found = {"knn_same": classify(embedded(*training), embedded(*measured))}
        if not recipe.measures_affnist:
            return found
        affnist = recipe.affnist_images()
        train, test = (embedded(fit_to_28(images), labels) for images, labels in affnist)
        found["knn_affnist"] = classify(train, test)
        for count in LABELS:
            classes, rarest = len(train[1].unique()), train[1].unique(return_counts=True)[1].min()
            if 1 <= count // classes <= rarest:
                draws = few_label_accuracy(*train, *test, count // classes, 20, recipe.neighbors, seed=0)
                found[f"knn_affnist_{count}_labels"] = 100 * statistics.fmean(draws)
                found[f"knn_affnist_{count}_labels_spread"] = 100 * statistics.stdev(draws)
        found["knn_affnist_crop"] = classify(*(embedded(fit_to_28(images, "crop"), labels) for images, labels in affnist))
        return found

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.tvae.panels import panels

        return panels(self)

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.tvae.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)


# Embeddings ---------------------------------------------------------------------------------------------------------


def embed(guide: Any, images: Tensor, device: torch.device) -> Tensor:
    """Means of q(z | x) of images, (images, 1, 28, 28), uint8: (images, z_dim), on the CPU.

    Raises:
        ValueError: images are not bytes.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"Images are uint8, not {images.dtype}.")
    with evaluating(guide):
        means = [guide.posteriors(part.to(device) / 255)[0].mean for part in images.split(_ROWS)]
    return torch.cat(means).cpu()


# Transformations ----------------------------------------------------------------------------------------------------


def infer_transformation(pair: Pair, views: Tensor) -> Tensor:
    """T from pairs of views, (images, 2, 1, 28, 28), through the means of their latents; a VAE's is half their difference."""
    first, second = (q.mean for q in pair.guide.posteriors(*views.unbind(1)))
    if pair.guide.transformation is None:
        return (first - second) / 2
    return pair.guide.transformation(torch.cat([first, second], dim=-1))


def transferred(pair: Pair, T: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images decoded from their latents' means moved by T, and by its inverse or the second view's T.

    Args:
        pair: a T-VAE or VAE.
        T: one transformation, as :func:`infer_transformation` gives it, without the first dimension.
        x: other images, (images, 1, 28, 28).

    Returns:
        Two tensors like x.
    """
    moved = _moved(pair, T, pair.guide.posteriors(x)[0].mean)
    return tuple(p.mean for p in pair.model.likelihoods(*moved))


def _moved(pair: Pair, T: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Latents, (images, z_dim), moved by one T, and by its inverse or the second view's T."""
    T = T.expand(len(z), *T.shape)
    return (z + T, z - T) if pair.model.latent_map is None else pair.model.transform(z, T)


def rotation_error(pair: Pair, sources: Tensor, targets: Tensor) -> float:
    """How far the angle of a transferred rotation is from the true one: the mean over angles, sources and targets, in degrees.

    Args:
        pair: a T-VAE or VAE.
        sources: images that are turned, and T inferred from, (sources, 1, 28, 28).
        targets: images that T is applied to, (targets, 1, 28, 28).
    """
    rotation = FAMILIES["rotation"]
    candidates = torch.arange(-30.0, 31.0, device=targets.device)

    def turned(images: Tensor, angle: Tensor | float) -> Tensor:
        return rotation.apply(images, rotation.matrices(torch.as_tensor(angle, device=images.device).expand(len(images))))

    errors = []
    with evaluating(torch.nn.ModuleList(pair)):
        z = pair.guide.posteriors(targets)[0].mean
        still = pair.model.likelihoods(z)[0].mean
        fan = torch.stack([turned(still, angle) for angle in candidates], 1).flatten(2)  # (targets, candidates, pixels)
        squares = fan.square().sum(-1)
        for angle in _ANGLES:
            views = torch.stack([turned(sources, angle), turned(sources, -angle)], dim=1)
            latents = [_moved(pair, T, z)[0] for T in infer_transformation(pair, views)]
            moved = torch.stack([pair.model.likelihoods(latent)[0].mean for latent in latents], 1)
            distances = squares[:, None] - 2 * moved.flatten(2) @ fan.mT  # (targets, sources, candidates), but for moved's square
            errors.append((candidates[distances.argmin(-1)] - angle).abs().mean())
    return torch.stack(errors).mean().item()
