"""Table 1 and figure 4 of He et al. (2019): four structures, and ways to divide the latent space; and what closes gates."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pyzoo.about import About
from pyzoo.errors import UsageError
from pyzoo.recipes.graph_vae import ABOUT
from pyzoo.recipes.graph_vae.recipe import FCVAE, GraphVAERecipe, LadderVAE, PlainVAE
from pyzoo.settings import Positive
from pyzoo.training import References, Row, Run, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GraphVAEFigure4", "GraphVAEGates", "GraphVAETable1"]

_STRUCTURES: dict[str, type[GraphVAERecipe]] = {
    "VAE": PlainVAE,
    "Ladder VAE": LadderVAE,
    "FC-VAE": FCVAE,
    "Graph VAE": GraphVAERecipe,
}
_LL, _KL, _ELBO = "test_log_likelihood", "test_kl", "test_elbo"
_NATS = {
    "test_log_likelihood_quick": "LL by 500 samples of up to 1,000 images",
    _LL: "LL, nats",
    _KL: "KL, nats",
    _ELBO: "ELBO, nats",
}
_COUNTS = {"edges_kept": "edges", "parameters": "parameters"}
_PAPER = {  # log-likelihood, KL, ELBO as printed; Δ is less than 0.01
    ("mnist", "VAE"): ("-87.30 ± 0.04", "26.28 ± 0.05", "-95.61 ± 0.07"),
    ("mnist", "Ladder VAE"): ("-84.98 ± 0.10", "24.25 ± 0.12", "-92.80 ± 0.14"),
    ("mnist", "FC-VAE"): ("-82.80 ± 0.15", "22.47 ± 0.09", "-88.49 ± 0.12"),
    ("mnist", "Graph VAE"): ("-82.58 ± 0.08", "22.49 ± 0.10", "-88.35 ± 0.14"),
    ("omniglot-drawers", "VAE"): ("-109.62 ± 0.09", "32.11 ± 0.07", "-115.43 ± 0.12"),
    ("omniglot-drawers", "Ladder VAE"): ("-105.92 ± 0.16", "29.46 ± 0.10", "-110.62 ± 0.17"),
    ("omniglot-drawers", "FC-VAE"): ("-105.01 ± 0.26", "30.74 ± 0.12", "-108.79 ± 0.21"),
    ("omniglot-drawers", "Graph VAE"): ("-104.57 ± 0.19", "29.93 ± 0.10", "-108.17 ± 0.24"),
    ("cifar10", "VAE"): ("-6.37 ± Δ", "0.10 ± Δ", "-6.42 ± Δ"),
    ("cifar10", "Ladder VAE"): ("-6.10 ± 0.02", "0.08 ± Δ", "-6.13 ± 0.02"),
    ("cifar10", "FC-VAE"): ("-5.89 ± 0.04", "0.07 ± Δ", "-5.90 ± 0.04"),
    ("cifar10", "Graph VAE"): ("-5.81 ± 0.04", "0.07 ± Δ", "-5.82 ± 0.04"),
}


def _data_of(preset: str) -> str:
    return GraphVAERecipe.preset(preset).data


@dataclasses.dataclass(frozen=True)
class GraphVAETable1(Table):
    """Table 1 of He et al. (2019): the four structures by their likelihoods, in nats, or for CIFAR-10 in bits per dimension.

    Trains each row with each seed, where that is not done yet: what was begun is continued, and several such commands can share
    the work.
    """

    name: ClassVar[str] = "graph-vae-table1"
    about: ClassVar[About] = ABOUT["graph-vae-table1"]
    columns: ClassVar[Mapping[str, str]] = {
        **_NATS,
        "test_log_likelihood_quick_bpd": "LL by 500 samples of up to 1,000 images, bits",
        f"{_LL}_bpd": "LL, bits",
        f"{_KL}_bpd": "KL, bits",
        f"{_ELBO}_bpd": "ELBO, bits",
        "train_elbo": "ELBO of training images",
        **_COUNTS,
    }

    data: tuple[str, ...] | None = None
    """Sets of images; by default the preset's."""
    data_dir: Path | None = None
    """Folder in which they are looked for first."""
    open_guide: bool = False
    """Add section 4.3's variant, Graph VAE with a fully connected guide (-83.40 nats on MNIST)."""

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The sets of images."""
        return self.data or (_data_of(self.preset),)

    def rows(self) -> Sequence[Row]:
        rows = []
        for data in self.data_sets:
            fields = {"data": data, "data_dir": self.data_dir}
            suffix = "_bpd" if data == "cifar10" else ""
            for label, recipe in _STRUCTURES.items():
                numbers = _PAPER.get((data, label), ())
                paper = {f"{metric}{suffix}": number for metric, number in zip((_LL, _KL, _ELBO), numbers, strict=False)}
                rows.append(Row(f"{label}, {data}", recipe, fields, paper))
            if self.open_guide:
                paper = {_LL: "-83.40"} if data == "mnist" else {}
                rows.append(Row(f"Graph VAE with open guide, {data}", GraphVAERecipe, {**fields, "guide_gates": "full"}, paper))
        return rows

    def figures(self, runs: Mapping[str, Sequence[Run]], references: References) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.graph_vae.figures import likelihood_over_training, monitored

        for data in self.data_sets:
            histories = {}
            for label, folders in runs.items():
                rows = [monitored(run.history) for run in folders]
                if label.endswith(f", {data}") and rows and all(rows):
                    histories[label.removesuffix(f", {data}")] = rows
            if histories:
                title = f"Log-likelihood of held-out images over training, {data} (mean and range of the seeds; 100 samples)"
                yield f"figure5_{data}", likelihood_over_training(histories, title)


@dataclasses.dataclass(frozen=True)
class GraphVAEFigure4(Table):
    """Figure 4 of He et al. (2019): M latent dimensions divided into N nodes, in all ways that are asked for.

    Trains each row with each seed, where that is not done yet.
    """

    name: ClassVar[str] = "graph-vae-figure4"
    about: ClassVar[About] = ABOUT["graph-vae-figure4"]
    columns: ClassVar[Mapping[str, str]] = {**_NATS, **_COUNTS}

    data: str | None = None
    """Set of images; by default the preset's."""
    data_dir: Path | None = None
    """Folder in which they are looked for first."""
    latent_dims: tuple[int, ...] = (40, 80)
    """M."""
    nodes: tuple[int, ...] = (1, 2, 5, 10)
    """N."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for latent_dim in self.latent_dims:
            for nodes in self.nodes:
                if nodes < 1 or latent_dim % nodes:
                    raise UsageError(f"--latent-dims {latent_dim} can't be divided into --nodes {nodes}")

    @property
    def data_set(self) -> str:
        """The set of images."""
        return self.data or _data_of(self.preset)

    def rows(self) -> Sequence[Row]:
        fields = {"data": self.data_set, "data_dir": self.data_dir}
        return [
            Row(f"M = {m}, N = {n}, N' = {m // n}", GraphVAERecipe, {**fields, "latent_dim": m, "nodes": n})
            for m in self.latent_dims
            for n in self.nodes
        ]

    def figures(self, runs: Mapping[str, Sequence[Run]], references: References) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.graph_vae.figures import likelihood_by_division

        found: dict[int, dict[int, list[float]]] = {}
        for row in self.rows():
            values = [run.metrics["test_log_likelihood_quick"] for run in runs.get(row.label, ())]
            if values:
                m, n = row.fields["latent_dim"], row.fields["nodes"]
                found.setdefault(m, {})[m // n] = values
        if found:
            title = f"Test log-likelihood by the dimensions of a node, {self.data_set} (500 samples, up to 1,000 images)"
            yield "figure4_divisions", likelihood_by_division(found, title)


_OF_GATES = ("warmup_steps", "gate_learning_rate", "settle_margin", "temperature_decay")


def _trainings_of_gates() -> dict[str, dict[str, object]]:
    """Other ways to train gates than the preset's."""
    paper = GraphVAERecipe.preset("paper")
    return {
        "no warm-up of the KLs": {"warmup_steps": 0},
        "no warm-up, the paper's settings of the gates": {name: getattr(paper, name) for name in _OF_GATES},
        "gate learning rate 0.001": {"gate_learning_rate": 1e-3},
        "temperature halved each epoch": {"temperature_decay": 0.5},
        "gates start at 0.1": {"initial_gate": 0.1},
        "gates start at 0.9": {"initial_gate": 0.9},
    }


