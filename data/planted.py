r"""Views that share causes, by a bipartite structure that is known: which cause has which views for its children.

Two kinds of views follow from one structure, with mask M, (views, causes):

.. math:: x_i = \sum_j M_{ij} A_{ij} z_j + \sigma \epsilon_i, \qquad z_j, \epsilon_i \sim \mathcal{N}(0, I)

whose mutual informations are exact (:meth:`PlantedGaussians.information`); and strips of images side by side, one image for each
cause of the view, whose brightness or class the cause decides (:class:`PlantedImages`). A view called "e" is an environment: the
range of the mean of its causes is cut into parts of equal width, and the environment is the part in which an example falls.

Such structures test what learns a structure: Zhang et al. (2020), section 3.5, whose own experiments are not in the paper.
"""

import itertools
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.checks import (
    as_device,
    as_indices,
    require_count,
    require_kind,
    require_names,
    require_number,
    require_switch,
    require_tensor,
)
from pyzoo.errors import UsageError
from pyzoo.infer import BayesianNetwork, Variables
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import Above, AtLeast, AtMost

__all__ = ["ENVIRONMENT", "PlantedGaussians", "PlantedImages", "PlantedSource", "drawn_structure", "parsed_structure"]

ENVIRONMENT = "e"
"""Name of the view that is an environment."""

# Structures -----------------------------------------------------------------------------------------------------------


def parsed_structure(text: str) -> BayesianNetwork:
    """A structure from text, "z1 -> x1, x2; z2 -> x2, x3": causes, and the views that they lead to, in the order of their names.

    Raises:
        ValueError: the text is not of this form, or a name is both a cause and a view.

    Example:
        >>> parsed_structure("z1 -> x1, x2; z2 -> x2, x3").generative_mask()
        tensor([[1., 0.],
                [1., 1.],
                [0., 1.]])
    """
    require_kind(text, "text", str)
    causes, views = set(), set()
    for statement in filter(str.strip, text.replace("\n", ";").split(";")):
        left, arrow, right = statement.partition("->")
        names = [[name.strip() for name in side.split(",")] for side in (left, right)]
        if not arrow or "->" in right or not all(name for side in names for name in side):
            raise ValueError(f"A statement is 'cause, cause -> view, view', not '{statement.strip()}'.")
        if strange := [name for side in names for name in side if not name.isprintable()]:
            raise ValueError(f"A name must be of characters that can be printed, not {strange[0]!r}.")
        causes |= set(names[0])
        views |= set(names[1])
    if both := sorted(causes & views):
        raise ValueError(f"'{both[0]}' can't be both a cause and a view.")
    if not views:
        raise ValueError("A structure needs a cause and a view.")
    variables = Variables(tuple(sorted(views, key=_in_order)), shared=tuple(sorted(causes, key=_in_order)))
    return BayesianNetwork.parse(text, variables)


def _in_order(name: str) -> tuple[bool, str, int, str]:
    """Sorts x2 before x10, and the environment last."""
    stem = name.rstrip("0123456789")
    number = name[len(stem) :].lstrip("0")  # as text: Python takes no number of very many digits
    return name == ENVIRONMENT, stem, len(number), number


def drawn_structure(
    num_views: int, num_causes: int, most_causes: int, seed: int, density: float = 0.5, environment: bool = False
) -> BayesianNetwork:
    """A structure at random: views x1, x2, ... and causes z1, z2, ...

    Each cause has two views or more, each view a cause, and no two causes have the same views, which could not be told apart.

    Args:
        num_views: number of views.
        num_causes: number of causes.
        most_causes: largest number of causes of a view.
        seed: decides on all edges.
        density: probability of an edge, before structures that break a rule are drawn again.
        environment: whether there is an environment besides, which the first cause leads to.

    Raises:
        ValueError: a number is out of range.
        UsageError: hardly any structure obeys the rules.

    Example:
        >>> drawn_structure(5, 3, most_causes=2, seed=0).generative_mask().sum(1).max()
        tensor(2.)
    """
    require_count(num_views, "num_views")
    require_count(num_causes, "num_causes")
    require_count(most_causes, "most_causes")
    require_number(density, "density", Above(0), AtMost(1))
    require_switch(environment, "environment")
    generator = seeded(derive_seed(seed, "structure"))
    views = tuple(f"x{i + 1}" for i in range(num_views)) + (ENVIRONMENT,) * environment
    variables = Variables(views, shared=tuple(f"z{j + 1}" for j in range(num_causes)))
    for _ in range(10_000):
        mask = (torch.rand(num_views, num_causes, generator=generator) < density).float()
        rules = [mask.sum(0) >= 2, mask.sum(1) >= 1, mask.sum(1) <= most_causes]
        if all(rule.all() for rule in rules) and len(set(map(tuple, mask.T.tolist()))) == num_causes:
            if environment:
                mask = torch.cat([mask, one_hot(torch.tensor([0]), num_causes).float()])
            return BayesianNetwork.from_generative_mask(variables, mask)
    raise UsageError(
        f"{num_views} views can hardly have {num_causes} causes of which each has two views or more, no two have the same views, "
        f"and no view has more than {most_causes}: take more views, fewer causes, or another density"
    )


