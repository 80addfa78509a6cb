r"""The guide of Graph VAE: the gates of the model, and each latent's belief from above fused with evidence from below.

.. math:: q(z \mid x, c) = \prod_{n=N}^{1} q(z_n \mid x, z_{pa(n)}, c_{pa(n), n})

Source: He et al. (2019), eq. 7 and appendix B.3. How we read its gaps:

- Eq. 18's first line gives the variance of the fused normal, not its standard deviation.
- A node without a possible parent has nothing to fuse: its posterior is the bottom-up normal alone.
- Encoders: section 4.1 says ReLU, appendix B.1 ELU: ELU.
- Section 3.1 and figure 2 fuse the model's own prediction from above, appendix B.1 has networks "optimized independently": the
  guide has its own.
- Below eq. 5 the KL is said to need samples. It needs them of the parents alone: given these a node's KL has a closed form, with
  the same mean and less noise.
"""

import math
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pyzoo.checks import require_broadcast, require_kind, require_pair, require_same_type, require_shape
from pyzoo.infer import analytic
from pyzoo.models.graph_vae import (
    Gates,
    GraphVAE,
    GraphVAENetworks,
    NodeNetwork,
    gated_parents,
    mlp,
    require_networks,
    top_down_networks,
)
from pyzoo.nn import ImageCheck, scale_from_log_variance

__all__ = ["GraphVAEGuide", "fuse", "graph_vae_guide"]


def fuse(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the normalized product of two normals, each given by mean and log-variance (eq. 18).

    Example:
        >>> fuse((torch.tensor(0.0), torch.tensor(0.0)), (torch.tensor(2.0), torch.tensor(0.0)))
        (tensor(1.), tensor(-0.6931))
    """
    for name, normal in (("first", first), ("second", second)):
        require_pair(normal, name, "a mean and a log-variance")
    require_broadcast(first=first[0].shape, second=second[0].shape)
    (first_loc, first_log_variance), (second_loc, second_log_variance) = first, second
    difference = second_log_variance - first_log_variance
    loc = second_loc + difference.sigmoid() * (first_loc - second_loc)  # the first one's share of the precision
    return loc, first_log_variance + logsigmoid(difference)


class GraphVAEGuide(PyroModule):
    """The inference story, for any networks.

    Args:
        gates: the model's.
        encoder: network from x to its features, (batch, features).
        bottom_up: for each node, the network from these features to its mean and log-variance; keys "1" to "N".
        top_down: for each node that has possible parents in the guide, the network from their gated values; not the model's.
        own_gates: a structure of the guide's own, to use instead of the model's (section 4.3's fully connected encoder).

    Raises:
        ValueError: networks of nodes are missing or too many.

    Example:
        >>> networks = GraphVAENetworks(nodes=3, latent_dim=6, x_shape=(1, 6, 6), hidden_dim=8, widths=(16,))
        >>> guide = networks.guide(networks.model())
        >>> guide(x=torch.rand(5, 1, 6, 6))
    """

    def __init__(
        self,
        gates: Gates,
        encoder: nn.Module,
        bottom_up: nn.ModuleDict,
        top_down: nn.ModuleDict,
        own_gates: Gates | None = None,
    ) -> None:
        super().__init__("guide")
        require_networks(top_down, gates if own_gates is None else own_gates)
        if set(bottom_up) != {str(node + 1) for node in range(len(gates.possible))}:
            raise ValueError(f"bottom_up must have a network for each node, 1 to {len(gates.possible)}, got {sorted(bottom_up)}.")
        self.gates = gates
        self.encoder = encoder
        self.bottom_up = bottom_up
        self.top_down = top_down
        self.own_gates = own_gates

    def precompute(self, x: Tensor) -> dict[str, Tensor]:
        """What :meth:`forward` computes from the images alone; given it, drawing again from the same images is cheap."""
        return {"features": self.encoder(x)}

    def forward(self, x: Tensor, size: int = 1, features: Tensor | None = None) -> None:
        """Draws the gates, then the nodes from z_N to z_1, given the images x, (batch, ...), and their features if at hand."""
        require_same_type(x, "x", self.encoder)
        gates = self.gates()  # drawn in any case: the model takes its gates from here
        if self.own_gates is not None:
            gates = self.own_gates()
        structure = self.gates if self.own_gates is None else self.own_gates
        features = self.encoder(x) if features is None else features
        require_shape(features, "features", ("batch", "features"), batch=len(x))
        z: dict[int, Tensor] = {}
        with pyro.plate("data", len(x)):
            for node in reversed(range(len(gates))):
                loc, log_variance = self.bottom_up[str(node + 1)](features)
                if parents := structure.parents(node):
                    above = self.top_down[str(node + 1)](gated_parents(z, gates, node, parents))
                    loc, log_variance = fuse((loc, log_variance), above)
                q = dist.Normal(loc, scale_from_log_variance(log_variance)).to_event(1)
                # Given the nodes above it, the model's distribution of a node depends on nothing that is drawn from here on.
                z[node] = pyro.sample(f"z_{node + 1}", q, infer=analytic)


def graph_vae_guide(networks: GraphVAENetworks, model: GraphVAE, encoder_widths: Sequence[int] | None = None) -> GraphVAEGuide:
    """The guide of a model, with the networks of appendix B.1.

    Args:
        networks: their sizes.
        model: whose guide this is; they share the gates.
        encoder_widths: hidden units of the encoder; by default those of ``networks``.
    """
    require_kind(networks, "networks", GraphVAENetworks)
    require_kind(model, "model", GraphVAE)
    widths, hidden_dim, node_dim = encoder_widths or networks.encoder_widths, networks.hidden_dim, networks.node_dim
    x_shape = networks.x_shape
    encoder = nn.Sequential(ImageCheck(x_shape), nn.Flatten(), mlp(math.prod(x_shape), widths, hidden_dim))
    nodes = range(1, networks.nodes + 1)
    bottom_up = nn.ModuleDict({str(node): NodeNetwork(hidden_dim, hidden_dim, node_dim) for node in nodes})
    own_gates = Gates(networks.nodes, "full") if networks.guide_gates == "full" else None
    top_down = top_down_networks(own_gates or model.gates, node_dim, hidden_dim)
    return GraphVAEGuide(model.gates, encoder, bottom_up, top_down, own_gates)
