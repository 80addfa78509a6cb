"""The table of a benchmark as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.rounds import medians
from pyzoo.plotting import figure_grid, first_cells, label_axes

__all__ = ["figure"]

_COLUMNS = 3
_COLORS = {"fp32": "C0", "bf16": "C1", "NumPyro,": "C2"}  # by the first word of a side; what is ours has its precision there


def figure(cases: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> Figure:
    """A bar for each side of each case: how long a step takes, as a share of the first side's; with the range of the rounds.

    Args:
        cases: the measurements of each side, one for each round, by case and size.
    """
    columns = min(_COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    most = max(map(len, cases.values()))
    drawn, grid = figure_grid(rows, columns, "A step's time, as a share of hand-written PyTorch's", cell=(4.2, 0.6 + 0.24 * most))
    for (name, found), axes in zip(cases.items(), first_cells(grid, len(cases)), strict=True):
        first = next(iter(found.values()))
        shares = [medians(one, first) for one in found.values()]
        around = [[one["ratio"] - one["least"] for one in shares], [one["most"] - one["ratio"] for one in shares]]
        colors = [_COLORS.get(side.split()[0], "0.6") for side in found]
        axes.barh(list(found), [one["ratio"] for one in shares], color=colors, xerr=around, error_kw={"elinewidth": 0.8})
        axes.axvline(1, color="0.3", linewidth=0.8)
        axes.invert_yaxis()
        axes.set_title(name, fontsize=9)
        label_axes(axes, f"share of {first[0]['ms']:.1f} ms", "")
        axes.grid(visible=False, axis="y")
    return drawn
