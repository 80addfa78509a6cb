"""What all recipes of the framework share: networks that follow from a declaration, and one objective with its penalties."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from typing_extensions import Self

from pyzoo.infer import LearnedInformation, Penalized
from pyzoo.models.mib import StructuredNetworks
from pyzoo.recipes.mib import methods
from pyzoo.recipes.mib.objectives import EstimatorLoss, SeveralNetworks
from pyzoo.settings import Positive
from pyzoo.training import Objective, Pair, Recipe, Schedule

__all__ = ["StructuredRecipe"]


@dataclasses.dataclass(frozen=True)
class StructuredRecipe(Recipe):
    """Base of all recipes whose method is a declaration: variables, G^p, G^q, and targets of the guide's distribution."""

    group: ClassVar[str] = "training"
    engine: ClassVar[Literal["eager", "traced"]] = "traced"

    networks: StructuredNetworks = StructuredNetworks()
    """Sizes of the networks."""
    method: methods.Method = methods.Method()
    """The row of the table."""
    learning_rate: Positive = 1e-3
    """Initial learning rate of Adam; it falls along a cosine to zero at the last step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.batch_size >= 2, "batch_size", "at least 2")

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the observed variables."""
        raise NotImplementedError

    @property
    def train_size(self) -> int | None:
        """Number of examples that are trained on; None where they are drawn anew in each step."""
        raise NotImplementedError

    def declare(self) -> methods.Declaration:
        """The method's declaration for the data's views."""
        return self.method.declare(self.views)

    def view_sizes(self) -> dict[str, Any]:
        """Fields of the networks that say how large the views are."""
        raise NotImplementedError

    def sized(self) -> Self:
        declared = self.declare()
        sizes = declared.sizes(self.method.dims(declared.variables))
        return dataclasses.replace(self, networks=dataclasses.replace(self.networks, **sizes, **self.view_sizes()))

    def objectives(self, pair: Pair) -> list[Objective]:
        model, guide = pair
        penalties = self.declare().penalties(model, self.train_size)
        kl_weights = self.method.kl_weights(model.variables, self.steps)
        first = {latent: weight(0) for latent, weight in kl_weights.items()}
        penalized = Penalized(guide, penalties) if penalties else guide
        module = self.method.loss(model, penalized, first, self.site_weights())
        elbo = module.elbo if isinstance(module, SeveralNetworks) else module
        schedules = [Schedule(elbo, f"kl_weight_{latent}", weight) for latent, weight in kl_weights.items()]
        schedules += [Schedule(penalized, f"share_{name}", s) for name, s in self.method.penalty_shares(self.steps).items()]
        objectives = [self.objective(module, [*model.parameters(), *guide.parameters()], schedules=schedules)]
        learned = [e for penalty in penalties for e in penalty.estimators if isinstance(e, LearnedInformation)]
        if learned:
            estimators = EstimatorLoss(guide, learned)
            objectives.append(self.objective(estimators, list(estimators.estimators.parameters()), "mine"))
        return objectives

    def site_weights(self) -> dict[str, float]:
        """Constant weights of sites."""
        return {}

    def objective(
        self, module: nn.Module, moves: Sequence[nn.Parameter], name: str = "", schedules: Sequence[Schedule] = (), **options: Any
    ) -> Objective:
        """An objective with Adam and the recipe's learning rate.

        Args:
            module: what returns the loss.
            moves: the parameters that it moves.
            name: put before its terms' names.
            schedules: of its buffers.
            **options: of Adam.
        """
        return Objective(
            module,
            partial(torch.optim.Adam, lr=self.learning_rate, fused=True, **options),
            moves=moves,
            scheduler=partial(CosineAnnealingLR, T_max=self.steps),
            schedules=schedules,
            name=name,
        )