class _Planted:
    """Base of both kinds of views."""

    def __init__(self, structure: BayesianNetwork, num_environments: int, blur: float) -> None:
        require_kind(structure, "structure", BayesianNetwork)
        names = structure.variables
        if names.private or not names.shared:
            raise ValueError("A planted structure has shared causes, and no others.")
        require_number(blur, "blur", AtLeast(0), AtMost(1))
        self.structure = structure
        self.num_environments = num_environments
        self.blur = blur
        self.mask: Tensor = structure.generative_mask()
        self.views: tuple[str, ...] = tuple(name for name in names.observed if name != ENVIRONMENT)
        if ENVIRONMENT in names.observed:
            require_count(num_environments, "num_environments", 2)

    def causes_of(self, view: str) -> list[int]:
        """The numbers of a view's causes."""
        return self.mask[self.structure.variables.observed.index(view)].nonzero().flatten().tolist()

    def _environment(self, levels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The environment as a one-hot view, if there is one, from a level between 0 and 1 of each cause, (count, causes)."""
        if ENVIRONMENT not in self.structure.variables.observed:
            return {}
        mean = levels[:, self.causes_of(ENVIRONMENT)].mean(1)
        found = (mean * self.num_environments).long().clamp(max=self.num_environments - 1)
        drawn = torch.rand(2, len(levels), generator=generator, device=levels.device)
        other = (drawn[0] * self.num_environments).long()
        return {ENVIRONMENT: one_hot(torch.where(drawn[1] < self.blur, other, found), self.num_environments).float()}


# Views ----------------------------------------------------------------------------------------------------------------


class PlantedGaussians(_Planted):
    """Views that are linear functions of normal causes, with noise.

    All causes of a view are equally strong: its A_ij have orthogonal columns, of one length, and without the noise a coordinate
    has variance 1 on average.

    Args:
        structure: from causes to views; a view called "e" is an environment.
        x_dim: dimensions of a view, at least as many as its causes have together.
        z_dim: dimensions of a cause.
        noise: standard deviation of the noise.
        seed: decides on A.
        num_environments: number of environments, if there is such a view.
        blur: share of examples whose environment is drawn at random instead.

    Raises:
        ValueError: a number is out of range.
        UsageError: a view has too few dimensions.

    Example:
        >>> planted = PlantedGaussians(parsed_structure("z1 -> x1, x2; z2 -> x3"), noise=1.0, x_dim=1)
        >>> {name: tuple(view.shape) for name, view in planted.draw(5, seeded(0)).items()}
        {'x1': (5, 1), 'x2': (5, 1), 'x3': (5, 1)}
        >>> round(planted.information(["x1"], ["x2"]), 4), planted.information(["x1"], ["x3"])  # -log(1 - 1/4) / 2
        (0.1438, 0.0)
    """

    def __init__(
        self,
        structure: BayesianNetwork,
        x_dim: int = 4,
        z_dim: int = 1,
        noise: float = 0.3,
        seed: int = 0,
        num_environments: int = 0,
        blur: float = 0.2,
    ) -> None:
        super().__init__(structure, num_environments, blur)
        require_count(x_dim, "x_dim")
        require_count(z_dim, "z_dim")
        require_number(noise, "noise", Above(0))
        self.x_dim: int = x_dim
        self.z_dim: int = z_dim
        self.noise: float = noise
        generator = seeded(derive_seed(seed, "planted"))
        num_causes = len(structure.variables.shared)
        self.weights: dict[str, Tensor] = {}
        for view in self.views:
            causes = self.causes_of(view)
            if len(causes) * z_dim > x_dim:
                raise UsageError(f"a view of {x_dim} dimensions can't show {len(causes)} causes of {z_dim}, as {view} should")
            columns = torch.linalg.qr(torch.randn(x_dim, x_dim, generator=generator, dtype=torch.float64))[0]
            weight = torch.zeros(num_causes, z_dim, x_dim, dtype=torch.float64)
            if causes:
                used = columns[:, : len(causes) * z_dim].T * math.sqrt(x_dim / (len(causes) * z_dim))
                weight[causes] = used.view(len(causes), z_dim, x_dim)
            self.weights[view] = weight.flatten(0, 1)  # (causes * z_dim, x_dim)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Views by name, (count, x_dim) each, on the generator's device."""
        require_count(count, "count", 0)
        require_kind(generator, "generator", torch.Generator)
        device, num_causes = generator.device, len(self.structure.variables.shared)
        z = torch.randn(count, num_causes * self.z_dim, generator=generator, device=device)
        noise = torch.randn(len(self.views), count, self.x_dim, generator=generator, device=device)
        found = {
            view: z @ self.weights[view].to(device, torch.float32) + self.noise * noise[i] for i, view in enumerate(self.views)
        }
        levels = torch.special.ndtr(z.view(count, num_causes, self.z_dim)[..., 0])
        return {**found, **self._environment(levels, generator)}

    @property
    def covariance(self) -> dict[tuple[str, str], Tensor]:
        """Covariances of all pairs of causes and views, the environment apart, by their names; in float64."""
        names = self.structure.variables
        identity = torch.eye(len(names.shared) * self.z_dim, dtype=torch.float64)
        rows = dict(zip(names.shared, identity.split(self.z_dim), strict=True))
        rows |= {view: weight.T for view, weight in self.weights.items()}
        found = {(a, b): rows[a] @ rows[b].T for a, b in itertools.product(rows, repeat=2)}
        for view in self.views:
            found[view, view] = found[view, view] + self.noise**2 * torch.eye(self.x_dim, dtype=torch.float64)
        return found

    def information(self, some: Collection[str], others: Collection[str], given: Collection[str] = ()) -> float:
        """I(some; others | given) between causes and views, in nats, by determinants of covariances.

        Raises:
            ValueError: there is no such variable, one is named twice, or there is none on a side.
        """
        covariance = self.covariance
        known = [*self.structure.variables.shared, *self.views]
        for names in (some, others, given):
            require_names(names, known, "variable")
        if not some or not others:
            raise ValueError("An information is between one variable or more on each side.")
        if len({*some, *others, *given}) < len(some) + len(others) + len(given):
            raise ValueError("A variable can't be named twice in an information.")

        def log_det(names: Sequence[str]) -> Tensor:
            if not names:
                return torch.zeros((), dtype=torch.float64)
            return torch.logdet(torch.cat([torch.cat([covariance[a, b] for b in names], 1) for a in names]))

        some, others, given = list(some), list(others), list(given)
        total = log_det(some + given) + log_det(others + given) - log_det(some + others + given) - log_det(given)
        return 0.5 * total.item()


class PlantedImages(_Planted):
    """Views that are strips of images side by side, one image for each of the view's causes.

    A cause decides on the brightness of its images, from a tenth to the whole, or on their class. Which image of the set, or of
    the class, is drawn anew for each view: views share the causes alone. A strip has as many places as the view with the most
    causes needs; what is left of it is black.

    Args:
        structure: from causes to views; a view called "e" is an environment.
        images: (images, 1, height, width), uint8.
        labels: (images,), of any integer type; needed if causes are classes.
        num_classes: number of classes of a cause, which takes each of the first ones equally often; 0 for brightness.
        num_environments: number of environments, if there is such a view.
        blur: share of examples whose environment is drawn at random instead.

    Raises:
        ValueError: images or labels are of another form.
        UsageError: a class has no image.

    Example:
        >>> images = torch.full((20, 1, 8, 8), 255, dtype=torch.uint8)
        >>> planted = PlantedImages(parsed_structure("z1 -> x1, x2; z2 -> x2"), images)
        >>> views = planted.draw(5, seeded(0))
        >>> {name: tuple(view.shape) for name, view in views.items()}
        {'x1': (5, 1, 8, 16), 'x2': (5, 1, 8, 16)}
        >>> bool((views["x1"][..., 0] == views["x2"][..., 0]).all())  # z1 makes both equally bright
        True
    """

    def __init__(
        self,
        structure: BayesianNetwork,
        images: Tensor,
        labels: Tensor | None = None,
        num_classes: int = 0,
        num_environments: int = 0,
        blur: float = 0.2,
    ) -> None:
        super().__init__(structure, num_environments, blur)
        require_tensor(images, "images")
        if images.dim() != 4 or images.shape[1] != 1 or images.dtype != torch.uint8 or not images.numel():
            raise ValueError(f"images must be uint8 and (images, 1, height, width), got {images.dtype} {tuple(images.shape)}.")
        require_count(num_classes, "num_classes", 0)
        if num_classes and labels is None:
            raise ValueError("labels are needed where causes are classes.")
        labels = as_indices(labels, "labels") if num_classes else torch.zeros(len(images), dtype=torch.int64)
        if len(labels) != len(images):
            raise ValueError(f"There must be a label for each of the {len(images)} images, got {len(labels)}.")
        if len(labels) and labels.min() < 0:
            raise ValueError(f"labels must not be negative, got {labels.min().item()}.")
        labels = labels.clamp(max=num_classes)  # of classes beyond, no image is drawn
        self.num_classes = num_classes
        self.counts: Tensor = torch.bincount(labels, minlength=max(1, num_classes))[: max(1, num_classes)]
        if not self.counts.all():
            raise UsageError(f"there is no image of class {(self.counts == 0).nonzero()[0].item()}, of {num_classes} classes")
        self.starts: Tensor = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)[:-1]])
        self.images: Tensor = images[labels.argsort(stable=True)]
        self.places: int = max([1, *(len(self.causes_of(view)) for view in self.views)])

    def to(self, device: torch.device | str) -> "PlantedImages":
        """Moves the images to a device; returns the same object."""
        self.images, self.counts, self.starts = (t.to(device) for t in (self.images, self.counts, self.starts))
        return self

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a strip."""
        return (1, self.images.shape[2], self.images.shape[3] * self.places)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Views by name, (count, 1, height, width) each, from 0 to 1, on the images' device, which is the generator's."""
        num_causes, width = len(self.structure.variables.shared), self.images.shape[3]
        levels = torch.rand(count, num_causes, generator=generator, device=generator.device)
        classes = (levels * self.num_classes).long()
        brightness = torch.ones_like(levels) if self.num_classes else 0.1 + 0.9 * levels
        found = {}
        for view in self.views:
            strip = torch.zeros(count, *self.x_shape, device=generator.device)
            which = torch.rand(count, num_causes, generator=generator, device=generator.device)
            for place, cause in enumerate(self.causes_of(view)):
                of_class = classes[:, cause]
                chosen = self.images[self.starts[of_class] + (which[:, cause] * self.counts[of_class]).long()]
                strip[..., place * width : (place + 1) * width] = brightness[:, cause].view(-1, 1, 1, 1) * chosen / 255
            found[view] = strip
        return {**found, **self._environment(levels, generator)}


