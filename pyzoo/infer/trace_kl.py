"""An ELBO that says where its nats go, with closed-form KLs where the guide vouches for them."""

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn, cast

import torch
from pyro.distributions import MaskedDistribution, Unit
from pyro.distributions.util import scale_and_mask
from pyro.infer.elbo import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace, replay, trace
from pyro.poutine.runtime import InferDict
from pyro.poutine.util import site_is_subsample
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyzoo.checks import require_count, require_kind, require_switch
from pyzoo.infer.parameter_store import require_separate_parameters, without_parameter_store

__all__ = ["NegativeELBO", "TraceKL_ELBO", "analytic"]


class _Analytic(dict):
    """A dict that cannot be changed, since every marked site of a program names the same one. Its copies are plain dicts."""

    def _refuse(self, *args, **kwargs) -> NoReturn:
        raise TypeError("analytic is shared by all sites that it marks and cannot be changed: write {**analytic, ...}.")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = cast(Any, _refuse)

    def __reduce__(self) -> str:
        return "analytic"  # pickling and copy.deepcopy give this very object


analytic: Final[InferDict] = cast(InferDict, _Analytic(kl="analytic"))
"""The mark of a guide's site whose KL :class:`TraceKL_ELBO` takes in closed form, to be given as ``infer=analytic``.

It equals ``{"kl": "analytic"}``, which type checkers refuse, because Pyro's ``InferDict`` has no such key. Pyro copies it at each
``pyro.sample``, so that nothing that inference writes about a site reaches the mark. With other keys: ``{**analytic, ...}``.

Example:
    >>> analytic
    {'kl': 'analytic'}
    >>> pyro.poutine.trace(lambda: pyro.sample("z", dist.Normal(0.0, 1.0), infer=analytic)).get_trace().nodes["z"]["infer"]
    {'kl': 'analytic'}
"""


