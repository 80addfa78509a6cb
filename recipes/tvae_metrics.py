"""What is measured of a T-VAE and of its baselines: the standard VAE within it, its embedding, and its transformations.

In results.json; on test images, or, with ``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``:

- ``test_elbo``: of the standard VAE within, z_0 and x, in nats per image; one sample for each.
- ``test_log_likelihood``: of the same, by 200 importance samples of the first 500 images or what there are; with ``--full`` also
  ``test_log_likelihood_full``, by 1,000 samples of all.
- ``knn_same``: accuracy in percent of a k-NN classifier on the means of q(z_0 | x), training images to measured ones.
- ``knn_affnist``: the same from affNIST's training images to its test images, brought to 28x28 by making all of it smaller (the
  model has seen neither; but trained on MNIST, it has seen the digits that the training images were made of);
  ``knn_affnist_crop``: by keeping its middle. With ``--validation`` the last sixth of its training images is classified by the
  others.
- ``knn_affnist_N_labels`` and ``..._spread``: mean and standard deviation over 20 draws of N labelled training images, as
  many of each class.
- ``rotation_error_degrees``: T is inferred from an image turned by an angle and by its negative, and applied to other images; the
  angle by which their decoded images then turn is compared with the true one, which is 5, 10, 15 or 20 degrees either way: a T
  without effect is 12.5 off. A VAE has no T: there it is half the difference of the two latents' means.
- ``parameters``: of model and guide.
"""

import statistics
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyzoo.data.affnist import fit_to_28
from pyzoo.data.images import binarized
from pyzoo.data.transformations import FAMILIES
from pyzoo.evaluation import few_label_accuracy, knn_accuracy
from pyzoo.infer import NegativeELBO, TraceKL_ELBO, evaluating, log_likelihood
from pyzoo.random import derive_seed

if TYPE_CHECKING:
    from pyzoo.recipes.tvae import TVAERecipe

__all__ = ["LABELS", "embed", "evaluate", "infer_transformation", "observed", "rotation_error", "transferred"]

LABELS = (10, 30, 100, 300, 1000, 3000)
"""Numbers of labelled images of figure 2."""
_ROWS = 1000  # images in a call
_ANGLES = (-20.0, -15.0, -10.0, -5.0, 5.0, 10.0, 15.0, 20.0)
_SOURCES, _TARGETS = 10, 20  # images that T is inferred from, and applied to, for each angle


def evaluate(recipe: "TVAERecipe", module: NegativeELBO, device: torch.device, full: bool = False) -> dict[str, float]:
    """The metrics of results.json."""
    split = recipe.measured_split
    x = observed(recipe, device)
    with torch.random.fork_rng(), evaluating(module):
        torch.manual_seed(derive_seed(recipe.seed, "evaluate"))
        found = {f"{split}_elbo": _elbo(module, x)}
        found[f"{split}_log_likelihood"] = _likelihood(module, x[:500], num_samples=200)
        if full:
            found[f"{split}_log_likelihood_full"] = _likelihood(module, x, num_samples=1000)
    found |= _neighbours(recipe, module, device)
    if module.model.num_views == 2:  # so has a VAE, which reads a transformation off two views though it learns from none
        images = recipe.measured_images()[0][: _SOURCES + _TARGETS].to(device) / 255
        found["rotation_error_degrees"] = rotation_error(module, images[:_SOURCES], images[_SOURCES:])
    return found | {"parameters": sum(parameter.numel() for parameter in module.parameters())}


def observed(recipe: "TVAERecipe", device: torch.device) -> Tensor:
    """The images to measure on as the likelihood takes them; those of a model of zeros and ones are drawn once for all runs."""
    images, _ = recipe.measured_images()
    x = binarized(images, seed=0) if recipe.binarize == "dynamic" else images / 255
    return x.to(device)


def _elbo(module: NegativeELBO, x: Tensor) -> float:
    losses = [TraceKL_ELBO().loss(module.model, module.guide, x=part) for part in x.split(_ROWS)]
    return -sum(losses) / len(x)


def _likelihood(module: NegativeELBO, x: Tensor, num_samples: int) -> float:
    return log_likelihood(module.model, module.guide, {"x": x}, num_samples, max_rows=2000).double().mean().item()


