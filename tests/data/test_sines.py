import math

import pytest
import torch

from pyzoo.data.sines import Sines


def source(**changes):
    return Sines(lambda step: 2 + step // 10, **changes)


def test_a_batch_is_a_pure_function_of_seed_split_and_step():
    first = source().batch(3, 8)
    torch.rand(5)  # whatever else is drawn
    again = source().batch(3, 8)
    assert all(torch.equal(first[key], again[key]) for key in first)
    others = [source().batch(4, 8), source(seed=1).batch(3, 8), source(split="test").batch(3, 8)]
    assert not any(torch.equal(first["x"], other["x"]) for other in others)


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    source().batch(0, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_number_of_parts_is_uniform_up_to_the_current_maximum():
    counts = [source().batch(step, 1)["parts"].shape[1] for step in range(20, 30)] * 1
    assert max(counts) <= 4
    many = [Sines(lambda step: 3).batch(step, 1)["parts"].shape[1] for step in range(600)]
    for value in (1, 2, 3):
        assert abs(many.count(value) - 200) < 60
    assert set(many) == {1, 2, 3}


def test_curve_is_the_formula_of_section_4_2():
    parts, a, kappa = torch.tensor([[0, 4]]), torch.tensor([[1.2, 0.7]]), torch.tensor([[0.3, -1.0]])
    x = source(nonlinearity=2.0).curve(parts, a, kappa)
    for t in (0, 1, 77, 199):
        total = sum(a[0, i] * math.cos(2 * math.pi * (parts[0, i] + 1) / 200 * t + kappa[0, i]) for i in range(2))
        assert x[0, t].item() == pytest.approx(2 * math.tanh(2.0 / 2 * total), abs=1e-5)


def test_amplitudes_and_phases_have_their_moments():
    curves = source().draw(20_000, 2, seed=0)
    assert curves.amplitudes.mean().item() == pytest.approx(1.0, abs=0.02)
    assert curves.amplitudes.std().item() == pytest.approx(0.3, abs=0.01)
    assert curves.phases.mean().item() == pytest.approx(0.0, abs=0.05)
    assert curves.phases.std().item() == pytest.approx(math.pi / 2, abs=0.03)
    assert curves.parts.unique().tolist() == list(range(10))


def test_distinct_parts():
    parts = source().draw(50, 10, seed=0, distinct=True).parts
    assert torch.equal(parts.sort(-1).values, torch.arange(10).expand(50, 10))
    with pytest.raises(ValueError, match="10 frequencies"):
        source().draw(1, 11, seed=0, distinct=True)


def test_a_subset_is_the_curve_of_the_kept_parts_with_their_own_number():
    curves = source().draw(6, 4, seed=0)
    keep = torch.tensor([[True, False, True, False]]).expand(6, -1)
    alone = source().curve(curves.parts[:, ::2], curves.amplitudes[:, ::2], curves.phases[:, ::2])
    torch.testing.assert_close(source().subset(curves, keep), alone)
    torch.testing.assert_close(source().subset(curves, torch.ones_like(keep)), curves.x)


def test_order_of_the_parts_does_not_matter():
    c = source().draw(6, 4, seed=0)
    torch.testing.assert_close(source().curve(c.parts.flip(1), c.amplitudes.flip(1), c.phases.flip(1)), c.x)
