"""What recipes on images share: whose images, which are trained on, and which are held out and measured."""

import dataclasses
import functools
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from typing_extensions import Self

from pyzoo.data.files import FILE_TYPES, SCENE_TYPE, central_square, image_data, pixels_of, write_npz
from pyzoo.data.images import ImageData, ImageSetName, load_image_data
from pyzoo.errors import UsageError, one_line
from pyzoo.evaluation import generate, site_terms
from pyzoo.files import absolute, fingerprint_of
from pyzoo.settings import Above, AtLeast, AtMost, Below, Group, changed
from pyzoo.training import PairReport, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["ImageRecipe", "ImageReport", "InData", "PlainImageRecipe", "is_own", "read_own_image"]
__all__ += ["CROPPED"]

InData: Group = Group("data")
"""The heading under which settings of data stand in the command's help."""


@dataclasses.dataclass(frozen=True)
class ImageRecipe(Recipe):
    """Base of all recipes on images."""

    common: ClassVar[tuple[str, ...]] = ("data", *Recipe.common, "held_out")
    incidental: ClassVar[frozenset[str]] = Recipe.incidental | {"data_dir"}
    group: ClassVar[str] = "data"
    named_data: ClassVar[tuple[str, ...]] = get_args(ImageSetName)
    """Data that are known by name; a folder or file of such a name is not meant."""

    data: str = "mnist"
    """Images to train on: mnist, fashion-mnist, omniglot, omniglot-drawers, cifar10, digits; torchvision:NAME, such as
    torchvision:KMNIST; or your own, a folder with one subfolder per class, a flat folder, or a file .npz, .npy or .pt."""
    data_dir: Path | None = None
    """Folder in which named sets are looked for first; then in $PYZOO_DATA and in a cache, into which they are downloaded."""
    image_size: Annotated[int, AtLeast(1), AtMost(4096)] | None = None
    """Pixels on a side to which your own images are resized; needed if their sizes differ."""
    test_share: Annotated[float, Above(0), Below(1)] = 0.2
    """Share of your own images that are kept for testing, where they come without a split."""
    held_out: Annotated[float, AtLeast(0), Below(1)] = 0.0
    """Share of the training images, the last ones, that are held out from training: for curves, --keep-best, --patience."""
    validation: bool = False
    """Measure on the held-out images instead of the test images, to choose settings; holds out a sixth by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.data != "", "data", "a name, a folder or a file")
        if self.data_dir is not None:  # a run may be resumed elsewhere
            object.__setattr__(self, "data_dir", absolute(self.data_dir))
        if is_own(self.data, self.named_data):
            object.__setattr__(self, "data", str(absolute(self.data)))

    @classmethod
    def keep_data(cls, folder: Path, images: Tensor, labels: Tensor | None = None, **settings: Any) -> Path:
        options = {name: settings[name] for name in ("test_share", "image_size") if settings.get(name) is not None}
        write_npz(folder / "data.npz", image_data(images, labels, **options))
        return folder / "data.npz"

    @functools.cached_property
    def dataset(self) -> ImageData:
        """The images, read when they are asked for.

        Raises:
            UsageError: they are missing or damaged.
        """
        return self.read_data()

    def read_data(self) -> ImageData:
        """Reads the images."""
        return load_image_data(self.data, self.data_dir, self.image_size, self.test_share)

    @functools.cached_property
    def _split(self) -> tuple[ImageData, Tensor, Tensor | None]:
        count = len(self.dataset.train)
        held = count // 6 if self.validation and not self.held_out else round(count * self.held_out)
        if held == 0:
            if self.held_out or self.validation:
                raise UsageError(f"--held-out {self.held_out:g} holds out none of the {count} training images")
            return self.dataset, self.dataset.train[:0], None
        return self.dataset.hold_out(held)

    def training_images(self) -> tuple[Tensor, Tensor | None]:
        """The images that are trained on, (images, channels, height, width), uint8, and their labels."""
        return self._split[0].train, self._split[0].train_labels

    def held_out_images(self) -> tuple[Tensor, Tensor | None]:
        """The held-out images, and their labels; none if nothing is held out."""
        return self._split[1], self._split[2]

    def measured_images(self) -> tuple[Tensor, Tensor | None]:
        """The images to measure on, and their labels: the test images, or with --validation the held-out ones."""
        return self.held_out_images() if self.validation else (self.dataset.test, self.dataset.test_labels)

    @property
    def train_size(self) -> int:
        """Number of images that are trained on."""
        return len(self._split[0].train)

    @property
    def held_out_size(self) -> int:
        """Number of training images that are held out."""
        return len(self._split[1])

    @property
    def measured_split(self) -> str:
        """What is measured on, as names of metrics have it: "test" or "validation"."""
        return "validation" if self.validation else "test"

    @property
    def note(self) -> str:
        return self._split[0].note

    def fingerprint(self) -> str:
        if not is_own(self.data, self.named_data):
            return self.data
        parts = (self.dataset.train, self.dataset.test, self.dataset.train_labels, self.dataset.test_labels)
        return fingerprint_of(*(part for part in parts if part is not None))

    def prepare(self) -> None:
        besides = f"{len(self.dataset.test)} are for testing, {self.held_out_size} held out"
        what = f"at most {self.train_size}, the number of images to train on ({besides})"
        self.require(self.batch_size <= self.train_size, "batch_size", what)

    def fitted(self, given: Collection[str]) -> Self:
        if self.data in self.named_data:
            return self
        if self.train_size < self.fewest_examples:
            images = "1 image" if self.train_size == 1 else f"{self.train_size} images"
            raise UsageError(f"{self.data} has {images} to train on, and batch norm needs {self.fewest_examples}")
        if "batch_size" in given or self.batch_size <= self.train_size:
            return self
        return changed(self, {"batch_size": self.train_size})

    @property
    def epoch_steps(self) -> int:
        """Steps in a pass through the data."""
        return max(1, self.train_size // self.batch_size)

    def epoch(self, step: int) -> int:
        """Passes through the data before a step."""
        return step // self.epoch_steps


def is_own(data: str, named: Collection[str]) -> bool:
    """Whether data are a user's, in a file or folder, and not among those that are known by name."""
    if data in named or data.startswith("torchvision:"):
        return False
    return "/" in data or data.startswith((".", "~")) or Path(data).suffix in (*FILE_TYPES, SCENE_TYPE) or Path(data).is_dir()


