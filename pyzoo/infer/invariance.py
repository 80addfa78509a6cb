"""Estimators for a label that should depend on a representation alone, whatever the environment."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from pyzoo.checks import (
    is_validation_enabled,
    require_finite,
    require_floating,
    require_names_of,
    require_number,
    require_shape,
    require_tensor,
)
from pyzoo.infer.beliefs import Beliefs
from pyzoo.infer.estimators import Kind
from pyzoo.infer.masks import both
from pyzoo.infer.network import BayesianNetwork
from pyzoo.infer.projection import Information
from pyzoo.settings import AtLeast

__all__ = ["EnvironmentGain", "GradientPenalty", "Prediction", "environment_gain", "gradient_penalty"]


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
    require_floating(logits, "logits")
    require_finite(logits=logits)
    _require_one_hot(labels=labels, environments=environments)
    labels, environments = labels.to(logits.dtype), environments.to(logits.dtype)
    centered = logits - logits.detach().amax(-1, keepdim=True)  # an offset changes nothing, but for rounding
    slopes = ((logits.softmax(-1) - labels) * centered).sum(-1, keepdim=True)
    first, second = _means_by_environment(slopes, environments, counted)
    return (first * second).mean()


def environment_gain(
    logits: Tensor, z: Tensor, labels: Tensor, environments: Tensor, counted: Tensor | None = None, damping: float = 1e-3
) -> Tensor:
    r"""What classifiers of each environment's own would gain over the common one, in nats per example: by one step of Newton's.

    .. math:: \frac{1}{E} \sum_e \tfrac{1}{2}\, g_{e,1}^\top H^{-1} g_{e,2}, \qquad
        g_e = \operatorname{mean}_{i \in e} (p_i - y_i) \otimes (z_i, 1), \qquad
        H = \operatorname{mean}_i (\operatorname{diag} p_i - p_i p_i^\top) \otimes (z_i, 1) (z_i, 1)^\top

    g_e is the gradient of an environment's cross-entropy by all weights of a linear classifier, and H the curvature. Where y is
    independent of e given z, and the classifier is the best one, all g_e are zero. :func:`gradient_penalty` sees one direction of
    g_e alone, so that a color can hide from it in a direction together with a shape; and it can be made small by small logits.
    But for the damping, this is the same for every affine map of z.

    The two factors are of two halves of the environment's examples, every other one, and the estimate can be negative.

    Args:
        logits: of the common classifier, an affine map of z; (batch, classes), of any offset.
        z: (batch, features).
        labels: one-hot, (batch, classes).
        environments: one-hot, (batch, environments).
        counted: which examples count, (batch,), boolean; all by default.
        damping: added to the diagonal of H, as a share of its mean.

    Returns:
        0-dim. An environment without examples adds nothing.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> z, e = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]).repeat(4, 1), torch.eye(2).repeat_interleave(8, 0)
        >>> y = torch.eye(2).repeat_interleave(2, 0).repeat(4, 1)
        >>> y[8:] = y[8:].flip(1)  # z tells the label in both environments, in opposite ways
        >>> environment_gain(torch.zeros(16, 2), z, y, e).round(decimals=2)
        tensor(0.5000)
    """
    require_shape(logits, "logits", ("batch", "classes"))
    require_shape(z, "z", ("batch", "features"), batch=len(logits))
    require_shape(labels, "labels", ("batch", "classes"), batch=len(logits), classes=logits.shape[1])
    require_shape(environments, "environments", ("batch", "environments"), batch=len(logits))
    require_number(damping, "damping", AtLeast(0))
    require_floating(logits, "logits")
    if z.dtype != logits.dtype:
        raise ValueError(f"z must be {logits.dtype} as logits are, got {z.dtype}.")
    require_finite(logits=logits, z=z)
    _require_one_hot(labels=labels, environments=environments)
    if logits.dtype in (torch.half, torch.bfloat16):  # there is no solver in half precision
        wide = (value.float() for value in (logits, z, labels, environments))
        return environment_gain(*wide, counted, damping).to(logits.dtype)
    p, features = logits.softmax(-1)[:, 1:], torch.nn.functional.pad(z, (0, 1), value=1.0)  # one class's weights are redundant
    gradients = ((p - labels[:, 1:]).unsqueeze(-1) * features.unsqueeze(1)).flatten(1)
    curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(1)
    size = gradients.shape[1]
    hessian = torch.einsum("ijk,il,im->jlkm", curvature, features, features).reshape(size, size) / len(z)
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(size, dtype=z.dtype, device=z.device)
    first, second = _means_by_environment(gradients, environments, counted)
    try:
        moves = torch.linalg.solve(hessian, second.mT).mT
    except torch.linalg.LinAlgError as error:  # all predictions are certain
        raise ValueError(f"The curvature is singular: take a damping of more than {damping:g}.") from error
    return 0.5 * (first * moves).sum(-1).mean()


def _means_by_environment(values: Tensor, environments: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means of (batch, columns) over two halves of each environment's examples, (environments, columns) each."""
    weights = environments.long()
    if counted is not None:
        require_shape(counted, "counted", ("batch",), batch=len(values))
        if counted.dtype != torch.bool:
            raise ValueError(f"counted must be boolean, got {counted.dtype}.")
        weights = weights * counted.unsqueeze(-1)
    # An environment's examples by turns, so that both halves have as many, wherever its examples stand in the batch.
    odd = (weights.cumsum(0) % 2) * weights  # in integers: half precision cannot count beyond 256
    halves = [(half.to(values.dtype), half.sum(0).clamp(min=1).unsqueeze(-1)) for half in (odd, weights - odd)]
    first, second = (half.mT @ values / count for half, count in halves)
    return first, second


