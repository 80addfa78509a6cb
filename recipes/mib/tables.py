"""Table 2 of Zhang et al. (2020), each row trained; and figure 3 in numbers, beside two of its rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pyzoo.about import About
from pyzoo.data.multimodal import PairSetName, partner_name
from pyzoo.recipes.mib import ABOUT, recipe
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.recipes.mib.ood.recipe import OODRecipe
from pyzoo.recipes.mib.structure.recipe import LearnedStructureRecipe
from pyzoo.training import Row, Table

__all__ = ["MIBFigure3", "MIBTable2"]

_ROWS: dict[str, type[recipe.MIBRecipe]] = {
    "VAE": recipe.VAERecipe,
    "GAN": recipe.GANRecipe,
    "InfoGAN": recipe.InfoGANRecipe,
    "beta-VAE": recipe.BetaVAERecipe,
    "beta-TCVAE": recipe.BetaTCVAERecipe,
    "JMVAE": recipe.JMVAERecipe,
    "MVAE": recipe.MVAERecipe,
    "Wyner-VAE": recipe.WynerVAERecipe,
    "BiVCCA": recipe.BiVCCARecipe,
    "TELBO": recipe.TELBORecipe,
}


def _fields(kind: type[recipe.MIBRecipe], preset: str, data: PairSetName, data_dir: Path | None) -> dict[str, Any]:
    """The settings of a row that make it comparable with OURS-MM on the same pairs."""
    if issubclass(kind, recipe.ViewRecipe):
        return {"data": data.split("-")[0], "data_dir": data_dir}
    method = kind.preset(preset).method
    if hasattr(method, "u_dim"):
        return {"data": data, "data_dir": data_dir}
    ours = recipe.MultimodalRecipe.preset(preset).method
    images = 1 if partner_name(data) == "label" else 2
    return {"data": data, "data_dir": data_dir, "z_dim": ours.z_dim + ours.u_dim * images}


def _crossed(views: Sequence[str]) -> dict[str, str]:
    return {f"cross_accuracy/{a}_to_{b}": f"{b} from {a}" for a in views for b in views if a != b}


_SHARED = {
    **_crossed(("digit", "label")),
    **_crossed(("digit", "number")),
    **_crossed(("digit", "next")),
    "joint_coherence": "joint coherence",
    "z_keeps_class": "z keeps the class",
    "u_changes_class": "u changes the class",
    "test_log_likelihood/digit": "log p(digit) by 100 samples of up to 500 examples, nats",
    "parameters": "parameters",
}


@dataclasses.dataclass(frozen=True)
class MIBTable2(Table):
    """Table 2 of Zhang et al. (2020): methods old and new as rows of one framework, each trained on the same pairs.

    BiVCCA and TELBO, which section 4.2 names, are not in the table as it is printed. A single-view row is trained on the digits
    alone, and has private latents alone, but for InfoGAN's code; rows without private latents have as many
    dimensions in z as others have together. OURS-MM is there twice: as the paper has it, and with what its preset adds, which is
    ours. In all rows a label's likelihood has the preset's ``label_weight``, where the paper has 1. The paper's table has no
    numbers. The last three rows are the case studies of sections 5 and 6, and a structure that is learned (section 3.5), on data
    of their own.
    """

    name: ClassVar[str] = "mib-table2"
    about: ClassVar[About] = ABOUT["mib-table2"]
    columns: ClassVar[Mapping[str, str]] = {
        **_SHARED,
        "sample_confidence": "confidence of the judge in samples",
        "sample_classes": "classes of samples",
        "code_information": "information about the code, nats",
        "accuracy": "fair: accuracy",
        "demographic_parity": "fair: demographic parity",
        "accuracy_train_envs": "environments: accuracy in training",
        "accuracy_test_env": "environments: accuracy in the test",
        "edges_correct": "structure: edges right",
    }

    preset: str = "digits"
    """Preset of the recipes that the rows train."""
    seeds: tuple[int, ...] = (0,)
    """Seeds with which each row is trained; the table gives means and standard deviations."""
    data: PairSetName = "digits-label"
    """Pairs to train on; the rows with one view are trained on their digits."""
    data_dir: Path | None = None
    """Folder in which the pairs are looked for first; then in $PYZOO_DATA and in a cache, into which they are downloaded."""

    def rows(self) -> Sequence[Row]:
        rows = [Row(label, kind, _fields(kind, self.preset, self.data, self.data_dir)) for label, kind in _ROWS.items()]
        ours, pairs = recipe.MultimodalRecipe, {"data": self.data, "data_dir": self.data_dir}
        plain = {"crossed_cost": 0.0, "cross_weight": 1.0, "independence": "none", "digit_kl_start": 1.0}
        plain |= {"number_kl_end": 1.0, "shared_kl_end": 1.0}
        digits = {"data": self.data.split("-")[0], "data_dir": self.data_dir}
        return [
            *rows,
            Row("OURS-MM", ours, {**pairs, **plain}),
            Row("OURS-MM, its preset", ours, pairs),
            Row("Fair representation (section 5)", FairRecipe, {}, preset="synthetic"),
            Row("Out of distribution (section 6)", OODRecipe, digits, preset="small" if self.preset == "small" else "digits"),
            Row("Structure learning (section 3.5)", LearnedStructureRecipe, {}, preset="digits"),
        ]


@dataclasses.dataclass(frozen=True)
class MIBFigure3(Table):
    """Figure 3 of Zhang et al. (2020) as accuracies: one view given the other, by OURS-MM, and by MVAE and JMVAE of the same
    sizes.

    OURS-MM is as its preset has it, with what that adds to the paper's. Runs that exist are continued, or taken as they are.
    """

    name: ClassVar[str] = "mib-figure3"
    about: ClassVar[About] = ABOUT["mib-figure3"]
    columns: ClassVar[Mapping[str, str]] = {**_SHARED, "test_log_likelihood": "log p of both views, nats"}

    data: tuple[PairSetName, ...] = ("mnist-numbers",)
    """Pairs to train on, one or more sets of them."""
    data_dir: Path | None = None
    """Folder in which the pairs are looked for first; then in $PYZOO_DATA and in a cache, into which they are downloaded."""

    def rows(self) -> Sequence[Row]:
        kinds = {"MVAE": recipe.MVAERecipe, "JMVAE": recipe.JMVAERecipe, "OURS-MM": recipe.MultimodalRecipe}
        return [
            Row(f"{label}, {data}", kind, _fields(kind, self.preset, data, self.data_dir))
            for data in self.data
            for label, kind in kinds.items()
        ]
