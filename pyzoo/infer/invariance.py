"""Estimators for a label that should depend on a representation alone, whatever the environment."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from pyzoo.checks import require_shape, require_tensor
from pyzoo.infer.beliefs import Beliefs
from pyzoo.infer.estimators import Kind
from pyzoo.infer.network import BayesianNetwork
from pyzoo.infer.projection import Information

__all__ = ["GradientPenalty", "Prediction", "gradient_penalty"]


def gradient_penalty(logits: Tensor, labels: Tensor, environments: Tensor, counted: Tensor | None = None) -> Tensor:
    r"""IRM's penalty: how far one scale of the logits is from being the best one in each environment.

    .. math:: \frac{1}{E} \sum_e g_{e,1}\, g_{e,2}, \qquad
        g_e = \frac{\partial}{\partial w} R_e(w f) \Big|_{w=1} = \operatorname{mean}_{i \in e} \sum_k (p_{ik} - y_{ik}) f_{ik}

    R_e is the cross-entropy in an environment, f are the logits and p their softmax. The two factors are of two halves of the
    environment's examples, every other one, so that the product is an unbiased estimate of the squared gradient, and can be
    negative.

    Source: Arjovsky, Bottou, Gulrajani and Lopez-Paz (2019), "Invariant Risk Minimization", eq. IRMv1 and section 3.2 on
    unbiased estimates.

    Args:
        logits: (batch, classes), of any offset.
        labels: one-hot, (batch, classes).
        environments: one-hot, (batch, environments).
        counted: which examples count, (batch,), boolean; all by default.

    Returns:
        0-dim. An environment without examples adds nothing.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0]] * 4)
        >>> labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat_interleave(2, 0)  # right in half of the cases
        >>> gradient_penalty(logits, labels, torch.ones(4, 1)).round(decimals=4)
        tensor(0.5800)
    """
    require_shape(logits, "logits", ("batch", "classes"))
    require_shape(labels, "labels", ("batch", "classes"), batch=len(logits), classes=logits.shape[1])
    require_shape(environments, "environments", ("batch", "environments"), batch=len(logits))
    slopes = ((logits.softmax(-1) - labels) * logits).sum(-1)
    weights = environments.to(slopes.dtype)
    if counted is not None:
        require_shape(counted, "counted", ("batch",), batch=len(logits))
        weights = weights * counted.unsqueeze(-1)
    # An environment's examples by turns, so that both halves have as many, wherever its examples stand in the batch.
    odd = (weights.cumsum(0) % 2) * weights
    halves = [odd, weights - odd]
    first, second = (half.mT @ slopes / half.sum(0).clamp(min=1) for half in halves)
    return (first * second).mean()


class _OfLabel:
    """Base of estimators of I(label; rest | latents), the latents drawn given some views alone.

    Args:
        model: the generative program, with its ``network`` and ``likelihood(view, latents)``.
        given: the views that a prediction has.
    """

    def __init__(self, model: Any, given: Collection[str]) -> None:
        self.model = model
        self.given = tuple(given)

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        names = q.variables
        of_label = len(term.left) == 1 and (term.left | term.right) <= set(names.observed)
        return sign > 0 and of_label and term.given == set(self.model.network.parents(*term.left)) <= set(names.latents)

    def predicted(self, term: Information, beliefs: Beliefs) -> tuple[Any, Tensor, Tensor | None]:
        """p(label | latents), the labels, and the rows that have one."""
        (label,) = term.left
        drawn = {name: q.rsample() for name, q in beliefs.given(self.given).items() if name in term.given}
        p, complete = self.model.likelihood(label, drawn), beliefs.complete((label, *self.given))
        x = beliefs.views[label] if label in beliefs.views else torch.zeros_like(p.mean)
        return p, x, complete


class Prediction(_OfLabel):
    """Cross-entropy of a label given the latents: an upper bound of I(label; rest | latents), but for a constant of the data.

    I(y; x | z) = H(y | z) - H(y | x), and E -log p(y | z) is at least H(y | z).

    Args:
        model: the generative program.
        given: the views that the latents are inferred from, as they will be when the label is predicted.
    """

    kind: Kind = "upper"

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        p, x, complete = self.predicted(term, beliefs)
        log_prob = p.log_prob(x)
        if complete is None:
            return -log_prob.mean()
        return -torch.where(complete, log_prob, 0.0).sum() / len(x)


class GradientPenalty(_OfLabel):
    """:func:`gradient_penalty`: a surrogate of I(label; environment | latents).

    Args:
        model: the generative program, whose likelihood of the label is of one-hot vectors.
        given: the views that the latents are inferred from, as they will be when the label is predicted.
        environment: the view that says of which environment an example is, one-hot.
    """

    kind: Kind = "surrogate"

    def __init__(self, model: Any, given: Collection[str], environment: str) -> None:
        super().__init__(model, given)
        self.environment = environment

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        p, x, complete = self.predicted(term, beliefs)
        environments = beliefs.views.get(self.environment)
        require_tensor(environments, f"The view '{self.environment}'")
        known = beliefs.complete((self.environment,))
        counted = known if complete is None else complete if known is None else complete & known
        return gradient_penalty(p.logits, x, environments, counted)
