"""What is measured of a trained CompVAE.

All R2 are over fresh sets, pooled over their entries (:func:`pyzoo.evaluation.pooled_r2`), from posterior means unless it says
otherwise. A name ends in ``/K3`` where the sets have three parts; without that they have the largest trained number (of
distinct ones, unless it says repeated).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from pyzoo.evaluation import pooled_r2
from pyzoo.infer import AtMean, NegativeELBO
from pyzoo.random import derive_seed

if TYPE_CHECKING:
    from pyzoo.recipes.compvae import CompVAERecipe

__all__ = ["decode", "evaluate", "generate", "infer_latents", "random_subsets"]

_CHUNK = 250  # sets that are in memory at a time


@torch.no_grad()
def evaluate(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device) -> dict[str, float]:
    """R2 of reconstructions and of subsets, by number of parts and beyond it; nats of each latent; order invariance."""
    largest = recipe.trained_parts
    metrics: dict[str, float] = {}
    with pyro.validation_enabled(False), torch.random.fork_rng():
        for count in range(1, largest + 1):
            metrics |= {f"{name}/K{count}": value for name, value in _r2(recipe, module, device, count).items()}
        # Without a suffix: the largest trained number of parts, or the largest at which all of them can be told apart.
        distinct = max(count for count in range(1, largest + 1) if recipe.can_be_distinct(count))
        counts = {name.split("/")[0]: largest if "repeated" in name else distinct for name in metrics}
        metrics = {**{name: metrics[f"{name}/K{count}"] for name, count in counts.items()}, **metrics}
        for count in sorted({(3 * largest + 1) // 2, 2 * largest, 30}):
            if count > largest:
                metrics |= {f"{name}/K{count}": value for name, value in _r2(recipe, module, device, count).items()}
        metrics["label_r2"] = _label_r2(recipe, module, device, distinct)
        metrics |= _sum_of_parts_gap(recipe, module, device, largest)
        metrics["order_gap"] = _order_gap(recipe, module, device, largest)
        metrics |= _nats(recipe, module, device, largest)
    # The scales that the densities above could go down to; x's may still have been on its way when training stopped.
    return {**metrics, "scale_floor": recipe.scale_floor, "x_floor": module.model.x_floor.item()}


def _chunks(
    recipe: "CompVAERecipe", device: torch.device, num_parts: int, repeated: bool
) -> Iterator[tuple[Any, Any, torch.Generator]]:
    """The evaluation sets in chunks, each with a generator for what else is random about it."""
    source = recipe.source(device)
    for start in range(0, recipe.evaluation_sets, _CHUNK):
        seed = derive_seed(recipe.seed, "evaluate", num_parts, repeated, start)
        torch.manual_seed(seed)
        size = min(_CHUNK, recipe.evaluation_sets - start)
        yield source, recipe.draw(source, size, num_parts, seed, repeated), torch.Generator().manual_seed(seed)


def _r2(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int) -> dict[str, float]:
    found = _r2_of(recipe, module, device, num_parts, repeated=False) if recipe.can_be_distinct(num_parts) else {}
    if recipe.can_repeat and num_parts > 1:
        repeated = _r2_of(recipe, module, device, num_parts, repeated=True)
        found |= {f"{name}_repeated": repeated[name] for name in ("reconstruction_r2", "subset_r2")}
    return found


def _r2_of(
    recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int, repeated: bool
) -> dict[str, float]:
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for source, truth, generator in _chunks(recipe, device, num_parts, repeated):
        latents = infer_latents(module, truth.batch())
        pairs.setdefault("reconstruction_r2", []).append((truth.x, decode(module, latents["w"].sum(-1), latents["z"])))
        if num_parts == 1:
            continue
        keep = random_subsets(len(truth.parts), num_parts, generator).to(device)
        target = source.subset(truth, keep)
        sampled = infer_latents(module, truth.batch(), sample_w=True)["w"]
        for name, w in {"subset_r2": latents["w"], "subset_r2_sampled": sampled}.items():
            pairs.setdefault(name, []).append((target, decode(module, (w * keep.unsqueeze(1)).sum(-1))))
    return {name: pooled_r2(*(torch.cat(side) for side in zip(*sides, strict=True))) for name, sides in pairs.items()}


def _label_r2(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int) -> float:
    """What the labels alone tell the model of x, with w and z at their means under p. A sine's label tells next to nothing."""
    targets, outputs = [], []
    for _, truth, _ in _chunks(recipe, device, num_parts, repeated=False):
        batch = truth.batch()
        targets.append(truth.x)
        outputs.append(decode(module, module.model.w_prior(batch["parts"], batch.get("positions"))[0].sum(-1)))
    return pooled_r2(torch.cat(targets), torch.cat(outputs))