@dataclasses.dataclass(frozen=True)
class PlainImageRecipe(ImageRecipe):
    """Base of recipes whose model has images alone as x. Their networks have a field ``x_shape``: the shape of an image."""

    def sized(self) -> Self:
        shape = tuple(self.training_images()[0].shape[1:])
        return dataclasses.replace(self, networks=dataclasses.replace(self.networks, x_shape=shape))

    def observed(self, images: Tensor) -> Tensor:
        """Images, uint8, as the likelihood takes them; those that are drawn are the same for all runs."""
        raise NotImplementedError


CROPPED = "Of your image the central square is taken, and resized."
"""What a page says of :func:`read_own_image`."""

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""Of a user's image. Others of Pillow's start programs, as EPS does."""

_MOST_PIXELS = 25_000_000


def read_own_image(file: str | Path, x_shape: Sequence[int]) -> Tensor:
    """An image of a user's as a model takes it, (channels, height, width), from 0 to 1.

    Its central square is resized. What is transparent becomes black, or white behind dark ink. Where the model's images are gray,
    colors are averaged, and an image whose edge is bright is inverted: their background is black, as MNIST's.

    Args:
        file: a PNG, JPEG, GIF, WebP, BMP or TIFF file.
        x_shape: channels, height and width of the model's images.

    Raises:
        UsageError: it is no such image, or has more than 25 million pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about very large images, which are refused
            with Image.open(file, formats=_FORMATS) as opened:  # its head alone is read
                width, height = opened.size
                too_large = width * height > _MOST_PIXELS
                pixels = None if too_large else torch.from_numpy(np.array(pixels_of(_opaque(opened))))
    except UnidentifiedImageError as error:
        raise UsageError(f"the file is no image of a kind that is read here, {', '.join(_FORMATS)}, or is damaged") from error
    except Image.DecompressionBombError as error:
        raise UsageError("the image is far too large: take one of at most 5,000 x 5,000 pixels") from error
    except Exception as error:  # Pillow raises many kinds
        raise UsageError(f"the file cannot be read as an image: {one_line(error)}") from error
    if pixels is None:
        raise UsageError(f"the image has {width:,} x {height:,} pixels: take one of at most 5,000 x 5,000")
    image = pixels.float() / (65535 if pixels.dtype == torch.uint16 else 255)
    image = image.unsqueeze(0) if image.dim() == 2 else image.movedim(-1, 0)
    image = central_square(image).unsqueeze(0)
    image = interpolate(image, size=tuple(x_shape[1:]), mode="bilinear", antialias=True)[0].clamp(0, 1)
    if x_shape[0] == 3:
        return image.expand(3, -1, -1)
    gray = image.mean(0, keepdim=True)
    edge = torch.cat([gray[:, 0], gray[:, -1], gray[..., 0], gray[..., -1]], -1).mean()
    return 1 - gray if edge > 0.5 else gray


