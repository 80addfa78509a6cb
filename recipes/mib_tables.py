"""Table 2 of Zhang et al. (2020), each row trained; and figure 3 in numbers, beside two of its rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pyzoo.data.multimodal import PairSetName
from pyzoo.recipes import mib
from pyzoo.training import Row, Table

__all__ = ["MIBFigure3", "MIBTable2"]

_ROWS: dict[str, type[mib.MIBRecipe]] = {
    "VAE": mib.VAE,
    "GAN": mib.GAN,
    "InfoGAN": mib.InfoGAN,
    "beta-VAE": mib.BetaVAE,
    "beta-TCVAE": mib.BetaTCVAE,
    "JMVAE": mib.JMVAE,
    "MVAE": mib.MVAE,
    "Wyner-VAE": mib.WynerVAE,
    "BiVCCA": mib.BiVCCA,
    "TELBO": mib.TELBO,
}


def _crossed(views: Sequence[str]) -> dict[str, str]:
    return {f"cross_accuracy/{a}_to_{b}": f"{b} from {a}" for a in views for b in views if a != b}


_SHARED = {
    **_crossed(("digit", "label")),
    **_crossed(("digit", "number")),
    **_crossed(("digit", "next")),
    "joint_coherence": "joint coherence",
    "z_keeps_class": "z keeps the class",
    "u_changes_class": "u changes the class",
    "test_log_likelihood/digit": "log p(digit) by 100 samples of 500 examples, nats",
    "parameters": "parameters",
}


@dataclasses.dataclass
class MIBTable2(Table):
    """Table 2 of Zhang et al. (2020): methods old and new as rows of one framework, each trained on the same pairs.

    A single-view row sees the digits alone, and has private latents alone; rows without private latents have as many dimensions
    in z as others have together. OURS-MM is there twice: as the paper has it, and with what its preset adds, which is ours. The
    paper's table has no numbers.
    """

    name: ClassVar[str] = "mib-table2"
    shows: ClassVar[str] = "eleven methods as declarations of one framework"
    columns: ClassVar[Mapping[str, str]] = {
        **_SHARED,
        "sample_confidence": "confidence of the judge in samples",
        "sample_classes": "classes of samples",
        "code_information": "nats told of the code",
    }

    preset: str = "digits"
    """Of the recipes."""
    seeds: tuple[int, ...] = (0,)
    """Each row is trained with each; the table gives means and standard deviations."""
    data: PairSetName = "digits-label"
    """The pairs."""
    data_dir: Path | None = None
    """Where they are looked for first."""

    def rows(self) -> Sequence[Row]:
        pairs = {"data": self.data, "data_dir": self.data_dir}
        rows = [Row(label, recipe, pairs) for label, recipe in _ROWS.items()]
        plain = {"crossed_cost": 0.0, "cross_weight": 1.0, "independence": "none", "digit_kl_start": 1.0}
        plain |= {"number_kl_end": 1.0, "shared_kl_end": 1.0}
        return [*rows, Row("OURS-MM", mib.Multimodal, {**pairs, **plain}), Row("OURS-MM, its preset", mib.Multimodal, pairs)]


@dataclasses.dataclass
class MIBFigure3(Table):
    """Figure 3 of Zhang et al. (2020), as accuracies: one view from another, beside MVAE and JMVAE with its networks and steps.

    OURS-MM is as its preset has it, with what that adds to the paper's. Trains each row with each seed, where that is not
    done yet: what was begun is continued.
    """

    name: ClassVar[str] = "mib-figure3"
    shows: ClassVar[str] = "OURS-MM, MVAE and JMVAE by what one view says of the other"
    columns: ClassVar[Mapping[str, str]] = {**_SHARED, "test_log_likelihood": "log p of both views, nats"}

    data: tuple[PairSetName, ...] = ("mnist-numbers",)
    """The pairs."""
    data_dir: Path | None = None
    """Where they are looked for first."""

    def rows(self) -> Sequence[Row]:
        return [
            Row(f"{label}, {data}", recipe, {"data": data, "data_dir": self.data_dir})
            for data in self.data
            for label, recipe in {"MVAE": mib.MVAE, "JMVAE": mib.JMVAE, "OURS-MM": mib.Multimodal}.items()
        ]
