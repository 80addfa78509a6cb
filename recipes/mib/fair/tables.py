"""Table 3 of Zhang et al. (2020): accuracy and unfairness on Adult and German credit, beside what practitioners would train."""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyzoo.about import About
from pyzoo.recipes.mib.fair import ABOUT
from pyzoo.recipes.mib.fair.baselines import baselines
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.recipes.mib.fair.report import compared
from pyzoo.settings import Share, Weight
from pyzoo.training import Entry, References, Row, Run, Table, reference_entries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MIBTable3"]

_ESTIMATORS = {"OURS-MMD": "mmd", "OURS-TC": "total_correlation", "OURS-MINE": "mine"}
_PAPER = {
    "adult": {
        "Naive SVM": ("0.80", "0.09"),
        "SVM": ("0.79", "0.08"),
        "NN": ("0.84", "0.14"),
        "NN + chi^2": ("0.83", "0.03"),
        "FERM": ("0.77", "0.01"),
        "OURS-MMD": ("0.83", "0.02"),
        "OURS-TC": ("0.81", "0.02"),
        "OURS-MINE": ("0.79", "0.01"),
    },
    "german": {
        "Naive SVM": ("0.74 ± 0.05", "0.12 ± 0.05"),
        "SVM": ("0.74 ± 0.03", "0.10 ± 0.06"),
        "NN": ("0.74 ± 0.04", "0.47 ± 0.19"),
        "NN + chi^2": ("0.73 ± 0.03", "0.25 ± 0.14"),
        "FERM": ("0.73 ± 0.04", "0.05 ± 0.03"),
        "OURS-MMD": ("0.72 ± 0.07", "0.07 ± 0.09"),
        "OURS-TC": ("0.74 ± 0.08", "0.08 ± 0.14"),
        "OURS-MINE": ("0.70 ± 0.11", "0.05 ± 0.11"),
    },
}
"""The paper's accuracy and difference of equal opportunity; the rows that are not its own it takes from others."""