def _opaque(image: "Image") -> "Image":
    """A Pillow image on white, if it is dark ink on a transparent ground; others as they are."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    colored = image.convert("RGBA")
    values = np.asarray(colored).astype(float) / 255
    ink = values[..., :3].mean(-1)[values[..., 3] > 0.5]
    if not ink.size or ink.mean() > 0.5:
        return image
    white = Image.new("RGBA", colored.size, "white")
    white.alpha_composite(colored)
    return white.convert("RGB")


class ImageReport(PairReport):
    """What reports of recipes on images share."""

    @functools.cached_property
    def held_out(self) -> Tensor:
        """Up to 1,000 held-out images as the likelihood takes them."""
        return self.recipe.observed(self.recipe.held_out_images()[0][:1000]).to(self.device)

    @property
    def can_validate(self) -> bool:
        return self.recipe.held_out_size > 0

    def validate(self, step: int) -> dict[str, float]:
        """The ELBO of held-out images."""
        return {"held_out_elbo": -sum(site_terms(*self.pair, {"x": self.held_out}).values())}

    @functools.cached_property
    def measured(self) -> tuple[Tensor, Tensor | None]:
        """The images to measure on as the likelihood takes them, and their labels."""
        images, labels = self.recipe.measured_images()
        return self.recipe.observed(images).to(self.device), labels

    @functools.cached_property
    def examples(self) -> tuple[Tensor, str]:
        """Images to show, (images, channels, height, width), from 0 to 1, and what they are: those to measure on, or where these
        cannot be read, digits of scikit-learn's, with a margin like MNIST's."""
        try:
            return self.recipe.measured_images()[0].to(self.device) / 255, "images that the model has not seen"
        except UsageError:
            channels, height, width = self.recipe.networks.x_shape
            margins = [round(height / 7), round(width / 7)]
            size = height - 2 * margins[0], width - 2 * margins[1]
            digits = load_image_data("digits").test.to(self.device) / 255
            small = interpolate(digits, size=size, mode="bilinear", antialias=True)
            padded = pad(small, [margins[1], margins[1], margins[0], margins[0]]).expand(-1, channels, -1, -1)
            return padded, "digits of scikit-learn's (the model's own test images are not at hand)"

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        if given:
            name = self.recipe.name
            raise UsageError(f"there is nothing '{min(given)}' to condition on: {name} draws images without conditions")
        return generate(self.pair.model, size=count)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import image_sheet  # matplotlib is imported only where something is drawn

        return image_sheet(samples["mean"], "Images drawn from the model (means of p(x | z))")