@dataclasses.dataclass(frozen=True)
class GraphVAEGates(Table):
    """What closes the gates of a Graph VAE: other ways to train them, and a cost for each edge. The paper has no such table.

    Trains each row with each seed, where that is not done yet.
    """

    name: ClassVar[str] = "graph-vae-gates"
    about: ClassVar[About] = ABOUT["graph-vae-gates"]
    columns: ClassVar[Mapping[str, str]] = {"edges_kept": "edges", **_NATS}
    note: ClassVar[str] = "The paper's Graph VAE keeps 7 of 10 edges on MNIST; it has no table of what decides that."

    edge_costs: tuple[Positive, ...] = (0.03, 0.1, 0.3)
    """Costs of an edge, in nats of an image."""
    data: str | None = None
    """Set of images; by default the preset's."""
    data_dir: Path | None = None
    """Folder in which they are looked for first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        warmed_up = GraphVAERecipe.preset(self.preset).warmup_steps > 0
        self.require(warmed_up, "preset", "one that warms up the KLs, since rows do without: small, digits or long")

    def rows(self) -> Sequence[Row]:
        shared = {"data": self.data or _data_of(self.preset), "data_dir": self.data_dir}
        costs = {f"an edge costs {cost!r} nats": {"edge_cost": cost} for cost in self.edge_costs}
        cold = {f"no warm-up, {label}": {**fields, "warmup_steps": 0} for label, fields in costs.items()}
        trainings = {"preset": {}, **costs, **cold, **_trainings_of_gates()}
        return [Row(label, GraphVAERecipe, {**shared, **fields}) for label, fields in trainings.items()]

    def figures(self, runs: Mapping[str, Sequence[Run]], references: References) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.graph_vae.figures import edges_over_training

        histories = {label: [run.history for run in folders if run.history] for label, folders in runs.items()}
        if any(histories.values()):
            yield "gates", edges_over_training({label: rows for label, rows in histories.items() if rows})
