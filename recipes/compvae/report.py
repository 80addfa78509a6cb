"""What is measured of a trained CompVAE, drawn, and sampled from it.

All R2 are over fresh sets, pooled over their entries (:func:`pyzoo.evaluation.pooled_r2`), from posterior means unless it says
otherwise. A name ends in ``/K3`` where the sets have three parts; without that they have the largest trained number. Parts are
distinct, unless the name says repeated. Where more parts were trained than there are frequencies, sets of that many repeat some:
R2 without a number, but those of repeated parts, are then of as many parts as there are frequencies, and all else is of the
largest trained number.

- ``reconstruction_r2``: of x, decoded from its parts' w and from z.
- ``subset_r2``: of the whole that a random subset of the parts makes, decoded from their w alone; ``subset_r2_sampled`` with
  samples of w in place of means.
- ``reconstruction_r2_repeated`` and ``subset_r2_repeated``: the same of parts that may be of one frequency, which nothing tells
  apart; of sines alone.
- ``label_r2``: of x, decoded from what the labels tell of w and z.
- ``sum_of_parts_gap``: by how much the R2 of decode(sum of w) is above that of the sum of decode(w) (section 4.1): 0 if what the
  decoder makes of a whole is the sum of what it makes of the parts.
- ``order_gap``: the largest change of a decoded value where the parts, some of them repeated, are given in another order; it is
  rounding.
- ``nats_w``, ``nats_z``, ``nats_x``: terms of the negative ELBO for each set; ``elbo`` is minus their sum.
- ``scale_floor``, ``x_floor``: the least standard deviations of p(w), p(z) and p(x), in their units.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar

import pyro
import torch
from torch import Tensor

from pyzoo.data.colors import COLORS
from pyzoo.errors import UsageError
from pyzoo.evaluation import pooled_r2, site_terms
from pyzoo.infer import AtMean
from pyzoo.random import derive_seed
from pyzoo.training import PairReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training import Panel


__all__ = ["ColorsReport", "CompVAEReport", "SinesReport", "decode", "generate", "infer_latents", "random_subsets"]

_CHUNK = 250  # sets that are in memory at a time


# Latents and curves or images -----------------------------------------------------------------------------------------


@torch.no_grad()
def infer_latents(
    guide: Any, batch: Mapping[str, Tensor], fixed: Mapping[str, Tensor] | None = None, sample_w: bool = False
) -> dict[str, Tensor]:
    """z's mean given x, (batch, z_dim), and w's given that z, (batch, w_dim, parts), or a sample of w.

    ``fixed`` gives sites of the guide, such as the node noise epsilon, values of their own.
    """
    guide = pyro.condition(guide, data=dict(fixed or {}))
    with AtMean({"z"} if sample_w else {"z", "w"}):
        trace = pyro.poutine.trace(guide).get_trace(**batch)
    return {name: trace.nodes[name]["value"] for name in ("z", "w")}


@torch.no_grad()
def generate(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w, z and the mean of x drawn from the model for these parts."""
    with AtMean({"x"}):
        trace = pyro.poutine.trace(model).get_trace(**batch)
    return {name: trace.nodes[name]["value"] for name in ("w", "z", "x")}


@torch.no_grad()
def decode(model: Any, whole: Tensor, z: Tensor | None = None) -> Tensor:
    """The mean of x given a sum of w, (batch, w_dim), and z, by default its mean under p(z | sum w)."""
    if z is None:
        z = model.whole_prior(whole).chunk(2, dim=-1)[0]
    return model.decoder(whole, z)[0]


def random_subsets(size: int, num_parts: int, generator: torch.Generator) -> Tensor:
    """Booleans, (size, parts): in each row a random subset of 1 to parts - 1, all sizes equally often."""
    count = torch.randint(1, num_parts, (size, 1), generator=generator)
    rank = torch.rand(size, num_parts, generator=generator).argsort(-1).argsort(-1)
    return rank < count


# The report -----------------------------------------------------------------------------------------------------------