class PlantedSource:
    """Batches of views that share causes, drawn on the device, anew in each step.

    Args:
        planted: draws them.
        complete: share of the examples that have all views; of the others each view is missing with probability one half, but
            not all of them.
        seed: of all batches.
        split: name of the split; different names give different batches.
        device: where they are drawn.
    """

    def __init__(
        self,
        planted: PlantedGaussians | PlantedImages,
        complete: float = 1.0,
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind(planted, "planted", PlantedGaussians, PlantedImages)
        require_number(complete, "complete", AtLeast(0), AtMost(1))
        self.device: torch.device = as_device(device)
        self.planted: PlantedGaussians | PlantedImages = (
            planted.to(self.device) if isinstance(planted, PlantedImages) else planted
        )
        self.complete = complete
        self.seed = seed
        self.split = split

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The views of a step by name, and ``present``, (size, views), boolean, if some examples lack views."""
        generator = seeded(derive_seed(self.seed, self.split, step), self.device)
        found = self.planted.draw(size, generator)
        if self.complete == 1:
            return found
        present = torch.rand(size, len(found), generator=generator, device=self.device) < 0.5
        kept = torch.randint(len(found), (size, 1), generator=generator, device=self.device)
        is_whole = torch.rand(size, 1, generator=generator, device=self.device) < self.complete
        return {**found, "present": present.scatter(1, kept, True) | is_whole}
