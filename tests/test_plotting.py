import torch

from pyzoo.plotting import figure_grid, loss_history, show_curves, show_image


def test_grid_and_title():
    figure, axes = figure_grid(2, 3, "A long title " * 12)
    assert [len(row) for row in axes] == [3, 3]
    assert figure.get_suptitle().count("\n") >= 1


def test_curves_are_drawn_with_one_label_each():
    _, [[axes]] = figure_grid(1, 1, "t")
    show_curves(axes, {"one": torch.zeros(10), "many": torch.ones(3, 10)}, 2.0, "heading")
    assert len(axes.lines) == 4
    assert axes.get_legend_handles_labels()[1] == ["one", "many"]
    assert axes.get_ylim() == (-2.0, 2.0)


def test_images_are_cut_to_their_range():
    _, [[axes, empty]] = figure_grid(1, 2, "t")
    show_image(axes, torch.full((3, 4, 5), 1.7))
    show_image(empty, None)
    assert axes.images[0].get_array().max() == 1
    assert axes.images[0].get_array().shape == (4, 5, 3)
    assert not empty.images


def test_history_is_averaged():
    history = [{"step": i, "a": float(i)} for i in range(4)]
    figure = loss_history(history, {"panel": {"a": "label"}}, "t", window=2)
    assert list(figure.axes[0].lines[0].get_ydata()) == [0, 0.5, 1.5, 2.5]
