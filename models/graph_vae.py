r"""Graph VAE: a VAE that learns which latent depends on which.

.. math:: p(x, z \mid c) = p(x \mid z) \prod_{n=N}^{1} p(z_n \mid z_{pa(n)}, c_{pa(n), n}), \qquad pa(n) = \{n + 1, \ldots, N\}

A gate c_ij, zero or one, decides whether latent j may depend on latent i. With all gates open this is the fully connected VAE,
with a chain of them the Ladder VAE, and without possible dependencies the plain VAE: one model, four structures.

What is maximized, with the guide's q (eq. 8):

.. math:: \tilde{\mathcal{L}} = \mathbb{E}_{p(c)\, q(z \mid x, c)} \Bigl[ \log p(x \mid z) - \sum_n \mathrm{KL}\bigl(q(z_n \mid x,
    z_{pa(n)}, c) \,\|\, p(z_n \mid z_{pa(n)}, c)\bigr) \Bigr]

Source: He, Gong, Marino, Mori and Lehrmann (2019), "Variational Autoencoders with Jointly Optimized Latent Dependency
Structure", section 3 and appendix B. How we read its gaps:

- Gates are drawn from the same p(c) in model and guide and add no term to the ELBO. Eq. 8 and appendix A print q(z | x), where
  eq. 7 has q(z | x, c). With eq. 7's, eqs. 14 and 15 do not follow as they are printed. It is a bound all the same: for each c it
  is one of log p(x | c), whose mean over p(c) is at most log p(x).
- A node without a possible parent (the root; every node without structure) has the prior N(0, I). One whose gates are all closed
  has a normal prior of its own, which is learned.
- Nothing in eq. 8 charges for an edge: its largest value is never lower with one more. ``edge_cost`` charges, and is ours.
- The decoder is printed as fed by one node, and written p(x | z) over all: ``decoder_input`` is "all" or "first". The joint of
  section 3.1 and eqs. 8 and 15 have the gates behind its bar, on which it does not depend.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import (
    num_rows,
    require_count,
    require_input,
    require_kind,
    require_number,
    require_observed,
    require_same_type,
    require_sizes,
)
from pyzoo.nn import Head, Networks, scale_from_log_variance
from pyzoo.settings import Above, AtLeast, Below, Count, NoFlag, Weight, Widths

__all__ = ["BernoulliDecoder", "Gates", "GaussianDecoder", "GraphVAE", "GraphVAENetworks", "NodeNetwork", "Structure", "mlp"]

Structure = Literal["learned", "full", "chain", "none"]


class Gates(nn.Module):
    """Which latents may depend on which, and, where that is learned, with what probability they do.

    Called, it gives the gates as a matrix, (nodes, nodes); entry [i, j] is the gate from node i + 1 to node j + 1. Learned gates
    are drawn as the site c in training mode, and in evaluation mode they are the most likely graph.

    Args:
        num_nodes: N.
        structure: "learned"; or fixed: "full", every i > j; "chain", every j + 1 to j; "none"; or a matrix of zeros and ones,
            (nodes, nodes), whose entry [i, j] opens the gate from node i + 1 to node j + 1.
        estimator: "relaxed", the Gumbel-softmax of eq. 9, for any ELBO whose particles are not vectorised; or "hard", Bernoulli
            gates for one that has the score function: ``TraceGraph_ELBO``, or ``TraceKL_ELBO`` with two or more particles.
        initial: probability of a learned edge at the start.
        temperature: tau of eq. 9, at the start; a buffer, so that a schedule can move it.

    Raises:
        ValueError: an argument is none of these; or the matrix has another size, a cycle, or an edge against the order of the
            nodes.

    Example:
        >>> Gates(3, "chain")()
        tensor([[0., 0., 0.],
                [1., 0., 0.],
                [0., 1., 0.]])
    """

    def __init__(
        self,
        num_nodes: int,
        structure: Structure | Tensor | Sequence[Sequence[int]] = "learned",
        estimator: Literal["relaxed", "hard"] = "relaxed",
        initial: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        require_count(num_nodes, "num_nodes")
        if estimator not in ("relaxed", "hard"):
            raise ValueError(f"estimator is 'relaxed' or 'hard', not '{estimator}'.")
        if not 0 < initial < 1:
            raise ValueError(f"initial must be between 0 and 1, got {initial}.")
        require_number(temperature, "temperature", Above(0))
        self.learned: bool = isinstance(structure, str) and structure == "learned"
        self.estimator = estimator
        with torch.device("cpu"):  # its values are read, also where parameters are only counted, on the device "meta"
            possible = _possible_edges(num_nodes, structure)
        # As lists too: to read them from the matrix at each step would wait for the device, and can't be traced.
        self._parents = [possible[:, node].nonzero().flatten().tolist() for node in range(num_nodes)]
        self.register_buffer("possible", possible)
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        if self.learned:
            edges = num_nodes * (num_nodes - 1) // 2
            self.logits: nn.Parameter = nn.Parameter(torch.full((edges,), initial).logit())
            self.register_buffer("settled", torch.zeros(edges, dtype=torch.bool))
            self.register_buffer("settled_logits", torch.zeros(edges))

    def parents(self, node: int) -> list[int]:
        """The possible parents of a node; nodes count from 0 here."""
        if node not in range(len(self._parents)):
            raise ValueError(f"There are nodes 0 to {len(self._parents) - 1}, and no node {node}.")
        return self._parents[node]

    def probabilities(self) -> Tensor:
        """The probability of each edge, (nodes, nodes)."""
        return self._matrix(self.logits.sigmoid()) if self.learned else self.possible

    def most_likely(self) -> Tensor:
        """The most likely graph, (nodes, nodes), of zeros and ones."""
        return (self.probabilities() > 0.5).to(self.possible.dtype)

    @torch.no_grad()
    def settle(self, margin: float) -> None:
        """Freezes the gates whose probability is within ``margin`` of zero or one, at that end; to be called each step."""
        require_number(margin, "margin", AtLeast(0))
        if not self.learned:
            return
        probabilities = self.logits.sigmoid()
        near = torch.minimum(probabilities, 1 - probabilities) < margin
        self.settled_logits.copy_(torch.where(near & ~self.settled, self.logits, self.settled_logits))
        self.settled |= near
        # An optimizer with momentum goes on without a gradient.
        self.logits.copy_(torch.where(self.settled, self.settled_logits, self.logits))

    def forward(self) -> Tensor:
        if not self.learned:
            return self.possible
        if not self.training:
            return self.most_likely()
        logits = torch.where(self.settled, self.logits.detach(), self.logits)
        if self.estimator == "hard":
            drawn = pyro.sample("c", dist.Bernoulli(logits=logits).to_event(1))
        else:
            # Model and guide share p(c), so its density cancels; near 0 and 1 it could not be computed anyway.
            drawn = pyro.sample("c", dist.RelaxedBernoulli(self.temperature, logits=logits).to_event(1).mask(False))
        return self._matrix(torch.where(self.settled, (logits > 0).to(drawn.dtype), drawn))

    def _matrix(self, edges: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(*self.possible.shape, offset=-1, device=edges.device)
        return torch.zeros_like(self.possible).index_put((rows, columns), edges)


def _possible_edges(num_nodes: int, structure: Structure | Tensor | Sequence[Sequence[int]]) -> Tensor:
    """The edges that a structure allows, as a matrix like that of :class:`Gates`."""
    if isinstance(structure, str):
        reach = {"learned": num_nodes, "full": num_nodes, "chain": 1, "none": 0}.get(
            structure
        )  # how many nodes above may be parents
        if reach is None:
            raise ValueError(f"structure is 'learned', 'full', 'chain', 'none' or a matrix, not '{structure}'.")
        square = torch.ones(num_nodes, num_nodes)
        return square.tril(-1) - square.tril(-1 - reach)
    try:
        edges = torch.as_tensor(structure, dtype=torch.get_default_dtype())
    except (TypeError, ValueError) as error:
        raise ValueError(f"structure is 'learned', 'full', 'chain', 'none' or a matrix, not {structure!r}.") from error
    if edges.shape != (num_nodes, num_nodes):
        raise ValueError(f"A structure of {num_nodes} nodes is a {num_nodes} x {num_nodes} matrix, not {tuple(edges.shape)}.")
    if ((edges != 0) & (edges != 1)).any():
        raise ValueError("A structure's matrix holds zeros and ones.")
    if against := (edges - edges.tril(-1)).nonzero().add(1).tolist():
        paths = edges
        for _ in range(num_nodes.bit_length()):  # paths of twice as many edges; one that comes back makes a cycle
            paths = (paths + paths @ paths).clamp(max=1)
        if paths.diagonal().any():
            raise ValueError("The structure has a cycle.")
        raise ValueError(
            f"The edge from node {against[0][0]} to node {against[0][1]} is against the order: number parents higher."
        )
    return edges


def gated_parents(z: Mapping[int, Tensor], gates: Tensor, node: int, parents: Sequence[int]) -> Tensor:
    """[z_pa(n) * c_pa(n),n], the parents' values side by side, each times its gate: (batch, parents * node_dim)."""
    return torch.cat([z[parent] * gates[parent, node] for parent in parents], dim=-1)


