"""The recipe: which images, how to train on them, and what to measure, draw and sample."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dense_vae import ABOUT
from dense_vae.model import DenseVAENetworks
from pyzoo.about import About
from pyzoo.data.images import ImageSource, binarized
from pyzoo.evaluation import mean_log_likelihood, reconstruct
from pyzoo.infer import NegativeELBO
from pyzoo.recipes.images import ImageReport, PlainImageRecipe
from pyzoo.settings import Positive
from pyzoo.training import Objective, Pair, Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DenseVAERecipe", "DenseVAEReport"]


@dataclasses.dataclass(frozen=True)
class DenseVAERecipe(PlainImageRecipe):
    """A VAE of binarized images with dense layers."""

    name: ClassVar[str] = "dense-vae"
    about: ClassVar[About] = ABOUT["dense-vae"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"steps": 3000, "batch_size": 128, "held_out": 0.02},
        "digits": {"data": "digits", "steps": 1000, "batch_size": 64, "held_out": 0.1},
    }

    networks: DenseVAENetworks = DenseVAENetworks()
    """Sizes of the networks."""
    learning_rate: Positive = 1e-3
    """Learning rate of Adam."""

    def source(self, device: torch.device) -> Source:
        return ImageSource(self.training_images()[0], "dynamic", self.seed, device)

    def observed(self, images: Tensor) -> Tensor:
        return binarized(images, seed=0)

    def objectives(self, pair: Pair) -> list[Objective]:
        return [Objective(NegativeELBO(*pair), partial(torch.optim.Adam, lr=self.learning_rate, fused=True))]

    def report(self, pair: Pair, device: torch.device) -> "DenseVAEReport":
        return DenseVAEReport(self, pair, device)


class DenseVAEReport(ImageReport):
    """A likelihood and a figure, besides the curve of the held-out ELBO and samples, which every report of images has."""

    def metrics(self, full: bool = False) -> dict[str, float]:
        x, _ = self.measured
        name = f"{self.recipe.measured_split}_log_likelihood"
        return {name: mean_log_likelihood(*self.pair, {"x": x if full else x[:500]}, num_samples=100)}

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.plotting import image_grid  # matplotlib is imported only where something is drawn

        x = self.measured[0][:10]
        rows = [list(x), list(reconstruct(*self.pair, {"x": x}))]
        yield "reconstructions", image_grid(rows, "Images that were not trained on, and their reconstructions")
