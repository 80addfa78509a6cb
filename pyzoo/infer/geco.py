"""A goal for the reconstruction in place of a weight for the KL: generalized ELBO with constrained optimization."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_names, require_number, require_shape
from pyzoo.infer.trace_kl import NegativeELBO
from pyzoo.settings import Above, AtLeast, AtMost, Below

__all__ = ["GECO"]


class GECO(nn.Module):
    r"""A negative ELBO whose KL weights follow from how far the reconstruction is from its goal.

    .. math:: \mathcal{L} = \mathrm{err} + \beta \sum_i w_i\, \mathrm{KL}_i, \qquad
        \beta \leftarrow \min\Bigl(1, \max\bigl(\mathrm{smallest},
        \beta\, \exp(\mathrm{speed}\, (\mathrm{goal} - \overline{\mathrm{err}}))\bigr)\Bigr)

    err is the term of the observed site, -log p(x | z) in nats per example, and its bar a moving average. While reconstructions
    are worse than the goal, the KL's weight falls; once they are better, it grows, up to 1. It is the module of an objective,
    whose ``after_step`` is :meth:`update`; its numbers are buffers, which a checkpoint holds.

    Source: Rezende and Viola (2018), "Taming VAEs"; with beta at the KL as in Engelcke et al. (2020), "GENESIS". There beta is
    not bounded by 1: here it is, so that the loss ends as the negative ELBO where all w_i are 1.

    Args:
        loss: the negative ELBO; its KL weights w_i are multiplied by beta.
        goal: what err is to come down to, in nats per example.
        site: the observed site.
        speed: of beta, per nat and step.
        decay: of the moving average.
        smallest: the smallest beta.
        start: the first beta.

    Raises:
        ValueError: a number is out of range, or the loss has no KL weights.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.7))
        >>> geco = GECO(NegativeELBO(model, guide, {"z": 1.0}), goal=1.0, speed=0.1)
        >>> loss, terms = geco(x=torch.zeros(4))
        >>> geco.update(loss, {"x": torch.tensor(3.0)})  # two nats too many
        >>> geco.beta
        tensor(0.8187)
    """

    def __init__(
        self,
        loss: NegativeELBO,
        goal: float,
        site: str = "x",
        speed: float = 1e-5,
        decay: float = 0.99,
        smallest: float = 1e-10,
        start: float = 1.0,
    ) -> None:
        super().__init__()
        require_kind(loss, "loss", NegativeELBO)
        require_number(goal, "goal")
        require_kind(site, "site", str)
        require_number(speed, "speed", Above(0))
        require_number(decay, "decay", AtLeast(0), Below(1))
        require_number(smallest, "smallest", Above(0), AtMost(1))
        require_number(start, "start", AtLeast(smallest), AtMost(1))
        weights = {name: value.item() for name, value in loss.named_buffers(recurse=False) if name.startswith("kl_weight_")}
        if not weights:
            raise ValueError("loss must have KL weights for GECO to move.")
        self._weights = weights
        self.loss: NegativeELBO = loss
        self.goal: float = goal
        self.site: str = site
        self.speed: float = speed
        self.decay: float = decay
        self.smallest: float = smallest
        self.register_buffer("beta", torch.tensor(float(start)))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))
        self._set_weights()

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, and each site's unweighted share."""
        return self.loss(**batch)

    @torch.no_grad()
    def update(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Moves beta by a step's terms; where the reconstruction is not finite nothing moves.

        Args:
            loss: not used.
            terms: of the step, detached.
        """
        require_names([self.site], terms, "site")
        error = terms[self.site]
        require_shape(error, f"the term of '{self.site}'", ())
        moves = error.isfinite().to(self.average.dtype)
        error = torch.where(error.isfinite(), error, self.goal)
        self.steps += moves
        weight = moves * torch.where(self.steps <= 1, 1.0, 1 - self.decay)  # the first step's error is the average
        self.average += weight * (error - self.average)
        factor = (moves * self.speed * (self.goal - self.average)).exp()
        self.beta.copy_((self.beta * factor).clamp(self.smallest, 1.0))
        self._set_weights()

    @torch.no_grad()
    def _set_weights(self) -> None:
        for name, weight in self._weights.items():
            self.loss.get_buffer(name).copy_(weight * self.beta)
