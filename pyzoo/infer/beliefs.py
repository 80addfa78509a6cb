"""What a guide infers from a batch, for penalties."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from torch.distributions import Normal

from pyzoo.checks import require_kind, require_names, require_names_of, require_tensor

__all__ = ["Beliefs"]


class Beliefs:
    """What a guide infers from a batch: draws of the latents, and normal posteriors given sets of views.

    Your own guide makes one from what it has computed; a guide that can condition on any set of views overrides
    :meth:`given`.

    Args:
        draws: of each latent by name, (batch, features).
        posteriors: for sets of views, as tuples of names, the normal posterior of each latent given those, over (batch,
            features). The largest set is that of all views; the empty set gives the prior, which is N(0, I) by default.
        views: the observed views by name, for estimators that take their likelihood.

    Example:
        >>> q = dist.Normal(torch.zeros(4, 2), 1.0)
        >>> beliefs = Beliefs({"z": q.sample()}, {("x", "y"): {"z": q}, ("x",): {"z": q}})
        >>> beliefs.given(("x",))["z"].loc.shape, beliefs.given(())["z"].loc.shape
        (torch.Size([4, 2]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        draws: Mapping[str, Tensor],
        posteriors: Mapping[tuple[str, ...], Mapping[str, Normal]] | None = None,
        views: Mapping[str, Tensor] | None = None,
    ) -> None:
        require_kind(draws, "draws", Mapping)
        require_kind(posteriors, "posteriors", Mapping, type(None))
        require_kind(views, "views", Mapping, type(None))
        for names, found in (posteriors or {}).items():
            require_kind(names, "each key of posteriors", tuple, frozenset)
            require_kind(found, f"what posteriors hold for {', '.join(map(str, names)) or 'no views'}", Mapping)
        self._draws = draws
        self._posteriors = {frozenset(names): found for names, found in (posteriors or {}).items()}
        self.views: dict[str, Tensor] = dict(views or {})

    @property
    def draws(self) -> Mapping[str, Tensor]:
        """Of each latent by name, (batch, features), drawn from its posterior given all views."""
        return self._draws

    @property
    def rows(self) -> int:
        """Number of examples.

        Raises:
            ValueError: there are no latents, or their draws differ in number.
        """
        for name, draw in self.draws.items():
            require_tensor(draw, f"the draw of '{name}'")
        sizes = {name: len(draw) if draw.dim() else None for name, draw in self.draws.items()}
        if len(set(sizes.values())) != 1 or None in sizes.values():
            raise ValueError(f"Draws of all latents must have one number of rows, got {sizes or 'no latents'}.")
        return next(iter(sizes.values()))

    def given(self, names: Collection[str] | None) -> Mapping[str, Normal]:
        """The posterior of each latent given a set of views, over (batch, features); None for all views.

        Raises:
            ValueError: the guide has none given these.
        """
        if names is not None:
            require_names_of(names, "names")
        if names is None and not self._posteriors:
            raise ValueError("The guide has no posteriors.")
        wanted = max(self._posteriors, key=len) if names is None else frozenset(names)
        if wanted in self._posteriors:
            return self._posteriors[wanted]
        if not wanted:
            return {name: Normal(torch.zeros_like(draw), torch.ones_like(draw)) for name, draw in self.draws.items()}
        known = "; ".join(", ".join(sorted(found)) for found in self._posteriors)
        raise ValueError(f"The guide has no posterior given {', '.join(sorted(wanted))}: it has those given {known}.")

    def complete(self, names: Collection[str]) -> Tensor | None:
        """The examples that have all of these views, (batch,), boolean; None where none is missing."""
        return None

    def examples(self, view: str, complete: Tensor | None, absent: Callable[[], Tensor]) -> Tensor:
        """The examples of a view; where it was not given, and no row is complete, what is to stand in rows that don't count.

        Args:
            view: its name.
            complete: what :meth:`complete` gives of it.
            absent: makes it, like the examples.

        Raises:
            ValueError: the view was not given, and all rows count.
        """
        if view in self.views:
            return self.views[view]
        if complete is None:
            raise ValueError(f"There is no view '{view}' to estimate an information from, and no row is said to lack it.")
        return absent()

    def joined(self, names: Collection[str]) -> tuple[Normal, Tensor]:
        """The posterior of several latents side by side, and its draw, in alphabetical order."""
        require_names_of(names, "names")
        beliefs, names = self.given(None), sorted(names)
        require_names(names, beliefs, "latent")
        require_names(names, self.draws, "draw")
        if not names:
            raise ValueError("names must hold a latent.")
        for name in names:
            require_kind(beliefs[name], f"the posterior of '{name}'", Normal)
        if len({len(beliefs[name].loc) for name in names} | {len(self.draws[name]) for name in names}) > 1:
            raise ValueError(f"The posteriors and draws of {', '.join(names)} must have one number of rows.")
        q = Normal(*(torch.cat([getattr(beliefs[name], part) for name in names], -1) for part in ("loc", "scale")))
        return q, torch.cat([self.draws[name] for name in names], -1)
