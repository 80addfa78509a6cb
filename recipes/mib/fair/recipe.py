"""Training of fair representations of a table's rows: Adult, German credit, a synthetic table, or a user's own.

Source: Zhang et al. (2020), section 5 and eq. 17. Its networks are lost with figure 4, and the sizes, weights and the treatment
of the data with its appendix: these are ours.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from typing_extensions import Self

from pyzoo.about import About
from pyzoo.data.tables import TABLES, Split, Table, TableSource, load_table
from pyzoo.files import absolute
from pyzoo.infer import Variables
from pyzoo.models.mib import TableNetworks
from pyzoo.recipes.images import InData
from pyzoo.recipes.mib.fair import ABOUT
from pyzoo.recipes.mib.fair.report import FairReport
from pyzoo.recipes.mib.methods import ESTIMATORS, Declaration, Method, Target, independent
from pyzoo.recipes.mib.structured import StructuredRecipe
from pyzoo.settings import Above, AtLeast, AtMost, Below, Count, Positive, Share, Weight, changed
from pyzoo.training import Objective, Pair, Source
from pyzoo.training.schedules import geometric

__all__ = ["Fair", "FairRecipe"]


@dataclasses.dataclass(frozen=True)
class Fair(Method):
    r"""The row of section 5 (eq. 17): u_x says what features are like, apart from what they share with the sensitive attribute.

    .. math:: -\mathbb{E}_q \log p(x, a \mid z, u) + \beta_2 I_q(z; u)
        + (1 + \beta_1)\, \mathbb{E}\, \mathrm{KL}(q(z \mid x, a) \,\|\, p(z))

    z explains what the features x and the attribute a have in common, and u_x the rest of x. G^invariant says that u_x and z are
    independent; as far as a follows from z, u_x then tells nothing of a. G^informative says that z tells nothing of x and a: what
    z need not hold is left to u_x. The rate of z bounds its distance, and eq. 17 weighs that rate with 1 + beta_1. (The paper's
    prose has z keep what x holds, and the figure is lost; we train the equation. By default beta_1 is 0, also in our table 3.)
    Besides eq. 17 there is the rate of u_x, and the attribute's likelihood has a weight of its own, ``attribute_weight``.
    """

    z_dim: Count = 1
    """Dimensions of the latent that features and sensitive attribute share."""
    u_dim: Count = 16
    """Dimensions of the representation."""
    independence: Literal["none", "total_correlation", "mine", "mmd"] = "mine"
    """How the dependence of z and the representation on each other is estimated, in order to penalize it."""
    independence_weight: Weight = 20.0
    """Weight of that penalty at the end of training; beta_2 of eq. 17."""
    first_share: Annotated[float, Above(0), AtMost(1)] = 0.15
    """Share of that weight that training begins with. After 30 % of the steps it rises by equal factors, so that one run passes
    representations from accurate to fair; with 1 the weight stays the same."""
    informative_weight: Weight = 0.0
    """Weight of the target that z tell nothing of features and attribute; beta_1 of eq. 17."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        x, a = views
        targets = [Target("informative", f"{x} -> u_x", self.informative_weight)] if self.informative_weight else []
        if self.independence != "none":
            targets.append(
                independent(["z", "u_x"], views, self.independence_weight, ESTIMATORS[self.independence], name="invariant")
            )
        return Declaration(
            Variables(views, shared=("z",), private={"u_x": x}),
            generative=f"z -> {x}, {a}; u_x -> {x}",
            inference=f"{x}, {a} -> z; {x} -> u_x",
            targets=tuple(targets),
        )

    def dims(self, variables: Variables) -> dict[str, int]:
        return {"z": self.z_dim, "u_x": self.u_dim}

    def penalty_shares(self, steps: int) -> dict[str, Callable[[int], float]]:
        if self.independence == "none" or self.first_share == 1:
            return {}
        first = self.rises_from(steps)
        return {"invariant": geometric(self.first_share, 1.0, steps - first, start=first)}

    @staticmethod
    def rises_from(steps: int) -> int:
        """The step from which on the penalty's weight rises, and representations are compared."""
        return round(0.3 * steps)


_ADULT = {"data": "adult", "steps": 1000, "batch_size": 512, "held_out": 0.4}
_GERMAN = {
    "data": "german",
    "steps": 600,
    "batch_size": 128,
    "u_dim": 48,
    "hidden_dim": 128,
    "feature_scale": 0.1,
    "attribute_weight": 1000.0,
}
_SYNTHETIC = {"data": "synthetic", "steps": 600, "batch_size": 256, "bias": 2.0}