class CompVAEReport(PairReport):
    """What both problems share."""

    can_repeat: ClassVar[bool]
    """Whether parts drawn at random may be impossible to tell apart."""

    def draw(self, source: Any, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        """Sets for evaluation, with their truth: parts that can be told apart, unless repeated."""
        raise NotImplementedError

    def can_be_distinct(self, num_parts: int) -> bool:
        """Whether that many parts can all be told apart from x."""
        raise NotImplementedError

    @property
    def can_validate(self) -> bool:
        return True  # fresh sets are held out by themselves

    def validate(self, step: int) -> dict[str, float]:
        """The ELBO of 250 fresh sets of --parts parts, the same sets each time; as ``elbo``, once that many were trained."""
        source, parts = self.recipe.source(self.device), self.recipe.parts
        seed = derive_seed(self.recipe.seed, "validate")
        batch = self.draw(source, _CHUNK, parts, seed, repeated=not self.can_be_distinct(parts)).batch()
        return {"held_out_elbo": -sum(site_terms(*self.pair, batch).values())}

    def metrics(self, full: bool = False) -> dict[str, float]:
        """R2 of reconstructions and of subsets, by number of parts and beyond it; nats of each latent; order invariance."""
        largest = self.recipe.trained_parts
        metrics: dict[str, float] = {}
        for count in range(1, largest + 1):
            metrics |= {f"{name}/K{count}": value for name, value in self.r2(count).items()}
        # Without a suffix: the largest trained number of parts, or the largest at which all of them can be told apart.
        distinct = max(count for count in range(1, largest + 1) if self.can_be_distinct(count))
        counts = {name.split("/")[0]: largest if "repeated" in name else distinct for name in metrics}
        metrics = {**{name: metrics[f"{name}/K{count}"] for name, count in counts.items()}, **metrics}
        for count in sorted({(3 * largest + 1) // 2, 2 * largest, 30}):
            if count > largest:
                metrics |= {f"{name}/K{count}": value for name, value in self.r2(count).items()}
        metrics["label_r2"] = self.label_r2(distinct)
        metrics["sum_of_parts_gap"] = self.sum_of_parts_gap(largest)
        metrics["order_gap"] = self.order_gap(largest)
        metrics |= self.nats(largest)
        # The scales that the densities above could go down to; x's may still have been on its way when training stopped.
        return {**metrics, "scale_floor": self.recipe.networks.scale_floor, "x_floor": self.pair.model.x_floor.item()}

    def _chunks(self, num_parts: int, repeated: bool) -> Iterator[tuple[Any, Any, torch.Generator]]:
        """The evaluation sets in chunks, each with a generator for what else is random about it."""
        source = self.recipe.source(self.device)
        for start in range(0, self.recipe.evaluation_sets, _CHUNK):
            seed = derive_seed(self.recipe.seed, "evaluate", num_parts, repeated, start)
            torch.manual_seed(seed)
            size = min(_CHUNK, self.recipe.evaluation_sets - start)
            yield source, self.draw(source, size, num_parts, seed, repeated), torch.Generator().manual_seed(seed)

    def r2(self, num_parts: int) -> dict[str, float]:
        """R2 of reconstructions and of subsets of so many parts."""
        found = self._r2(num_parts, repeated=False) if self.can_be_distinct(num_parts) else {}
        if self.can_repeat and num_parts > 1:
            repeated = self._r2(num_parts, repeated=True)
            found |= {f"{name}_repeated": repeated[name] for name in ("reconstruction_r2", "subset_r2")}
        return found

    def _r2(self, num_parts: int, repeated: bool) -> dict[str, float]:
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for source, truth, generator in self._chunks(num_parts, repeated):
            latents = self.infer_latents(truth.batch())
            pairs.setdefault("reconstruction_r2", []).append((truth.x, self.decode(latents["w"].sum(-1), latents["z"])))
            if num_parts == 1:
                continue
            keep = random_subsets(len(truth.parts), num_parts, generator).to(self.device)
            target = source.subset(truth, keep)
            sampled = self.infer_latents(truth.batch(), sample_w=True)["w"]
            for name, w in {"subset_r2": latents["w"], "subset_r2_sampled": sampled}.items():
                pairs.setdefault(name, []).append((target, self.decode((w * keep.unsqueeze(1)).sum(-1))))
        return {name: pooled_r2(*(torch.cat(side) for side in zip(*sides, strict=True))) for name, sides in pairs.items()}

    def label_r2(self, num_parts: int) -> float:
        """What the labels alone tell the model of x, with w and z at their means under p. A sine's label tells almost nothing."""
        targets, outputs = [], []
        for _, truth, _ in self._chunks(num_parts, repeated=False):
            batch = truth.batch()
            targets.append(truth.x)
            outputs.append(self.decode(self.pair.model.w_prior(batch["parts"], batch.get("positions"))[0].sum(-1)))
        return pooled_r2(torch.cat(targets), torch.cat(outputs))

    def sum_of_parts_gap(self, num_parts: int) -> float:
        """Section 4.1's question: is the whole the sum of its parts? R2(x, decode(sum w)) - R2(x, sum of decode(w_i)).

        z is at its mean under p on both sides, so that the difference is in the adding alone.
        """
        wholes, sums, targets = [], [], []
        for _, truth, _ in self._chunks(num_parts, repeated=not self.can_be_distinct(num_parts)):
            latents = self.infer_latents(truth.batch())
            wholes.append(self.decode(latents["w"].sum(-1)))
            sums.append(sum(self.decode(w) for w in latents["w"].unbind(-1)))
            targets.append(truth.x)
        whole, parts, target = torch.cat(wholes), torch.cat(sums), torch.cat(targets)
        return pooled_r2(target, whole) - pooled_r2(target, parts)

    def order_gap(self, num_parts: int) -> float:
        """The largest change of a decoded value when the parts are permuted, each with its noise: rounding."""
        largest = 0.0
        for _, truth, generator in self._chunks(num_parts, repeated=True):
            batch = truth.batch()
            epsilon = torch.randn_like(self.pair.guide.label(batch["parts"], batch.get("positions")))
            order = torch.randperm(num_parts, generator=generator).to(self.device)
            permuted = {key: value if key == "x" else value[:, order] for key, value in batch.items()}
            both = [(batch, epsilon), (permuted, epsilon[:, order])]
            latents = [self.infer_latents(given, {"epsilon": noise}) for given, noise in both]
            first, second = (self.decode(found["w"].sum(-1), found["z"]) for found in latents)
            largest = max(largest, (first - second).abs().max().item())
        return largest

    def nats(self, num_parts: int) -> dict[str, float]:
        """The terms of the negative ELBO, per set."""
        sums: dict[str, float] = {}
        for _, truth, _ in self._chunks(num_parts, repeated=not self.can_be_distinct(num_parts)):
            for name, term in site_terms(*self.pair, truth.batch()).items():
                sums[name] = sums.get(name, 0.0) + term * len(truth.x)
        nats = {f"nats_{name}": value / self.recipe.evaluation_sets for name, value in sums.items()}
        return {**nats, "elbo": -sum(nats.values())}

    def infer_latents(
        self, batch: Mapping[str, Tensor], fixed: Mapping[str, Tensor] | None = None, sample_w: bool = False
    ) -> dict[str, Tensor]:
        """:func:`infer_latents` of the guide."""
        return infer_latents(self.pair.guide, batch, fixed, sample_w)

    def decode(self, whole: Tensor, z: Tensor | None = None) -> Tensor:
        """:func:`decode` of the model."""
        return decode(self.pair.model, whole, z)

    # Samples --------------------------------------------------------------------------------------------------------

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws wholes made of these parts, {"parts": names}, or of random ones of the largest trained number."""
        given = dict(given or {})
        names = given.pop("parts", None)
        if given:
            raise UsageError(f"there is nothing '{min(given)}' to condition on in {self.recipe.name}: there are parts")
        if isinstance(names, Tensor):
            names = names.tolist()
        if isinstance(names, (str, Number)):
            names = [name.strip() for name in str(names).split(",")]
        if names is not None:
            names = list(names)
        batch = self.described(count, None if names is None else self.recipe.parse_parts(names), seed)
        x = generate(self.pair.model, batch)["x"]
        if not x.isfinite().all():
            raise UsageError(f"what the model makes of {batch['parts'].shape[1]} parts is not finite: take fewer")
        return {**batch, "x": x}

    def described(self, count: int, categories: Tensor | None, seed: int) -> dict[str, Tensor]:
        """Descriptions of sets to generate: these categories for all, or random ones of the largest trained number."""
        seed = derive_seed(self.recipe.seed, "sample", seed)
        num_parts = self.recipe.trained_parts if categories is None else len(categories)
        batch = self.draw(self.recipe.source(self.device), count, num_parts, seed, repeated=True).batch()
        del batch["x"]
        if categories is not None:
            batch["parts"] = categories.to(self.device).expand(count, -1)
        return batch


class SinesReport(CompVAEReport):
    """The report of CompVAE on sines."""

    can_repeat = True

    def draw(self, source: Any, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        return source.draw(size, num_parts, seed, distinct=not repeated)

    def can_be_distinct(self, num_parts: int) -> bool:
        return num_parts <= self.recipe.num_frequencies

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.compvae.panels import sines_panels

        return sines_panels(self)

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.compvae.figures import sines_figures  # matplotlib is imported only where something is drawn

        return sines_figures(self, history)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import figure_grid, first_cells, show_curves

        figure, axes = figure_grid(-(-len(samples["x"]) // 4), 4, "Curves drawn from the model", cell=(2.8, 1.7))
        limit = 1.1 * samples["x"].abs().max().item()
        cells = first_cells(axes, len(samples["x"]))
        for cell, parts, x in zip(cells, samples["parts"], samples["x"], strict=True):
            show_curves(cell, {"": x}, limit, f"frequencies {', '.join(str(p + 1) for p in sorted(parts.tolist()))}")
        return figure


class ColorsReport(CompVAEReport):
    """The report of CompVAE on color gradients."""

    can_repeat = False

    def draw(self, source: Any, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        return source.draw(size, num_parts, seed)

    def can_be_distinct(self, num_parts: int) -> bool:
        return True  # two sites have the same place with probability zero

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.compvae.panels import colors_panels

        return colors_panels(self)

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.compvae.figures import colors_figures

        return colors_figures(self, history)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import figure_grid, first_cells, show_image

        figure, axes = figure_grid(-(-len(samples["x"]) // 4), 4, "Images drawn from the model", cell=(1.6, 1.6))
        cells = first_cells(axes, len(samples["x"]))
        for cell, parts, x in zip(cells, samples["parts"], samples["x"], strict=True):
            show_image(cell, x, " ".join(list(COLORS)[p] for p in parts.tolist()))
        return figure