def _sum_of_parts_gap(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int) -> dict[str, float]:
    """Section 4.1's question: is the whole the sum of its parts? R2(x, decode(sum w)) - R2(x, sum of decode(w_i)).

    z is at its mean under p on both sides, so that the difference is in the adding alone.
    """
    wholes, sums, targets = [], [], []
    for _, truth, _ in _chunks(recipe, device, num_parts, repeated=not recipe.can_be_distinct(num_parts)):
        latents = infer_latents(module, truth.batch())
        wholes.append(decode(module, latents["w"].sum(-1)))
        sums.append(sum(decode(module, w) for w in latents["w"].unbind(-1)))
        targets.append(truth.x)
    whole, parts, target = torch.cat(wholes), torch.cat(sums), torch.cat(targets)
    return {"sum_of_parts_gap": pooled_r2(target, whole) - pooled_r2(target, parts)}


def _order_gap(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int) -> float:
    """The largest change of a decoded value when the parts are permuted, each with its noise: rounding."""
    largest = 0.0
    for _, truth, generator in _chunks(recipe, device, num_parts, repeated=True):
        batch = truth.batch()
        epsilon = torch.randn_like(module.guide.label(batch["parts"], batch.get("positions")))
        order = torch.randperm(num_parts, generator=generator).to(device)
        permuted = {key: value if key == "x" else value[:, order] for key, value in batch.items()}
        first, second = (
            infer_latents(module, given, {"epsilon": noise}) for given, noise in [(batch, epsilon), (permuted, epsilon[:, order])]
        )
        outputs = [decode(module, latents["w"].sum(-1), latents["z"]) for latents in (first, second)]
        largest = max(largest, (outputs[0] - outputs[1]).abs().max().item())
    return largest


def _nats(recipe: "CompVAERecipe", module: NegativeELBO, device: torch.device, num_parts: int) -> dict[str, float]:
    """The terms of the negative ELBO, per set."""
    sums: dict[str, float] = {}
    for _, truth, _ in _chunks(recipe, device, num_parts, repeated=not recipe.can_be_distinct(num_parts)):
        for name, term in module.elbo.terms(module.model, module.guide, **truth.batch()).items():
            sums[name] = sums.get(name, 0.0) + term.item()
    nats = {f"nats_{name}": value / recipe.evaluation_sets for name, value in sums.items()}
    return {**nats, "elbo": -sum(nats.values())}


@torch.no_grad()
def infer_latents(
    module: NegativeELBO, batch: Mapping[str, Tensor], fixed: Mapping[str, Tensor] | None = None, sample_w: bool = False
) -> dict[str, Tensor]:
    """z's mean given x, (batch, z_dim), and w's given that z, (batch, w_dim, parts), or a sample of w.

    ``fixed`` gives sites of the guide, such as the node noise epsilon, values of their own.
    """
    guide = pyro.condition(module.guide, data=dict(fixed or {}))
    with AtMean({"z"} if sample_w else {"z", "w"}):
        trace = pyro.poutine.trace(guide).get_trace(**batch)
    return {name: trace.nodes[name]["value"] for name in ("z", "w")}


@torch.no_grad()
def generate(module: NegativeELBO, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w, z and the mean of x drawn from the model for these parts."""
    with AtMean({"x"}):
        trace = pyro.poutine.trace(module.model).get_trace(**batch)
    return {name: trace.nodes[name]["value"] for name in ("w", "z", "x")}


@torch.no_grad()
def decode(module: NegativeELBO, whole: Tensor, z: Tensor | None = None) -> Tensor:
    """The mean of x given a sum of w, (batch, w_dim), and z, by default its mean under p(z | sum w)."""
    if z is None:
        z = module.model.whole_prior(whole).chunk(2, dim=-1)[0]
    return module.model.decoder(whole, z)[0]


def random_subsets(size: int, num_parts: int, generator: torch.Generator) -> Tensor:
    """Booleans, (size, parts): in each row a random subset of 1 to parts - 1, all sizes equally often."""
    count = torch.randint(1, num_parts, (size, 1), generator=generator)
    rank = torch.rand(size, num_parts, generator=generator).argsort(-1).argsort(-1)
    return rank < count