@dataclasses.dataclass(frozen=True)
class FairRecipe(StructuredRecipe):
    """Fair representations of a table's rows: a code that a linear classifier reads, and that does not tell the sensitive
    attribute.

    No gradient sees the target. The penalty's weight rises in training, and of the representations on the way --keep-best keeps
    the one from which the target is predicted best on held-out rows, among those that are fair there. Afterwards a logistic
    regression is fitted to the codes of all rows but the test rows, and measured on these.
    """

    name: ClassVar[str] = "mib-fair"
    about: ClassVar[About] = ABOUT["mib-fair"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adult": _ADULT, "german": _GERMAN, "synthetic": _SYNTHETIC}
    common: ClassVar[tuple[str, ...]] = (
        "data",
        "target",
        "sensitive",
        *StructuredRecipe.common,
        "independence",
        "independence_weight",
        "allowed_deo",
    )
    incidental: ClassVar[frozenset[str]] = StructuredRecipe.incidental | {"data_dir"}

    data: Annotated[str, InData] = "adult"
    """The table: adult, german, synthetic, or your own, a CSV file whose first line names the columns."""
    target: Annotated[str, InData] = ""
    """The column to predict, which has two values; by default that of adult and german. The favorable value is the larger number,
    or the later one in alphabetical order."""
    sensitive: Annotated[str, InData] = ""
    """The column of the sensitive attribute, which has two values; by default sex for adult and german."""
    data_dir: Annotated[Path | None, InData] = None
    """Folder in which adult and german are looked for first; then in $PYZOO_DATA; else they are downloaded from OpenML."""
    bias: Annotated[float, AtLeast(0), InData] = 1.0
    """How much the synthetic table's outcomes favor one group."""
    test_share: Annotated[float, Above(0), Below(1), InData] = 1 / 3
    """Share of the rows that are kept for testing."""
    held_out: Annotated[float, AtLeast(0), Below(1), InData] = 0.2
    """Share of the training rows that are held out: for curves, --keep-best and --patience."""
    known: Annotated[float, Above(0), AtMost(1), InData] = 1.0
    """Share of training rows whose sensitive attribute is known."""
    networks: TableNetworks = TableNetworks(hidden_dim=64, feature_scale=0.3)
    """Sizes of the networks."""
    method: Fair = Fair()
    """The row of the table."""
    learning_rate: Positive = 2e-3
    """Learning rate of Adam."""
    keep_best: bool = True
    """Keep the checkpoint that is best on held-out rows beside the newest ones, and evaluate and load it."""
    allowed_deo: Share = 0.01
    """Difference of equal opportunity on the held-out rows up to which the more accurate representation is better. Where there is
    none such, the one with the smallest difference is best."""
    attribute_weight: Positive = 300.0
    """Weight of the sensitive attribute's likelihood, one bit where the features are dozens. Large enough, z always tells the
    attribute, and cannot become independent of the representation by forgetting it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is not None:  # a run may be resumed elsewhere
            object.__setattr__(self, "data_dir", absolute(self.data_dir))
        if self.data not in TABLES:
            object.__setattr__(self, "data", str(absolute(self.data)))

    # Data -----------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def table(self) -> Table:
        """The table, read when it is asked for.

        Raises:
            UsageError: it is missing, or has no such columns.
        """
        return load_table(self.data, self.target, self.sensitive, self.data_dir, self.bias)

    @functools.cached_property
    def splits(self) -> tuple[Split, Split | None, Split]:
        """The rows to train on, those that are held out, if any, and those to test on. The seed decides on all."""
        train, test = self.table.split(self.seed, self.test_share)
        train, held = train.hold_out(self.held_out, self.seed) if self.held_out else (train, None)
        return train, held, test

    @property
    def note(self) -> str:
        return " ".join(note for note in (self.table.note, self.splits[2].note) if note)

    @property
    def views(self) -> tuple[str, ...]:
        return ("x", "a")

    @property
    def train_size(self) -> int:
        return len(self.splits[0])

    def prepare(self) -> None:
        what = f"at most {self.train_size}, the number of rows to train on ({len(self.splits[2])} are for testing)"
        self.require(self.batch_size <= self.train_size, "batch_size", what)

    def fingerprint(self) -> str:
        return self.data if self.data in TABLES else self.table.fingerprint()

    def fitted(self, given: Collection[str]) -> Self:
        if self.data in TABLES or "batch_size" in given or self.batch_size <= self.train_size:
            return self
        return changed(self, {"batch_size": self.train_size})

    @property
    def validation_interval(self) -> int:
        return self.validate_every or max(1, self.steps // 40)

    def source(self, device: torch.device) -> Source:
        return TableSource(self.splits[0], self.known, self.seed, device)

    # Training -------------------------------------------------------------------------------------------------------

    def view_sizes(self) -> dict[str, Any]:
        return {"num_features": self.splits[0].x.shape[1]}

    def site_weights(self) -> dict[str, float]:
        return {"a": self.attribute_weight}

    def objective(self, *arguments: Any, **options: Any) -> Objective:
        # At the same rate throughout: any step's representation can be the one that is kept.
        return dataclasses.replace(super().objective(*arguments, **options), scheduler=None)

    def report(self, pair: Pair, device: torch.device) -> FairReport:
        return FairReport(self, pair, device)
