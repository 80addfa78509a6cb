"""The figures of a Graph VAE: gates and graph (figure 3), likelihood over training (5), embeddings (6), images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from pyzoo.evaluation import generate, posterior_means, reconstruct
from pyzoo.plotting import figure_grid, image_grid, label_axes, loss_history, show_runs

if TYPE_CHECKING:
    from pyzoo.recipes.graph_vae.report import GraphVAEReport

__all__ = [
    "edges_over_training",
    "figures",
    "graph_picture",
    "latent_means",
    "likelihood_by_division",
    "likelihood_over_training",
    "monitored",
]


def figures(report: "GraphVAEReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    recipe, gates = report.recipe, report.pair.model.gates
    nodes = recipe.networks.nodes
    if gates.learned and nodes > 1 and history:
        yield "figure3a_gates", gates_over_training(history, nodes)
    title = f"Probabilities of the edges, {recipe.name}; dotted: closed"
    yield "figure3b_graph", graph_picture(gates.probabilities().detach(), title)
    if rows := monitored(history):
        title = "Log-likelihood of held-out images over training (up to 500 images, 100 samples)"
        yield "figure5_likelihood", likelihood_over_training({recipe.name: [rows]}, title)
    x, labels = report.measured
    yield "reconstructions", reconstructions(x[:10], reconstruct(*report.pair, {"x": x[:10]}))
    yield "samples", report.picture(generate(report.pair.model, size=40))
    sets = {"images": x[:2000].flatten(1).cpu(), "latents": latent_means(report, x[:2000]).cpu()}
    if all(can_be_embedded(points) for points in sets.values()):
        yield "figure6_embeddings", embeddings(report, sets, None if labels is None else labels[:2000])
    if history:
        nats = {"x": "-log p(x | z)"} | {f"z_{node}": f"KL of z_{node}" for node in range(1, nodes + 1)}
        panels = {"Images": {"x": nats.pop("x")}, "Latents": nats}
        yield "loss", loss_history(history, panels, "The terms of the bound over training")


def gates_over_training(history: Sequence[Mapping[str, float]], num_nodes: int) -> Figure:
    """Figure 3a: each edge's probability."""
    figure, [[axes]] = figure_grid(1, 1, "Probabilities of the edges over training", cell=(6.4, 3.4))
    steps = [row["step"] for row in history]
    for name, color in _edge_colors(num_nodes).items():
        axes.plot(steps, [row[f"gate_{name[0]}_{name[1]}"] for row in history], label=f"{name[0]} to {name[1]}", color=color)
    axes.set_ylim(-0.03, 1.03)
    label_axes(axes, "training step", "probability")
    if num_nodes <= 6:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), title="edge", title_fontsize=8)
    return figure