# Embeddings ---------------------------------------------------------------------------------------------------------


def embed(module: NegativeELBO, images: Tensor, device: torch.device) -> Tensor:
    """Means of q(z | x) of images, (images, 1, 28, 28), uint8: (images, z_dim), on the CPU.

    Raises:
        ValueError: images are not bytes.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"Images are uint8, not {images.dtype}.")
    with evaluating(module):
        means = [module.guide.posteriors(part.to(device) / 255)[0].mean for part in images.split(_ROWS)]
    return torch.cat(means).cpu()


def _neighbours(recipe: "TVAERecipe", module: NegativeELBO, device: torch.device) -> dict[str, float]:
    """k-NN accuracies in percent."""

    def classify(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
        return 100 * knn_accuracy(*train, *test, recipe.neighbours)

    def embedded(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return embed(module, images, device), labels

    found = {"knn_same": classify(embedded(*recipe.training_images()), embedded(*recipe.measured_images()))}
    affnist = recipe.affnist_images()
    train, test = (embedded(fit_to_28(images), labels) for images, labels in affnist)
    found["knn_affnist"] = classify(train, test)
    for count in LABELS:
        classes, rarest = len(train[1].unique()), train[1].unique(return_counts=True)[1].min()
        if 1 <= count // classes <= rarest:
            draws = few_label_accuracy(*train, *test, count // classes, 20, recipe.neighbours, seed=0)
            found[f"knn_affnist_{count}_labels"] = 100 * statistics.fmean(draws)
            found[f"knn_affnist_{count}_labels_spread"] = 100 * statistics.stdev(draws)
    found["knn_affnist_crop"] = classify(*(embedded(fit_to_28(images, "crop"), labels) for images, labels in affnist))
    return found


# Transformations ----------------------------------------------------------------------------------------------------


def infer_transformation(module: NegativeELBO, views: Tensor) -> Tensor:
    """T from pairs of views, (images, 2, 1, 28, 28), through the means of their latents; a VAE's is half their difference."""
    first, second = (q.mean for q in module.guide.posteriors(*views.unbind(1)))
    if module.guide.transformation is None:
        return (first - second) / 2
    return module.guide.transformation(torch.cat([first, second], dim=-1))


def transferred(module: NegativeELBO, T: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images decoded from their latents' means moved by T, and by its inverse or the second view's T.

    Args:
        module: a T-VAE or VAE.
        T: one transformation, as :func:`infer_transformation` gives it, without the first dimension.
        x: other images, (images, 1, 28, 28).

    Returns:
        Two tensors like x.
    """
    z = module.guide.posteriors(x)[0].mean
    T = T.expand(len(z), *T.shape)
    moved = (z + T, z - T) if module.model.latent_map is None else module.model.transform(z, T)
    return tuple(p.mean for p in module.model.likelihoods(*moved))


def rotation_error(module: NegativeELBO, sources: Tensor, targets: Tensor) -> float:
    """How far the angle of a transferred rotation is from the true one: the mean over angles, sources and targets, in degrees.

    Args:
        module: a T-VAE or VAE.
        sources: images that are turned, and T inferred from, (sources, 1, 28, 28).
        targets: images that T is applied to, (targets, 1, 28, 28).
    """
    rotation = FAMILIES["rotation"]
    candidates = torch.arange(-30.0, 31.0, device=targets.device)

    def turned(images: Tensor, angle: Tensor | float) -> Tensor:
        return rotation.apply(images, rotation.matrices(torch.as_tensor(angle, device=images.device).expand(len(images))))

    errors = []
    with evaluating(module):
        still = module.model.likelihoods(module.guide.posteriors(targets)[0].mean)[0].mean
        fan = torch.stack([turned(still, angle) for angle in candidates])  # (candidates, targets, 1, 28, 28)
        for angle in _ANGLES:
            views = torch.stack([turned(sources, angle), turned(sources, -angle)], dim=1)
            for T in infer_transformation(module, views):
                moved, _ = transferred(module, T, targets)
                found = candidates[(fan - moved).square().flatten(2).sum(-1).argmin(0)]
                errors.append((found - angle).abs().mean())
    return torch.stack(errors).mean().item()