def _require_one_hot(**values: Tensor) -> None:
    """Raises a ValueError unless rows hold a single 1 among zeros, or zeros alone, where arguments are checked."""
    for name, value in values.items():
        if is_validation_enabled() and not (((value == 0) | (value == 1)).all() and (value.sum(-1) <= 1).all()):
            raise ValueError(f"{name} must be one-hot.")


class _OfLabel:
    """Base of estimators of I(label; rest | latents), the latents drawn given some views alone.

    Args:
        model: the generative program, with its ``network`` and ``likelihood(view, latents)``.
        given: the views that a prediction has.
    """

    def __init__(self, model: Any, given: Collection[str]) -> None:
        require_names_of(given, "given")
        self.model = model
        self.given: tuple[str, ...] = tuple(given)

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        names = q.variables
        of_label = len(term.left) == 1 and (term.left | term.right) <= set(names.observed)
        return sign > 0 and of_label and term.given == set(self.model.network.parents(*term.left)) <= set(names.latents)

    def predicted(self, term: Information, beliefs: Beliefs) -> tuple[Any, Tensor, Tensor | None, Tensor]:
        """p(label | latents), the labels, the rows that have one, and the latents, (batch, features)."""
        (label,) = term.left
        drawn = {name: q.rsample() for name, q in beliefs.given(self.given).items() if name in term.given}
        p, complete = self.model.likelihood(label, drawn), beliefs.complete((label, *self.given))
        x = beliefs.examples(label, complete, lambda: torch.zeros_like(p.mean))
        return p, x, complete, torch.cat([drawn[name] for name in sorted(drawn)], -1)


class Prediction(_OfLabel):
    """Cross-entropy of a label given the latents: an estimate of I(label; rest | latents), but for a constant of the data.

    It is the mean over the rows that have a label, as its surrogates over environments are: the ratio of their weights does not
    depend on how many have one.

    Where latents are inferred from what is given alone, I(y; x | z) = H(y | z) - H(y | x), and E -log p(y | z), which is at least
    H(y | z), bounds it from above. Where the label takes part in inferring them, in training, it bounds nothing: what it measures
    is how well the latents of a prediction predict.

    Args:
        model: the generative program.
        given: the views that the latents are inferred from, as they will be when the label is predicted.
    """

    kind: Kind = "estimate"

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        p, x, complete, _ = self.predicted(term, beliefs)
        log_prob = p.log_prob(x)
        if complete is None:
            return -log_prob.mean()
        return -torch.where(complete, log_prob, 0.0).sum() / complete.sum().clamp(min=1)


class _OfEnvironments(_OfLabel):
    """Base of surrogates of I(label; environment | latents).

    Args:
        model: the generative program, whose likelihood of the label is of one-hot vectors.
        given: the views that the latents are inferred from, as they will be when the label is predicted.
        environment: the view that says of which environment an example is, one-hot.
    """

    kind: Kind = "surrogate"

    def __init__(self, model: Any, given: Collection[str], environment: str) -> None:
        super().__init__(model, given)
        self.environment = environment

    def environments(self, beliefs: Beliefs, complete: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Of which environment each example is, and which have both it and a label."""
        environments = beliefs.views.get(self.environment)
        require_tensor(environments, f"The view '{self.environment}'")
        return environments, both(complete, beliefs.complete((self.environment,)))


class GradientPenalty(_OfEnvironments):
    """:func:`gradient_penalty`, IRM's: a surrogate of I(label; environment | latents)."""

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        p, labels, complete, _ = self.predicted(term, beliefs)
        return gradient_penalty(p.logits, labels, *self.environments(beliefs, complete))


class EnvironmentGain(_OfEnvironments):
    """:func:`environment_gain`: a surrogate of I(label; environment | latents), in nats, by linear classifiers.

    The model's likelihood of the label has logits that are an affine map of the latents.
    """

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        p, labels, complete, z = self.predicted(term, beliefs)
        return environment_gain(p.logits, z, labels, *self.environments(beliefs, complete))
