"""What recipes on images share: where files lie, which images are trained on, and which are measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyro
import torch
from torch import Tensor

from pyzoo.data.images import IMAGE_SETS, ImageSet, ImageSetName, load_images
from pyzoo.errors import UsageError
from pyzoo.infer import NegativeELBO, evaluating
from pyzoo.training import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FileRecipe", "ImageRecipe", "generate"]


@dataclasses.dataclass
class FileRecipe(Recipe):
    """Base of recipes on images from files: where those lie, and what is held out."""

    incidental: ClassVar[frozenset[str]] = Recipe.incidental | {"data_dir"}

    data_dir: Path | None = None
    """Where they are looked for first; then in $PYZOO_DATA and in a cache folder, into which they are downloaded."""
    validation: bool = False
    """Hold out the last sixth of the training images and measure on them, not on test images: for choosing settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is not None:  # from a config.json it comes as text; and a run may be resumed elsewhere
            self.data_dir = Path(self.data_dir).expanduser().absolute()

    @property
    def image_set(self) -> ImageSet:
        """The images that examples are counted by."""
        raise NotImplementedError

    @property
    def train_size(self) -> int:
        """Images that are trained on."""
        return self.image_set.train - (self.image_set.train // 6 if self.validation else 0)

    @property
    def measured_split(self) -> str:
        """What is measured on, as names of metrics have it: "test" or "validation"."""
        return "validation" if self.validation else "test"


@dataclasses.dataclass
class ImageRecipe(FileRecipe):
    """Base of recipes on one set of images."""

    data: ImageSetName = "mnist"
    """The images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.data in IMAGE_SETS, "data", f"one of {', '.join(IMAGE_SETS)}")

    @property
    def image_set(self) -> ImageSet:
        return IMAGE_SETS[self.data]

    def prepare(self) -> None:
        for split in ("train", "test"):
            load_images(self.data, split, self.data_dir)

    def training_images(self) -> tuple[Tensor, Tensor]:
        """The images that are trained on, (images, channels, height, width), uint8, and their labels."""
        images, labels = load_images(self.data, "train", self.data_dir)
        return images[: self.train_size], labels[: self.train_size]

    def measured_images(self) -> tuple[Tensor, Tensor]:
        """The images to measure on, and their labels: the test images, or those that are held out."""
        if not self.validation:
            return load_images(self.data, "test", self.data_dir)
        images, labels = load_images(self.data, "train", self.data_dir)
        return images[self.train_size :], labels[self.train_size :]

    @property
    def epoch_steps(self) -> int:
        """Steps in a pass through the data."""
        return self.train_size // self.batch_size

    def epoch(self, step: int) -> int:
        """Passes through the data before a step."""
        return step // self.epoch_steps

    def sample(
        self, module: NegativeELBO, device: torch.device, count: int, parts: Sequence[str] | None, seed: int
    ) -> dict[str, Tensor]:
        if parts is not None:
            raise UsageError(f"--parts: the images of {self.name} are not made of parts")
        return generate(module, count)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import image_sheet  # matplotlib is imported only where something is drawn

        return image_sheet(samples["mean"], "Images drawn from the model (means of p(x | z))")


def generate(module: NegativeELBO, count: int) -> dict[str, Tensor]:
    """Images drawn from the model: x, and the mean of p(x | z) that each was drawn from."""
    with evaluating(module):
        site = pyro.poutine.trace(module.model).get_trace(size=count).nodes["x"]
    return {"x": site["value"], "mean": site["fn"].mean}