class TraceKL_ELBO(ELBO):
    r"""The ELBO, term by term: a KL for each latent, a negative log-likelihood for each observation.

    .. math:: -\mathrm{ELBO} = \sum_{\text{analytic}} \mathrm{KL}(q_s \| p_s)
        + \sum_{\text{other latents}} \log \frac{q_s}{p_s} - \sum_{\text{observed}} \log p_s

    It differs from Pyro's ``Trace_ELBO`` in four ways. Sites that the guide marks by ``infer=analytic`` (:data:`analytic`)
    contribute their KL in closed form. :meth:`terms` returns each site's share. ``kl_weights`` scales the shares of latents, for
    warm-up or beta-VAEs. And nothing in it waits for the device or branches on data, so that a step can be traced and compiled.

    A mark is valid if, given the guide's sites drawn before it, the model's distribution at the site depends neither on the
    site itself nor on any later site of the guide. (``TraceMeanField_ELBO`` takes the closed form wherever one exists, which is
    wrong where the guide's order is not the model's: CompVAE's z.) :func:`pyzoo.testing.check_elbo` tests a mark.

    A latent of the guide that is not reparameterised, a discrete one say, gets its gradient by the score function. Each
    particle's loss is compared with the mean of the others', which takes out most of that estimate's variance, and leaves it
    unbiased; so there must be at least two particles.

    .. math:: \frac{1}{P} \sum_{p=1}^{P} \Bigl[\nabla L_p
        + \Bigl(L_p - \frac{1}{P - 1} \sum_{r \neq p} L_r\Bigr) \nabla \log q(c_p)\Bigr]

    A ``pyro.factor`` is a term like any other: of the model, its negative; of the guide (``has_rsample=True``), itself.
    Scale and mask of an analytic site are those of the guide, and the model's must be the same.

    Enumeration is ignored: a site of the guide that asks for it is drawn like any other, and a warning says so once.

    Args:
        num_particles: samples of the guide to average over.
        kl_weights: site names and the weight of their terms, numbers or 0-dim tensors; 1 where absent.
        max_plate_nesting: as in Pyro; found by running the model where it is needed.
        vectorize_particles: draw the particles in one call, in a plate left of all others.
        site_weights: further weights like ``kl_weights``, of any sites: of one view's likelihood, say. A site whose weight here
            is the number 0 is left out of :meth:`loss_and_terms`, which does not compute its density; :meth:`terms` has it.

    Source of the baseline: Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE Samples, Get a Baseline for Free!".

    Raises:
        ValueError: a weight is not a finite number of at least 0, or is for an unknown site, or a KL weight for one that is not
            a latent; a marked site has another scale or mask in the model; or model and
            guide are PyroModules of one name, so that ``pyro.infer.SVI`` would never train parameters of one of them.
        NotImplementedError: a latent of the guide is not reparameterised and the particles are one or vectorised; a factor of
            the guide is not marked ``has_rsample=True``; or a marked site's distributions have no closed-form KL.

    Example:
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     pyro.sample("z", dist.Normal(x / 2, 0.5**0.5), infer=analytic)
        >>> terms = TraceKL_ELBO().terms(model, guide, torch.tensor(2.0))
        >>> sorted(terms), terms["z"]
        (['x', 'z'], tensor(0.5966))
    """

    def __init__(
        self,
        num_particles: int = 1,
        kl_weights: Mapping[str, float | Tensor] | None = None,
        max_plate_nesting: int | float = float("inf"),
        vectorize_particles: bool = False,
        site_weights: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        require_count(num_particles, "num_particles")
        require_switch(vectorize_particles, "vectorize_particles")
        if max_plate_nesting != float("inf"):
            require_count(max_plate_nesting, "max_plate_nesting", 0)
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting, vectorize_particles=vectorize_particles)
        self.kl_weights: dict[str, float | Tensor] = _checked_weights(kl_weights, "kl_weights")
        self.site_weights: dict[str, float | Tensor] = _checked_weights(site_weights, "site_weights")
        if twice := sorted(self.kl_weights.keys() & self.site_weights.keys()):
            raise ValueError(f"There are two weights for the site '{twice[0]}'.")
        self._warned_of_enumeration = False

    def terms(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Each site's share of the negative ELBO, unweighted and differentiable: site name to a 0-dim tensor, in nats.

        Like Pyro's losses these are summed over the batch and averaged over the particles. Their sum lacks what
        :meth:`loss_and_terms` adds to the gradient where something is not reparameterised.
        """
        return self._mean([terms for terms, _ in self._particles(model, guide, args, kwargs)])

    def loss_and_terms(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, whose gradient is an estimate of its gradient, and the :meth:`terms` that it is made of."""
        particles = list(self._particles(model, guide, args, kwargs, self.left_out))
        losses = torch.stack([self.weighted_sum(terms) for terms, _ in particles])
        loss = losses.sum() / self.num_particles  # vectorised, all particles are in one of these
        if particles[0][1] is not None:
            scores = torch.stack([score for _, score in particles])
            others = (losses.sum() - losses) / (len(losses) - 1)
            surrogate = ((losses - others).detach() * scores).mean()
            loss = loss + surrogate - surrogate.detach()  # adds to the gradient alone
        return loss, self._mean([terms for terms, _ in particles])

    @property
    def left_out(self) -> set[str]:
        """Sites that the loss leaves out: those whose weight is the number 0. A tensor may move."""
        return {name for name, weight in self.site_weights.items() if not isinstance(weight, Tensor) and weight == 0}

    def _particles(
        self, model, guide, args, kwargs, left_out: Collection[str] = ()
    ) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Of each particle its terms, and log q of what it drew without reparameterising, None if nothing."""
        require_separate_parameters(model, guide)
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            self._warn_of_enumeration(guide_trace)
            self._require_latents(guide_trace)
            score = _score(guide_trace)
            if score is not None and (self.num_particles == 1 or self.vectorize_particles):
                name = next(name for name, site in guide_trace.nodes.items() if _wants_score(site))
                raise NotImplementedError(
                    f"Site '{name}' of the guide is not reparameterised: its gradient is estimated by comparing two or more "
                    "particles that are not vectorised. Set num_particles, or use pyro.infer.TraceGraph_ELBO."
                )
            yield _terms(model_trace, guide_trace, self.max_plate_nesting, left_out), score

    def _require_latents(self, guide_trace) -> None:
        for name in self.kl_weights:
            if name not in guide_trace.nodes or guide_trace.nodes[name]["is_observed"]:
                latents = [name for name, site in _scored(guide_trace).items() if not site["is_observed"]]
                raise ValueError(f"There is a KL weight for '{name}', and the guide's latents are {sorted(latents)}.")

    def _warn_of_enumeration(self, guide_trace) -> None:
        if self._warned_of_enumeration:
            return
        sites = guide_trace.nodes.items()
        names = [name for name, site in sites if _is_scored(site) and not site["is_observed"] and site["infer"].get("enumerate")]
        if names:
            self._warned_of_enumeration = True
            listed = ", ".join(f"'{name}'" for name in names)
            warnings.warn(
                f"The guide asks for enumeration of {listed}, which TraceKL_ELBO ignores: it draws the site. "
                "Use pyro.infer.TraceEnum_ELBO to enumerate.",
                stacklevel=2,
            )

    def _mean(self, particles: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: sum(terms[name] for terms in particles) / self.num_particles for name in particles[0]}

    def weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss that these terms make.

        Raises:
            ValueError: a weight other than 0 is for a site that is not among them.
        """
        require_kind(terms, "terms", Mapping)
        weights = {**self.kl_weights, **self.site_weights}
        if unknown := weights.keys() - terms.keys() - self.left_out:
            raise ValueError(f"There is a weight for {sorted(unknown)}, but the sites are {sorted(terms)}.")
        return sum(term * weights[name] if name in weights else term for name, term in terms.items())

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The negative ELBO as a 0-dim tensor whose gradient is an estimate of its gradient."""
        return self.loss_and_terms(model, guide, *args, **kwargs)[0]

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative ELBO as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """What ``pyro.infer.SVI`` calls: the negative ELBO, its gradients added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def _get_trace(self, model, guide, args, kwargs):
        # Not Pyro's get_importance_trace: it computes every density, also those that a closed form replaces, and reads values.
        guide_trace = _traced(guide, args, kwargs)
        model_trace = _traced(replay(model, trace=guide_trace), args, kwargs)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        return model_trace, guide_trace


def _traced(program: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Trace:
    """The trace of a program, whose errors stay as they are: those of Pyro's ``get_trace`` end in the shapes of all sites."""
    with trace(graph_type="flat") as messenger:
        program(*args, **kwargs)
    return messenger.trace


def _checked_weights(weights: Mapping[str, float | Tensor] | None, argument: str) -> dict[str, float | Tensor]:
    """Weights of sites' terms by name.

    Raises:
        ValueError: one is neither a number nor a 0-dim tensor, or negative or not finite.
    """
    require_kind(weights, argument, Mapping, type(None))
    for name, weight in (weights or {}).items():
        _check_weight(name, weight)
    return dict(weights or {})


def _check_weight(name: str, weight: float | Tensor) -> None:
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    is_scalar = isinstance(weight, Tensor) and weight.dim() == 0 and weight.dtype != torch.bool and not weight.is_complex()
    if not (is_number or is_scalar) or not 0 <= weight < math.inf:
        raise ValueError(f"The weight of '{name}' must be a finite number or a 0-dim tensor of one, at least 0, got {weight!r}.")


def _terms(model_trace, guide_trace, max_plate_nesting: float, left_out: Collection[str]) -> dict[str, Tensor]:
    """The sites' shares of one particle, in the order of the model's story, the guide's own sites last."""
    log_prob = partial(_log_prob, max_plate_nesting=max_plate_nesting)
    model_sites, guide_sites = _scored(model_trace), _scored(guide_trace)
    sites = model_sites.keys() | guide_sites.keys()
    if unknown := set(left_out) - sites:
        raise ValueError(f"There is a weight for {sorted(unknown)}, but the sites are {sorted(sites)}.")
    for name in left_out:
        model_sites.pop(name, None)
        guide_sites.pop(name, None)
    terms = {}
    for name, site in model_sites.items():
        q = guide_sites.pop(name, None)
        if site["is_observed"] or q is None:
            terms[name] = -log_prob(site)
            if q is not None:  # a name that both use for an observation, such as a factor of each
                terms[name] = terms[name] + log_prob(q)
        elif q["infer"].get("kl") == "analytic":
            terms[name] = _kl(q, site)
        else:
            terms[name] = log_prob(q) - log_prob(site)
    terms.update((name, log_prob(q)) for name, q in guide_sites.items())
    if not terms:
        raise ValueError("No site of the model or the guide counts: there are none, all are masked out, or their weights are 0.")
    return terms


def _score(guide_trace) -> Tensor | None:
    """log q of all that the guide drew without reparameterising it; None if it drew nothing of the kind."""
    score = None
    for name, site in guide_trace.nodes.items():
        if _is_scored(site) and isinstance(_base(site["fn"]), Unit) and not site["fn"].has_rsample:
            raise NotImplementedError(
                f"The factor '{name}' of the guide does not say that it has a gradient: pyro.factor(..., has_rsample=True)."
            )
        if not _wants_score(site):
            continue
        # A mask or a scale is of the site's own term; what was drawn moves the other terms all the same.
        fn = site["fn"].base_dist if isinstance(site["fn"], MaskedDistribution) else site["fn"]
        log_prob = fn.log_prob(site["value"]).sum()
        score = log_prob if score is None else score + log_prob
    return score


def _wants_score(site: dict[str, Any]) -> bool:
    """Whether a site of the guide draws something without reparameterising it."""
    drawn = site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    return drawn and not site["fn"].has_rsample


def _scored(program: Trace) -> dict[str, dict[str, Any]]:
    """A program's sites that count, by name."""
    return {name: site for name, site in program.nodes.items() if _is_scored(site)}


def _is_scored(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site_is_subsample(site) and not is_masked_out(site)


def is_masked_out(site: Mapping[str, Any]) -> bool:
    """Whether a site's density counts nowhere."""
    return site["mask"] is False or getattr(site["fn"], "_mask", None) is False


def _log_prob(site: dict[str, Any], max_plate_nesting: float) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if is_validation_enabled():
        check_site_shape({**site, "log_prob": log_prob}, max_plate_nesting)
    return scale_and_mask(log_prob, site["scale"], site["mask"]).sum()


def _kl(q: dict[str, Any], p: dict[str, Any]) -> Tensor:
    for what in ("scale", "mask"):
        if _differ(q[what], p[what]):
            raise ValueError(f"Site '{q['name']}' has another {what} in the guide than in the model: no KL has two.")
    try:
        kl = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        kinds = type(_base(q["fn"])).__name__, type(_base(p["fn"])).__name__
        raise NotImplementedError(
            f"The guide marks site '{q['name']}' as analytic, but no closed-form KL is registered from {kinds[0]} to {kinds[1]}."
        ) from None
    if not isinstance(kl, Tensor):  # of a distribution that is masked out as a whole
        return q["value"].new_zeros(())
    return scale_and_mask(kl, q["scale"], q["mask"]).sum()


def _differ(first: Any, second: Any) -> bool:
    """Whether scales or masks differ; tensors are read only while Pyro validates, since that waits for the device."""
    if first is second:
        return False
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return is_validation_enabled() and not torch.equal(first, second)
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return True
    return first != second


def _base(fn):
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


class NegativeELBO(nn.Module):
    """The negative ELBO per example as a training loss: a model, its guide, and a weight for each latent.

    The weights are buffers, so that a schedule can move them, a checkpoint holds them and a compiled step reads them.

    Args:
        model: the generative program.
        guide: the inference program, with the same keyword arguments.
        kl_weights: sites with a weight, and its first value.
        num_particles: samples of the guide to average over.
        site_weights: further sites with a weight, which nothing moves; any site may have one. One of weight 0 is left out.

    Example:
        >>> class Model(pyro.nn.PyroModule):
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
        ...             pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        >>> class Guide(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("guide")
        ...         self.encoder = torch.nn.Linear(1, 1)
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(self.encoder(x), 0.7).to_event(1), infer=analytic)
        >>> loss, terms = NegativeELBO(Model("model"), Guide(), kl_weights={"z": 0.5})(x=torch.ones(4, 1))
        >>> sorted(terms), torch.equal(loss, 0.5 * terms["z"] + terms["x"])
        (['x', 'z'], True)
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl_weights: Mapping[str, float] | None = None,
        num_particles: int = 1,
        site_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        require_kind(model, "model", Callable)
        require_kind(guide, "guide", Callable)
        self.model = model
        self.guide = guide
        self.elbo: TraceKL_ELBO = TraceKL_ELBO(num_particles, kl_weights, site_weights=site_weights)
        self._weighted = tuple(kl_weights or {})
        for name, weight in (kl_weights or {}).items():
            if "." in name:
                raise ValueError(f"The site '{name}' can't have a KL weight that moves: a buffer's name holds no dot.")
            self.register_buffer(f"kl_weight_{name}", torch.tensor(float(weight)))

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, and the unweighted and detached share of each site in it; both in nats per example."""
        self.elbo.kl_weights = {name: self.get_buffer(f"kl_weight_{name}") for name in self._weighted}
        given = [value for value in batch.values() if value is not None]
        for name, value in batch.items():
            require_kind(value, name, Tensor, type(None))
        size = len(given[0]) if given and given[0].dim() else 0
        if not size:
            raise ValueError("A batch needs at least one tensor, the examples along its first dimension, and an example.")
        with without_parameter_store(self):
            loss, terms = self.elbo.loss_and_terms(self.model, self.guide, **batch)
        return loss / size, {name: term.detach() / size for name, term in terms.items()}
