import itertools
import re

import pytest
import torch

from pyzoo.infer import BayesianNetwork, Variables

NAMES = Variables(("x", "y"), shared=("z", "w"), private={"u": "x"})


def network(text, variables=NAMES):
    return BayesianNetwork.parse(text, variables)


def test_text_and_edges_say_the_same():
    edges = [("x", "z"), ("y", "z"), ("z", "w"), ("x", "u")]
    made = BayesianNetwork(NAMES, reversed(edges))
    assert network("x, y -> z -> w; x -> u") == made
    assert network("x->z\n y -> z\n z -> w ; x -> u;") == made
    assert hash(made) == hash(network(str(made)))
    assert network(str(made)) == made
    assert made.parents("z") == ("x", "y")
    assert made.order == ("x", "y", "z", "w", "u")
    assert str(BayesianNetwork(NAMES)) == ""
    assert network("") == BayesianNetwork(NAMES)
    assert network("x -> z") != network("y -> z")


def test_parents_come_before_children():
    made = network("z, u -> x; z -> y; w -> z")
    place = {name: index for index, name in enumerate(made.order)}
    assert all(place[parent] < place[child] for parent, child in made.edges)
    assert sorted(made.order) == sorted(NAMES.names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x -> q", "Unknown variable 'q': there are x, y, z, w, u"),
        ("x -> z; z -> w; w -> x", "cycle: x -> z -> w -> x"),
        ("z -> y; x -> x", "cycle: x -> x"),
        ("x -> ", "not 'x ->'"),
        ("x, -> z", "parent, parent -> child, child"),
        ("x", "not 'x'"),
    ],
)
def test_bad_networks(text, message):
    with pytest.raises(ValueError, match=message):
        network(text)


def test_bad_variables():
    with pytest.raises(ValueError, match="used twice: x"):
        Variables(("x", "y"), shared=("x",))
    with pytest.raises(ValueError, match="'u' belongs to 'q'"):
        Variables(("x",), private={"u": "q"})
    with pytest.raises(ValueError, match="Unknown variable 'q'"):
        network("x -> z").parents("q")


def test_masks_there_and_back():
    for entries in itertools.product([0.0, 1.0], repeat=4):
        mask = torch.tensor(entries).view(2, 2)
        inference = BayesianNetwork.from_inference_mask(NAMES, mask)
        generative = BayesianNetwork.from_generative_mask(NAMES, mask)
        assert torch.equal(inference.inference_mask(), mask)
        assert torch.equal(generative.generative_mask(), mask)
        assert not inference.generative_mask().any()
        assert inference.parents("u") == ("x",)
        assert "u" in generative.parents("x")
    with pytest.raises(ValueError, match="2 x 2, not 3 x 2"):
        BayesianNetwork.from_inference_mask(NAMES, torch.zeros(3, 2))
    for entry in (0.5, 2.0, -1.0, float("nan")):
        mask = torch.zeros(len(NAMES.observed), len(NAMES.shared))
        mask[0, 0] = entry
        with pytest.raises(ValueError, match=f"'{NAMES.observed[0]}' and '{NAMES.shared[0]}' must be 0 or 1"):
            BayesianNetwork.from_generative_mask(NAMES, mask)


def test_order_of_private_latents_does_not_matter():
    edges = [("x", "u"), ("y", "v")]
    first, second = (
        BayesianNetwork(Variables(("x", "y"), private=private), edges) for private in ({"u": "x", "v": "y"}, {"v": "y", "u": "x"})
    )
    assert first == second
    assert hash(first) == hash(second)


def by_paths(made, first, second, given):
    """d-separation by its definition: every path is blocked."""
    descendants = {name: {name} for name in made.variables.names}
    for name in reversed(made.order):
        for child in (c for p, c in made.edges if p == name):
            descendants[name] |= descendants[child]
    around = {name: {b for a, b in made.edges if a == name} | {a for a, b in made.edges if b == name} for name in descendants}

    def open_paths(path):
        if len(path) > 2:
            a, b, c = path[-3:]
            meets = (a, b) in made.edges and (c, b) in made.edges
            if (meets and not descendants[b] & given) or (not meets and b in given):
                return False
        return path[-1] == second or any(open_paths([*path, n]) for n in around[path[-1]] if n not in path)

    return not open_paths([first])


def test_separation_agrees_with_its_definition():
    generator = torch.Generator().manual_seed(0)
    names = NAMES.names
    verdicts = []
    for _ in range(40):
        order = [names[i] for i in torch.randperm(5, generator=generator)]
        edges = [pair for pair in itertools.combinations(order, 2) if torch.rand((), generator=generator) < 0.4]
        made = BayesianNetwork(NAMES, edges)
        for first, second in itertools.combinations(names, 2):
            others = [name for name in names if name not in (first, second)]
            for size in range(4):
                for given in itertools.combinations(others, size):
                    verdict = made.separates([first], [second], given)
                    assert verdict == made.separates([second], [first], given) == by_paths(made, first, second, set(given))
                    verdicts.append(verdict)
    assert 0.2 < sum(verdicts) / len(verdicts) < 0.8


def test_observed_variables_connected():
    made = network("z -> x, y; u -> x").with_observed_connected()
    assert ("x", "y") in made.edges
    assert ("y", "x") in network("z -> x, y").with_observed_connected(["z", "y", "x"]).edges
    with pytest.raises(ValueError, match="cycle"):
        network("x -> z; z -> y").with_observed_connected(["y", "x"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BayesianNetwork(NAMES, [("x", "z", "y")]), "each edge must be a pair of parent and child, got ('x', 'z', 'y')"),
        (lambda: BayesianNetwork(NAMES, [("x",)]), "each edge must be a pair of parent and child, got ('x',)"),
        (lambda: BayesianNetwork(NAMES, "xz"), "each edge must be a pair of parent and child, got 'x'"),
        (lambda: BayesianNetwork.parse(None, NAMES), "text must be of type str, got NoneType"),
        (lambda: BayesianNetwork.from_generative_mask(NAMES, [[1.0]]), "mask must be a tensor, got a list"),
        (lambda: NAMES.batch_size({"x": 3.0}), "The view 'x' must be a tensor, got a float"),
        (
            lambda: NAMES.check_mask([[True, True]], 1),
            "each row must be of type Tensor or NoneType, got list",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
