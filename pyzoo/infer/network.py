"""Bayesian networks over named variables: what may depend on what, as data."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from pyzoo.checks import require_kind, require_names_of, require_pair, require_tensor

__all__ = ["BayesianNetwork", "Variables"]


@dataclasses.dataclass(frozen=True)
class Variables:
    """The names that networks are about.

    Args:
        observed: what the data holds, x_1 to x_N.
        shared: latents that several observed variables may share, z_1 to z_M.
        private: latents that belong to one observed variable, and its name: u_i and x_i.

    Raises:
        ValueError: a name is used twice, or a private latent belongs to what is not observed.

    Example:
        >>> Variables(("image", "label"), shared=("z",), private={"style": "image"}).latents
        ('z', 'style')
    """

    observed: tuple[str, ...]
    shared: tuple[str, ...] = ()
    private: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require_names_of(self.observed, "observed")
        require_names_of(self.shared, "shared")
        require_kind(self.private, "private", Mapping)
        require_names_of(self.private, "private")
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Names of variables must differ; used twice: {', '.join(twice)}.")
        for latent, owner in self.private.items():
            if owner not in self.observed:
                raise ValueError(f"The private latent '{latent}' belongs to '{owner}', which is not observed.")

    @property
    def latents(self) -> tuple[str, ...]:
        """Shared ones, then private ones."""
        return (*self.shared, *self.private)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the observed ones first."""
        return (*self.observed, *self.latents)

    def private_of(self, view: str) -> list[str]:
        """The private latents of an observed variable."""
        return [latent for latent, owner in self.private.items() if owner == view]

    def check_views(self, views: Iterable[str]) -> None:
        """Raises a ValueError that names a view which is not among the observed variables."""
        for name in views:
            if name not in self.observed:
                raise ValueError(f"There is no view '{name}': there are {', '.join(self.observed)}.")

    def batch_size(self, views: Mapping[str, Tensor]) -> int:
        """The number of rows of some views.

        Raises:
            ValueError: a name is no view, there is no view, or they have different numbers of rows; names them.
        """
        self.check_views(views)
        if not views:
            raise ValueError(f"A batch needs one of the views {', '.join(self.observed)}.")
        for name, view in views.items():
            require_tensor(view, f"The view '{name}'")
            if not view.dim() or not len(view):
                raise ValueError(f"The view '{name}' must have the batch as its first dimension, got {tuple(view.shape)}.")
        sizes = {name: len(view) for name, view in views.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"Views must have equal numbers of rows, got {', '.join(f'{n} {s}' for n, s in sizes.items())}.")
        return next(iter(sizes.values()))

    def check_mask(self, mask: Tensor | None, rows: int) -> None:
        """Raises a ValueError unless a mask of the views of each row is boolean and (rows, views)."""
        shape = (rows, len(self.observed))
        require_kind(mask, "A mask of the views of each row", Tensor, type(None))
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
            wanted = f"boolean, {rows} rows x {shape[1]} views ({', '.join(self.observed)})"
            raise ValueError(f"A mask of the views of each row must be {wanted}, not {tuple(mask.shape)} of {mask.dtype}.")


