import re

import pytest
import torch
from matplotlib.figure import Figure

from pyzoo.infer import BayesianNetwork, Variables
from pyzoo.plotting import draw_network, figure_grid, image_grid, image_sheet, loss_history, show_curves, show_image, show_runs


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


def test_axes_of_curves_are_named_at_the_edges_of_a_grid_and_where_there_is_none():
    _, grid = figure_grid(2, 2, "t")
    alone = Figure().add_axes((0.1, 0.1, 0.8, 0.8))
    for axes in (*grid[0], *grid[1], alone):
        show_curves(axes, {"a": torch.zeros(3)}, 1.0)
    names = [[(axes.get_xlabel(), axes.get_ylabel()) for axes in row] for row in (*grid, [alone])]
    assert names == [[("", "x"), ("", "")], [("time step", "x"), ("time step", "")], [("time step", "x")]]


def test_runs_are_their_mean_and_a_band_as_far_as_the_shortest_goes():
    _, [[one, two]] = figure_grid(1, 2, "t")
    long, short = [(1, 2.0), (2, 4.0), (3, 9.0)], [(1, 4.0), (2, 8.0)]
    show_runs(one, [long], "one")
    show_runs(two, [long, short], "two", color="red")
    assert [len(axes.collections) for axes in (one, two)] == [0, 1]
    assert two.lines[0].get_xydata().tolist() == [[1, 3], [2, 6]]
    corners = two.collections[0].get_paths()[0].vertices
    assert corners[corners[:, 0] == 2, 1].min() == 4
    assert corners[corners[:, 0] == 2, 1].max() == 8


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


def test_a_network_has_a_node_for_each_name_and_an_arrow_for_each_edge():
    names = Variables(("x", "y"), shared=("z",), private={"u": "x"})
    network = BayesianNetwork.parse("z -> x, y; u -> x; x -> y", names)
    assert network.layers == [["z"], ["u"], ["x", "y"]]
    _, [[axes]] = figure_grid(1, 1, "t")
    draw_network(axes, network.layers, network.edges, names.observed, "heading")
    assert {text.get_text() for text in axes.texts} == {"x", "y", "z", "u"}
    assert len(axes.patches) == 4
    shades = [tuple(dots.get_facecolor()[0]) for dots in axes.collections]
    assert len(set(shades)) == 2


@pytest.mark.parametrize("flipped", [False, True])
def test_arrows_pass_other_nodes_at_a_distance(flipped):
    layers, edges = [["z"], ["u"], ["x", "y"]], [("z", "x"), ("z", "y"), ("u", "x")]
    places = {"z": (0.0, 0.0), "u": (0.0, -100.0), "x": (-50.0, -200.0), "y": (50.0, -200.0)}  # as drawn, but for the unit
    edges = [edge[::-1] for edge in edges] if flipped else edges
    _, [[axes]] = figure_grid(1, 1, "t")
    draw_network(axes, layers, edges)
    for edge, arrow in zip(edges, axes.patches, strict=True):
        curve = arrow.get_connectionstyle()(*(places[name] for name in edge))
        points = torch.as_tensor(curve.to_polygons(closed_only=False)[0])
        others = torch.tensor([place for name, place in places.items() if name not in edge], dtype=points.dtype)
        assert torch.cdist(points, others).min() > 25, edge


def test_image_grid():
    white, black = torch.zeros(1, 4, 4), torch.ones(1, 2, 2)
    red = torch.zeros(3, 4, 4)
    red[0] = 1.0
    [axes] = image_grid([[white, black, None], [red, "7"]], "title", framed=[(1, 0)]).axes
    canvas = torch.as_tensor(axes.images[0].get_array())
    assert canvas.shape == (12, 18, 3)
    assert torch.equal(canvas[2:4, 8:10], torch.zeros(2, 2, 3))  # ink is black, and a smaller image in its cell's middle
    assert canvas[:6, 6:12].sum().item() == pytest.approx(3 * (36 - 4 - 0.15 * 12))  # in a gray frame of twelve pixels
    assert torch.equal(canvas[7:11, 1:5], torch.tensor([1.0, 0.0, 0.0]).expand(4, 4, 3))
    assert [text.get_text() for text in axes.texts] == ["7"]
    assert len(axes.patches) == 1


CURVE = {"a": torch.zeros(3)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda axes: figure_grid(1, 1, "t", cell=(1,)), "cell must be two numbers, got (1,)"),
        (lambda axes: figure_grid(1, 1, "t", cell=(-1, -9)), "each side of cell must be positive, got -1"),
        (lambda axes: figure_grid(1, 1, None), "title must be of type str, got NoneType"),
        (lambda axes: show_curves(axes, CURVE, float("nan")), "limit must be a finite number, got nan"),
        (lambda axes: show_curves(axes, {"a": [1, 2]}, 1.0), "the curve 'a' must be a tensor, got a list"),
        (lambda axes: image_sheet(torch.tensor(1.0), "t"), "images must be (images, channels, height, width), got ()"),
        (lambda axes: image_grid([["a"]], "t", side=-1), "side must be positive, got -1"),
        (lambda axes: image_grid([["a"]], "t", framed=[3]), "each of framed must be a row and a column, got 3"),
        (lambda axes: draw_network(axes, [], []), "There is no layer to draw"),
        (lambda axes: draw_network(axes, [["z"]], [("z",)]), "each edge must be a pair of parent and child, got ('z',)"),
        (lambda axes: draw_network(axes, [["z"]], [("z", "q")]), "There is no node 'q': there are z"),
        (lambda axes: loss_history([{"step": 1}], {"p": {"a": "A"}}, "t"), "There is no column 'a': there are step"),
    ],
)
def test_bad_arguments_are_named(call, message):
    _, [[axes]] = figure_grid(1, 1, "t")
    with pytest.raises(ValueError, match=re.escape(message)):
        call(axes)