def edges_over_training(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> Figure:
    """The expected number of edges, for each label the mean of its runs, and a band from their least to their largest.

    Args:
        histories: for each label the rows of metrics.csv of its runs.
    """
    figure, [[axes]] = figure_grid(1, 1, "Expected number of edges over training", cell=(7.0, 3.8))
    palette = matplotlib.colormaps["tab20"]
    for index, (label, runs) in enumerate(histories.items()):
        sums = [[(row["step"], _expected_edges(row)) for row in run] for run in runs]
        show_runs(axes, sums, label, color=palette(index % 20), linewidth=1.4)
    axes.set_ylim(bottom=0)
    label_axes(axes, "training step", "edges")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _expected_edges(row: Mapping[str, float]) -> float:
    return math.fsum(value for name, value in row.items() if name.startswith("gate_"))


def graph_picture(probabilities: Tensor, title: str) -> Figure:
    """Figure 3b: the nodes on a circle, z_N on top, and each edge with its probability; unlikely ones dotted.

    Args:
        probabilities: (nodes, nodes), entry [i, j] that of the edge from node i + 1 to node j + 1.
        title: of the figure.
    """
    num_nodes = len(probabilities)
    figure, [[axes]] = figure_grid(1, 1, title, cell=(5.0, 4.6))
    angles = [math.pi / 2 - 2 * math.pi * index / num_nodes for index in range(num_nodes)]
    places = {num_nodes - index: (math.cos(angle), math.sin(angle)) for index, angle in enumerate(angles)}
    for (parent, child), color in _edge_colors(num_nodes).items():
        probability = probabilities[parent - 1, child - 1].item()
        if probability == 0:
            continue
        line = {
            "color": color,
            "alpha": 0.3 + 0.7 * probability,
            "linewidth": 1.0 + 1.5 * probability,
            "linestyle": "-" if probability > 0.5 else ":",
        }
        arrow = FancyArrowPatch(
            places[parent], places[child], arrowstyle="-|>", mutation_scale=14, shrinkA=17, shrinkB=17, **line
        )
        axes.add_patch(arrow)
        if num_nodes <= 8:  # beyond, the numbers would cover each other
            x, y = (0.7 * a + 0.3 * b for a, b in zip(places[parent], places[child], strict=True))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axes.text(x, y, f"{probability:.2f}", fontsize=7, color=color, ha="center", va="center", bbox=box)
    for node, (x, y) in places.items():
        axes.scatter([x], [y], s=560, color="white", edgecolors="black", zorder=3)
        axes.text(x, y, f"$z_{{{node}}}$", ha="center", va="center", fontsize=11, zorder=4)
    axes.set_xlim(-1.3, 1.3)
    axes.set_ylim(-1.3, 1.3)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _edge_colors(num_nodes: int) -> dict[tuple[int, int], tuple[float, ...]]:
    """A color for each possible edge, (parent, child), the same in both figures 3."""
    edges = [(parent, child) for child in range(1, num_nodes + 1) for parent in range(child + 1, num_nodes + 1)]
    palette = matplotlib.colormaps["tab10" if len(edges) <= 10 else "gist_rainbow"]
    return {edge: palette(index if len(edges) <= 10 else index / len(edges)) for index, edge in enumerate(edges)}


def monitored(history: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The rows of metrics.csv that have a likelihood."""
    return [row for row in history if not math.isnan(row.get("log_likelihood", math.nan))]


def likelihood_over_training(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], title: str) -> Figure:
    """Figure 5: the monitored likelihood, for each label the mean of its runs, and a band from their least to their largest.

    Args:
        histories: for each label its runs, for each run its :func:`monitored` rows.
        title: of the figure.
    """
    figure, [[axes]] = figure_grid(1, 1, title, cell=(6.0, 3.6))
    for label, runs in histories.items():
        likelihoods = [[(row["step"], row["log_likelihood"]) for row in run] for run in runs]
        show_runs(axes, likelihoods, label, linewidth=1.4, marker=".")
    final = torch.tensor([run[-1]["log_likelihood"] for runs in histories.values() for run in runs])
    axes.set_ylim(final.min().item() - 15, final.max().item() + 2)  # the first steps would flatten what differs
    label_axes(axes, "training step", "nats per image")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def likelihood_by_division(found: Mapping[int, Mapping[int, Sequence[float]]], title: str) -> Figure:
    """Figure 4: for each M a line of likelihoods over the dimensions of a node, N'; a point for each seed."""
    figure, [[axes]] = figure_grid(1, 1, title, cell=(6.0, 3.6))
    for latent_dim, by_node_dim in sorted(found.items()):
        places = sorted(by_node_dim)
        means = [sum(by_node_dim[place]) / len(by_node_dim[place]) for place in places]
        [line] = axes.plot(places, means, label=f"M = {latent_dim}", linewidth=1.4)
        for place in places:
            axes.scatter([place] * len(by_node_dim[place]), by_node_dim[place], s=12, color=line.get_color())
    axes.set_xscale("log", base=2)
    ticks = sorted({place for by_node_dim in found.values() for place in by_node_dim})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    label_axes(axes, "dimensions of a node, N'", "nats per image")
    axes.legend(fontsize=8)
    return figure


def reconstructions(x: Tensor, again: Tensor) -> Figure:
    """Images above the means of p(x | z), z drawn from q(z | x)."""
    return image_grid([list(x), list(again)], "Images (above) and their reconstructions", side=0.8)


def can_be_embedded(points: Tensor) -> bool:
    """Whether t-SNE has something to do: of equal points, or of too few, it divides by zero."""
    return points.shape[1] >= 2 and len(points.unique(dim=0)) >= 5


def embeddings(report: "GraphVAEReport", sets: Mapping[str, Tensor], labels: Tensor | None) -> Figure:
    """Figure 6: t-SNE of the images themselves, and of their latents' means, colored by class."""
    from sklearn.manifold import TSNE

    count = len(sets["images"])
    figure, [axes] = figure_grid(1, 2, f"t-SNE of {count} images and of their latents", cell=(4.2, 4.0))
    few = labels is not None and len(labels.unique()) <= 10
    colors = {} if labels is None else {"c": labels.numpy(), "cmap": "tab10" if few else "gist_rainbow"}
    perplexity = min(30.0, (count - 1) / 3)
    for cell, (name, points) in zip(axes, sets.items(), strict=True):
        places = TSNE(random_state=report.recipe.seed % 2**32, perplexity=perplexity).fit_transform(points.numpy())
        dots = cell.scatter(*places.T, s=4, **colors)
        cell.set_title(name, fontsize=9)
        cell.set_xticks([])
        cell.set_yticks([])
    if few:
        axes[-1].legend(*dots.legend_elements(), fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), title="class")
    return figure


def latent_means(report: "GraphVAEReport", x: Tensor) -> Tensor:
    """Means of q(z_n | x, z_pa(n)), each node given its parents' means: (images, M)."""
    nodes = [f"z_{node}" for node in range(1, report.recipe.networks.nodes + 1)]
    return torch.cat(list(posterior_means(report.pair.guide, {"x": x}, nodes).values()), dim=-1)