class BayesianNetwork:
    """A directed acyclic graph over named variables: each depends on its parents.

    Two networks are equal if their variables and edges are, in whatever order the edges were given.

    Args:
        variables: the names.
        edges: pairs of parent and child.

    Raises:
        ValueError: a name is not among the variables, or there is a cycle; names it.

    Example:
        >>> names = Variables(("x", "y"), shared=("z",))
        >>> network = BayesianNetwork.parse("x, y -> z", names)
        >>> network.parents("z"), str(network)
        (('x', 'y'), 'x, y -> z')
        >>> network.inference_mask()
        tensor([[1.],
                [1.]])
    """

    def __init__(self, variables: Variables, edges: Iterable[tuple[str, str]] = ()) -> None:
        require_kind(variables, "variables", Variables)
        require_kind(edges, "edges", Iterable)
        self.variables = variables
        place = {name: index for index, name in enumerate(variables.names)}
        edges = list(edges)
        for edge in edges:
            require_pair(edge, "each edge", "a pair of parent and child")
            require_names_of(edge, "each edge")
        edges = set(map(tuple, edges))
        for edge in edges:
            for name in edge:
                if name not in place:
                    raise ValueError(f"Unknown variable '{name}': there are {', '.join(variables.names)}.")
        self.edges: tuple[tuple[str, str], ...] = tuple(sorted(edges, key=lambda edge: (place[edge[1]], place[edge[0]])))
        self.order: tuple[str, ...] = self._sorted()

    @classmethod
    def parse(cls, text: str, variables: Variables) -> "BayesianNetwork":
        """From text: "x, y -> z; z -> w", statements apart by semicolons or lines, each with parents and children.

        Raises:
            ValueError: a statement is not of this form; or as for the network itself.
        """
        require_kind(text, "text", str)
        edges = []
        for statement in filter(str.strip, text.replace("\n", ";").split(";")):
            sides = [[name.strip() for name in side.split(",")] for side in statement.split("->")]
            if len(sides) < 2 or not all(name for side in sides for name in side):
                raise ValueError(f"A statement is 'parent, parent -> child, child', not '{statement.strip()}'.")
            for parents, children in itertools.pairwise(sides):
                edges += itertools.product(parents, children)
        return cls(variables, edges)

    def parents(self, name: str) -> tuple[str, ...]:
        """The variables that one depends on, in the variables' order.

        Raises:
            ValueError: there is no such variable.
        """
        if name not in self.variables.names:
            raise ValueError(f"Unknown variable '{name}': there are {', '.join(self.variables.names)}.")
        return tuple(parent for parent, child in self.edges if child == name)

    def _sorted(self) -> tuple[str, ...]:
        """All names, each behind its parents; otherwise in the variables' order."""
        order: list[str] = []
        waiting = list(self.variables.names)
        while waiting:
            ready = next((name for name in waiting if all(parent in order for parent in self.parents(name))), None)
            if ready is None:
                raise ValueError(f"The network has a cycle: {' -> '.join(self._cycle(waiting))}.")
            order.append(ready)
            waiting.remove(ready)
        return tuple(order)

    def _cycle(self, waiting: Collection[str]) -> list[str]:
        """A way round, among variables of which each has a parent among them."""
        path = [next(iter(waiting))]
        while path[-1] not in path[:-1]:
            path.append(next(parent for parent in self.parents(path[-1]) if parent in waiting))
        return path[path.index(path[-1]) :][::-1]

    def with_observed_connected(self, order: Iterable[str] | None = None) -> "BayesianNetwork":
        """This network with each observed variable a parent of all observed ones behind it.

        The data's own dependence is nobody's to choose: an inference network says nothing of it, and allows all of it.

        Args:
            order: of the observed variables; by default the variables'. Other names in it are passed over.
        """
        if order is not None:
            require_names_of(order, "order")
        names = self.variables.observed if order is None else [name for name in order if name in self.variables.observed]
        return BayesianNetwork(self.variables, {*self.edges, *itertools.combinations(names, 2)})

    def separates(self, first: Iterable[str], second: Iterable[str], given: Iterable[str] = ()) -> bool:
        """Whether the network says that two sets of variables are independent given a third (d-separation).

        By the moralised graph of all ancestors: parents of a child are joined, and the third set is cut out.

        Source: Lauritzen, Dawid, Larsen and Leimer (1990), "Independence Properties of Directed Markov Fields", prop. 3.
        """
        for names, name in ((first, "first"), (second, "second"), (given, "given")):
            require_names_of(names, name)
        first, second, given = set(first), set(second), set(given)
        ancestors, open_ones = set(), {*first, *second, *given}
        while open_ones:
            ancestors |= open_ones
            open_ones = {parent for name in open_ones for parent in self.parents(name)} - ancestors
        neighbors: dict[str, set[str]] = {name: set() for name in ancestors}
        for name in ancestors:
            for a, b in itertools.combinations([name, *self.parents(name)], 2):
                neighbors[a].add(b)
                neighbors[b].add(a)
        reached, open_ones = set(), first - given
        while open_ones:
            reached |= open_ones
            open_ones = {other for name in open_ones for other in neighbors[name]} - reached - given
        return not reached & second

    @property
    def layers(self) -> list[list[str]]:
        """The names in rows for a drawing: shared latents, private ones, observed variables; rows without names left out."""
        rows = (self.variables.shared, self.variables.private, self.variables.observed)
        return [list(row) for row in rows if row]

    # Masks ----------------------------------------------------------------------------------------------------------

    def inference_mask(self) -> Tensor:
        """M^q, (observed, shared): entry [i, j] is 1 where x_i -> z_j is an edge."""
        return self._mask(lambda observed, shared: (observed, shared))

    def generative_mask(self) -> Tensor:
        """M^p, (observed, shared): entry [i, j] is 1 where z_j -> x_i is an edge."""
        return self._mask(lambda observed, shared: (shared, observed))

    def _mask(self, edge) -> Tensor:
        names = self.variables
        return torch.tensor([[float(edge(x, z) in self.edges) for z in names.shared] for x in names.observed])

    @classmethod
    def from_inference_mask(cls, variables: Variables, mask: Tensor) -> "BayesianNetwork":
        """G^q of a mask, (observed, shared): x_i -> z_j where its entry is 1, and x_i -> u_i for private latents."""
        require_kind(variables, "variables", Variables)
        edges = cls._masked(variables, mask)
        return cls(variables, edges + [(owner, latent) for latent, owner in variables.private.items()])

    @classmethod
    def from_generative_mask(cls, variables: Variables, mask: Tensor) -> "BayesianNetwork":
        """G^p of a mask, (observed, shared): z_j -> x_i where its entry is 1, and u_i -> x_i for private latents."""
        require_kind(variables, "variables", Variables)
        edges = [(z, x) for x, z in cls._masked(variables, mask)]
        return cls(variables, edges + list(variables.private.items()))

    @staticmethod
    def _masked(variables: Variables, mask: Tensor) -> list[tuple[str, str]]:
        shape = (len(variables.observed), len(variables.shared))
        require_tensor(mask, "mask")
        if tuple(mask.shape) != shape:
            raise ValueError(f"A mask of these variables is {shape[0]} x {shape[1]}, not {' x '.join(map(str, mask.shape))}.")
        pairs = itertools.product(variables.observed, variables.shared)
        entries = dict(zip(pairs, mask.flatten().tolist(), strict=True))
        for (x, z), entry in entries.items():
            if entry not in (0, 1):
                raise ValueError(f"An edge is there or not: the mask's entry for '{x}' and '{z}' must be 0 or 1, got {entry}.")
        return [edge for edge, entry in entries.items() if entry]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BayesianNetwork) and (self.variables, set(self.edges)) == (other.variables, set(other.edges))

    def __hash__(self) -> int:
        return hash((frozenset(self.variables.names), frozenset(self.edges)))

    def __str__(self) -> str:
        """The text that :meth:`parse` reads; empty without edges."""
        children: dict[tuple[str, ...], list[str]] = {}
        for name in self.variables.names:
            if self.parents(name):
                children.setdefault(self.parents(name), []).append(name)
        return "; ".join(f"{', '.join(parents)} -> {', '.join(names)}" for parents, names in children.items())

    def __repr__(self) -> str:
        return f"BayesianNetwork({str(self)!r})"