@dataclasses.dataclass(frozen=True)
class MIBTable3(Table):
    """Table 3 of Zhang et al. (2020): a linear classifier's accuracy and unfairness, on representations by three estimators.

    Each estimator is trained on ten splits, while the weight of its penalty rises. On each split the weight is chosen by the
    held-out rows: of those whose difference of equal opportunity there is at most --allowed-deo the one with the best accuracy,
    else the one with the smallest difference. Baselines are trained on the same splits, on training and held-out rows together.
    """

    name: ClassVar[str] = "mib-table3"
    about: ClassVar[About] = ABOUT["mib-table3"]
    columns: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "deo": "DEO",
        "demographic_parity": "demographic parity",
        "leakage": "leakage",
        "weight": "weight of the penalty at the checkpoint that was kept",
    }
    note: ClassVar[str] = (
        "The weight of each estimator's penalty is chosen on each split by the held-out rows, and the classifier's threshold is "
        "1/2. That way of choosing was itself compared with two others on these test rows (docs/results/mib.md). Leakage is read "
        "by trees that were fitted to the training rows' codes; in logistic regression's row they were fitted to all columns of "
        "training and held-out rows. DEO is a mean of absolute differences, so above zero even for a perfectly fair "
        "classifier on few rows."
    )

    preset: str = "adult"
    """Preset of the recipe: adult, german or synthetic."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds, each of a split and of its trainings; the table gives means and standard deviations."""
    mmd_weight: Weight = 2000.0
    """Weight of the penalty by MMD at the end of training."""
    tc_weight: Weight = 20.0
    """Weight of the penalty by total correlation at the end of training."""
    mine_weight: Weight = 20.0
    """Weight of the penalty by MINE at the end of training."""
    allowed_deo: Share = 0.01
    """Difference of equal opportunity on the held-out rows up to which accuracy decides on the weight."""
    data: str = ""
    """Your own table, a CSV file, in place of the preset's."""
    target: str = ""
    """The column to predict."""
    sensitive: str = ""
    """The column of the sensitive attribute."""
    data_dir: Path | None = None
    """Folder in which adult and german are looked for first; then in $PYZOO_DATA; else they are downloaded from OpenML."""

    def settings(self) -> dict[str, Any]:
        """Settings of the recipe that all rows share."""
        own = {name: getattr(self, name) for name in ("data", "target", "sensitive", "data_dir")}
        return {name: value for name, value in own.items() if value}

    def _fields(self, estimator: str) -> dict[str, Any]:
        """Settings of an estimator's rows. The cost of total correlation grows with the square of the batch size."""
        smaller = {"batch_size": 256} if estimator == "total_correlation" and self.preset == "adult" else {}
        weight = {"mmd": self.mmd_weight, "total_correlation": self.tc_weight, "mine": self.mine_weight}[estimator]
        own = {"independence": estimator, "independence_weight": weight, "allowed_deo": self.allowed_deo}
        return {**self.settings(), **own, **smaller}

    def rows(self) -> Sequence[Row]:
        return [Row(label, FairRecipe, self._fields(name)) for label, name in _ESTIMATORS.items()]

    def references(self, seed: int) -> Mapping[str, Mapping[str, float]]:
        recipe = FairRecipe.preset(self.preset, **self.settings(), seed=seed)
        train, test = recipe.table.split(seed, recipe.test_share)
        return baselines(train, test, seed)

    def entries(self, runs: Mapping[str, Sequence[Run]], references: References) -> Sequence[Entry]:
        paper = {
            label: dict(zip(("accuracy", "deo"), found, strict=True)) for label, found in _PAPER.get(self._printed, {}).items()
        }
        ours = [Entry(label, [_measured(run) for run in runs.get(label, ())], paper.get(label, {})) for label in _ESTIMATORS]
        theirs = [Entry(f"{label} (the paper's)", [], found) for label, found in paper.items() if label not in _ESTIMATORS]
        return [*reference_entries(references), *ours, *theirs]

    @property
    def _printed(self) -> str:
        """The table whose numbers the paper prints, if it is one of these."""
        return "" if self.settings().keys() & {"data", "target", "sensitive"} else self.preset

    def figures(self, runs: Mapping[str, Sequence[Run]], references: References) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib.fair.figures import front  # matplotlib is imported only where something is drawn

        def mean(metrics: Sequence[Mapping[str, float]], name: str) -> float:
            return statistics.fmean(one[name] for one in metrics)

        curves = {label: _mean_path(runs.get(label, ())) for label in _ESTIMATORS}
        lines = {line.label: line.metrics for line in reference_entries(references)}
        ours = {label: [run.metrics for run in runs[label]] for label in _ESTIMATORS if runs.get(label)}
        points, chosen = (
            {label: (mean(found, "deo"), mean(found, "accuracy")) for label, found in group.items()} for group in (lines, ours)
        )
        if any(curves.values()) or points:
            which = "curves: held-out rows, with the penalty's weight; stars, what was chosen, and baselines: test rows"
            title = f"Accuracy against unfairness, {self.data or self.preset}, mean of {len(self.seeds)} splits ({which})"
            yield "front", front({label: curve for label, curve in curves.items() if curve}, points, title, chosen=chosen)


def _measured(run: Run) -> dict[str, float]:
    """Metrics of a run, and the weight at which its representation was kept."""
    return {**run.metrics, "weight": compared(run.recipe, run.history)[run.step][0]}


def _mean_path(runs: Sequence[Run]) -> list[tuple[float, float, float]]:
    """(weight, DEO, accuracy) on the held-out rows along the penalty's weight, means over runs."""
    paths = [compared(run.recipe, run.history).values() for run in runs]
    return [tuple(map(statistics.fmean, zip(*points, strict=True))) for points in zip(*paths, strict=False)]