class GraphVAE(PyroModule):
    """The generative story, for any networks.

    Args:
        gates: the structure; the guide is given the same object.
        node_dim: N', dimensions of a node.
        top_down: for each node that has possible parents, the network from their gated values, side by side, to the node's
            mean and log-variance; keys "1" to "N".
        decoder: network from its input nodes side by side, z_1 first, to a distribution over one x for each row.
        decoder_input: which nodes are its input, "all" or "first", which is z_1.
        edge_cost: what each learned edge costs in training, in nats of an image, times its probability.

    Raises:
        ValueError: a network of ``top_down`` is missing or too many, ``node_dim`` is below 1, ``decoder_input`` is neither, or
            ``edge_cost`` is negative.

    Example:
        >>> networks = GraphVAENetworks(
        ...     nodes=3, latent_dim=6, structure="chain", x_shape=(1, 6, 6), hidden_dim=8, widths=(16,)
        ... )
        >>> model = networks.model()
        >>> model(size=5).shape
        torch.Size([5, 1, 6, 6])
    """

    def __init__(
        self,
        gates: Gates,
        node_dim: int,
        top_down: nn.ModuleDict,
        decoder: nn.Module,
        decoder_input: Literal["all", "first"] = "all",
        edge_cost: float = 0.0,
    ) -> None:
        super().__init__("model")
        require_count(node_dim, "node_dim")
        require_number(edge_cost, "edge_cost", AtLeast(0))
        if decoder_input not in ("all", "first"):
            raise ValueError(f"decoder_input is 'all' or 'first', not '{decoder_input}'.")
        require_networks(top_down, gates)
        self.gates = gates
        self.node_dim = node_dim
        self.top_down = top_down
        self.decoder = decoder
        self.decoder_input = decoder_input
        self.edge_cost = edge_cost

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Draws the gates, the nodes from z_N to z_1, then x; returns x.

        Args:
            x: the observed images, (batch, ...), or None to draw them.
            size: how many to draw if x is None; in training mode batch norm needs two or more.

        Raises:
            ValueError: the images are not those of the decoder, or there is none.
        """
        gates = self.gates()
        num_nodes = len(gates)
        size = num_rows(x, size)
        with pyro.plate("data", size) as rows:
            if self.edge_cost and self.gates.learned and self.gates.training:
                cost = self.edge_cost * self.gates.probabilities().sum()
                pyro.factor("penalty/edges", -cost.expand(len(rows)))
            z: dict[int, Tensor] = {}
            for node in reversed(range(num_nodes)):
                loc, scale = self.prior(z, gates, node, len(rows))
                z[node] = pyro.sample(f"z_{node + 1}", dist.Normal(loc, scale).to_event(1))  # p(z_n | z_pa(n), c_pa(n),n)
            inputs = range(num_nodes if self.decoder_input == "all" else 1)
            likelihood = self.decoder(torch.cat([z[node] for node in inputs], dim=-1))
            if x is not None:
                require_observed(x, "x", size, likelihood.event_shape)
            return pyro.sample("x", likelihood, obs=x)  # p(x | z)

    def prior(self, z: Mapping[int, Tensor], gates: Tensor, node: int, size: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a node given its parents' values, each (batch, node_dim)."""
        parents = self.gates.parents(node)
        if not parents:
            zeros = gates.new_zeros(size, self.node_dim)
            return zeros, zeros + 1
        loc, log_variance = self.top_down[str(node + 1)](gated_parents(z, gates, node, parents))
        return loc, scale_from_log_variance(log_variance)


def require_networks(top_down: nn.ModuleDict, gates: Gates) -> None:
    """Raises a ValueError unless there is a network for each node that has possible parents, and for no other."""
    wanted = {str(node + 1) for node in range(len(gates.possible)) if gates.parents(node)}
    if set(top_down) != wanted:
        raise ValueError(f"top_down must have networks for the nodes {sorted(wanted)}, got {sorted(top_down)}.")


def top_down_networks(gates: Gates, node_dim: int, hidden_dim: int) -> nn.ModuleDict:
    """A network for each node that has possible parents; model and guide have their own."""
    fans = {node: len(gates.parents(node)) for node in range(len(gates.possible))}
    return nn.ModuleDict(
        {str(node + 1): NodeNetwork(fan * node_dim, hidden_dim, node_dim) for node, fan in fans.items() if fan > 0}
    )


class NodeNetwork(nn.Module):
    """A node's mean and log-variance, from its parents or from features of x (appendix B.1).

    Shape: (batch, in_features) to two tensors, each (batch, node_dim).
    """

    def __init__(self, in_features: int, hidden_dim: int, node_dim: int) -> None:
        super().__init__()
        self.hidden = mlp(in_features, (hidden_dim,), node_dim, "the input of a node's network")
        self.loc = Head(nn.Linear(node_dim, node_dim))
        self.log_variance = Head(nn.Linear(node_dim, node_dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.loc(hidden), self.log_variance(hidden)


class BernoulliDecoder(nn.Module):
    """p(x | z) for binarized images (appendix B.1)."""

    def __init__(self, in_features: int, x_shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        require_sizes(x_shape, "x_shape")
        require_count(len(x_shape), "the number of sizes of x_shape")
        self.x_shape = torch.Size(x_shape)
        self.network = mlp(in_features, widths, self.x_shape.numel(), "z")
        self.network[-1] = Head(self.network[-1])

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        logits = self.network(z).unflatten(-1, self.x_shape)
        return dist.Bernoulli(logits=logits).to_event(len(self.x_shape))


class GaussianDecoder(nn.Module):
    """p(x | z) for images with values in [0, 1]: the mean a sigmoid, the log-variance a linear layer of what enters the
    sigmoid (appendix B.1, which does not say of what)."""

    def __init__(self, in_features: int, x_shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        require_sizes(x_shape, "x_shape")
        require_count(len(x_shape), "the number of sizes of x_shape")
        self.x_shape = torch.Size(x_shape)
        pixels = self.x_shape.numel()
        self.network = mlp(in_features, widths, pixels, "z")
        self.network[-1] = Head(self.network[-1])
        self.log_variance = Head(nn.Linear(pixels, pixels))

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        hidden = self.network(z)
        scale = scale_from_log_variance(self.log_variance(hidden))
        normal = dist.Normal(hidden.sigmoid().unflatten(-1, self.x_shape), scale.unflatten(-1, self.x_shape))
        return normal.to_event(len(self.x_shape))


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the examples, (..., batch, features); each particle of a vectorized ELBO is a batch of its own.

    Raises:
        ValueError: there is one example in training mode, which has no variance.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2:
            raise ValueError(f"Batch norm needs (..., batch, features), got {tuple(x.shape)}.")
        if self.training and x.shape[-2] < 2:
            raise ValueError("Batch norm needs two or more examples in training mode; .eval() is for fewer.")
        if x.dim() == 2:
            return super().forward(x)
        batches = x.reshape(-1, *x.shape[-2:])
        return torch.stack([super(BatchNorm, self).forward(batch) for batch in batches]).view_as(x)


class _FirstLinear(nn.Linear):
    """A linear layer whose input comes from outside, and has a name for errors."""

    input_name = "input"

    def forward(self, input: Tensor) -> Tensor:
        require_input(input, self.input_name, self)
        require_same_type(input, self.input_name, self)
        return super().forward(input)


def mlp(in_features: int, widths: Sequence[int], out_features: int, name: str = "input") -> nn.Sequential:
    """Linear, batch norm and ELU for each hidden width, and a last linear layer; errors call its input by ``name``."""
    require_sizes(widths, "widths")
    require_count(in_features, "in_features")
    require_count(out_features, "out_features")
    layers: list[nn.Module] = []
    linear: type[nn.Linear] = _FirstLinear
    for width in widths:
        layers += [linear(in_features, width), BatchNorm(width), nn.ELU()]
        in_features, linear = width, nn.Linear
    network = nn.Sequential(*layers, linear(in_features, out_features))
    network[0].input_name = name
    return network


# Sizes --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GraphVAENetworks(Networks):
    """The networks of appendix B.1.

    Example:
        >>> networks = GraphVAENetworks(nodes=2, latent_dim=4, x_shape=(1, 6, 6), widths=(16,), hidden_dim=8)
        >>> model = networks.model()
        >>> guide = networks.guide(model)
        >>> model(size=5).shape
        torch.Size([5, 1, 6, 6])
    """

    nodes: Count = 5
    """Number of nodes, N."""
    latent_dim: Count = 80
    """Dimensions of all nodes together, M; a multiple of the number of nodes."""
    decoder_input: Literal["all", "first"] = "all"
    """Nodes that enter the decoder: all of them, or z_1 alone; the paper writes both."""
    guide_gates: Literal["shared", "full"] = "shared"
    """Gates of the guide: the model's, or all open (section 4.3's fully connected encoder)."""
    widths: Widths = (512, 512, 256)
    """Hidden units of the encoder, and in reverse of the decoder. The plain VAE's encoder is widened in proportion, until it has
    FC-VAE's number of parameters. Ladder VAE's is not, though the paper gives all baselines as many parameters or more."""
    hidden_dim: Count = 128
    """Features of x, and hidden units of the networks of the nodes."""
    gate_estimator: Literal["relaxed", "hard"] = "relaxed"
    """Gradient estimator of the gates: Gumbel-softmax, or the score function with the other particles as its baseline."""
    initial_gate: Annotated[float, Above(0), Below(1)] = 0.5
    """Initial probability of an edge."""
    edge_cost: Weight = 0.0
    """What each edge costs in training, in nats of an image, times its probability; the paper has no cost. A gate that
    --settle-margin has frozen no longer changes."""
    structure: Annotated[Structure, NoFlag()] = "learned"
    """Which gates are open; see :class:`Gates`."""
    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (1, 28, 28)
    """Channels, height and width of an image; any size will do."""
    likelihood: Annotated[Literal["bernoulli", "gaussian"], NoFlag()] = "bernoulli"
    """"bernoulli" for binarized images, "gaussian" for pixels in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.latent_dim % self.nodes == 0, "latent_dim", f"a multiple of --nodes {self.nodes}")
        relaxed = self.structure == "learned" or self.gate_estimator == "relaxed"
        self.require(relaxed, "gate_estimator", "relaxed where no gate is learned")
        self.require(self.structure == "learned" or not self.edge_cost, "edge_cost", "0 where no gate is learned")

    @property
    def node_dim(self) -> int:
        """Dimensions of a node, N'."""
        return self.latent_dim // self.nodes

    def model(self, gates: Gates | None = None) -> GraphVAE:
        """The generative program.

        Args:
            gates: your own structure, with as many nodes; by default that of ``structure``.
        """
        if gates is None:
            gates = Gates(self.nodes, self.structure, self.gate_estimator, self.initial_gate)
        require_kind(gates, "gates", Gates)
        if len(gates.possible) != self.nodes:
            raise ValueError(f"gates must be of {self.nodes} nodes, got {len(gates.possible)}.")
        decoders = {"bernoulli": BernoulliDecoder, "gaussian": GaussianDecoder}
        in_features = self.latent_dim if self.decoder_input == "all" else self.node_dim
        decoder = decoders[self.likelihood](in_features, self.x_shape, self.widths[::-1])
        top_down = top_down_networks(gates, self.node_dim, self.hidden_dim)
        return GraphVAE(gates, self.node_dim, top_down, decoder, self.decoder_input, self.edge_cost)

    def guide(self, model: GraphVAE) -> PyroModule:
        from pyzoo.guides.graph_vae import graph_vae_guide

        return graph_vae_guide(self, model)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Hidden units of the encoder; without structure the narrowest of these proportions with as many parameters as FC-VAE."""
        if self.structure != "none":
            return self.widths

        def count(networks: GraphVAENetworks, encoder_widths: Sequence[int]) -> int:
            from pyzoo.guides.graph_vae import graph_vae_guide

            with torch.device("meta"):
                model = networks.model()
                programs = model, graph_vae_guide(networks, model, encoder_widths)
            return sum(parameter.numel() for program in programs for parameter in program.parameters())

        def scaled(first: int) -> tuple[int, ...]:
            return tuple(round(width * first / self.widths[0]) for width in self.widths)

        wanted = count(dataclasses.replace(self, structure="full"), self.widths)
        low, high = self.widths[0], self.widths[0] + 1
        while count(self, scaled(high)) < wanted:
            high *= 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if count(self, scaled(middle)) >= wanted else (middle + 1, high)
        return scaled(low)
