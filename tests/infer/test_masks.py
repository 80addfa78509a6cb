import copy
import math
import re

import pyro
import pytest
import torch
from pyro import poutine

from pyzoo.infer import BayesianNetwork, FixedMask, RelaxedMask, Variables


def test_a_fixed_mask_is_a_buffer():
    names = Variables(("x", "y"), shared=("z", "s"))
    mask = FixedMask(BayesianNetwork.parse("x, y -> z; y -> s", names).inference_mask())
    assert mask().tolist() == [[1, 0], [1, 1]]
    assert not list(mask.parameters())
    assert mask.double()().dtype == torch.float64


def test_draws_follow_the_probabilities():
    """A relaxed Bernoulli is above one half as often as a coin of its probability comes up; here at a low temperature."""
    mask = RelaxedMask("m", (2, 2), temperature=0.1)
    wanted = torch.tensor([[0.9, 0.5], [0.2, 0.05]])
    with torch.no_grad():
        mask.logits.copy_(wanted.logit())
    torch.testing.assert_close(mask.probabilities(), wanted)
    draws = torch.stack([mask() for _ in range(2000)])
    assert ((draws > 0) & (draws < 1)).float().mean() > 0.5
    torch.testing.assert_close((draws > 0.5).float().mean(0), wanted, atol=0.04, rtol=0)


def test_it_is_drawn_in_training_and_certain_in_evaluation():
    mask = RelaxedMask("m", (1, 2))
    with torch.no_grad():
        mask.logits.copy_(torch.tensor([[0.3, -0.3]]))
    assert not torch.equal(mask(), mask())
    assert mask.eval()().tolist() == [[1, 0]]
    assert "m" not in poutine.trace(mask).get_trace().nodes


def test_its_site_is_not_scored_and_has_a_gradient():
    mask = RelaxedMask("m", (2, 3), program="guide")
    trace = poutine.trace(mask).get_trace()
    assert trace.log_prob_sum() == 0
    assert trace.nodes["m"]["infer"]["is_auxiliary"]
    trace.nodes["_RETURN"]["value"].sum().backward()
    assert mask.logits.grad.all()


def test_model_and_guide_share_a_draw():
    mask = RelaxedMask("m", (2, 2))
    drawn = poutine.trace(mask).get_trace()
    with poutine.replay(trace=drawn):
        assert torch.equal(mask(), drawn.nodes["m"]["value"])


def test_copies_and_schedules():
    mask = RelaxedMask("m", (2, 2))
    other = copy.deepcopy(mask)
    other.temperature.fill_(0.01)
    assert mask.temperature == 1
    pyro.set_rng_seed(0)
    draws = torch.stack([other() for _ in range(200)])
    assert ((draws < 0.01) | (draws > 0.99)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": 0.0}, "between 0 and 1"),
        ({"initial": 1.0}, "got 1.0"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        RelaxedMask("m", (2, 2), **settings)


@pytest.mark.parametrize("initial", [1e-50, 1 - 1e-12])
def test_extreme_probabilities_of_an_edge_have_finite_logits(initial):
    logit = math.log(initial) - math.log1p(-initial)
    assert RelaxedMask("m", (1, 1), initial=initial).logits.item() == pytest.approx(logit)


def test_masks_of_another_form():
    with pytest.raises(ValueError, match="shape must be 2 whole numbers"):
        RelaxedMask("m", (2,))
    with pytest.raises(ValueError, match="edges must be a tensor"):
        FixedMask([[1]])


def test_what_is_known_is_neither_drawn_nor_learned():
    present, absent = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    mask = RelaxedMask("m", (1, 3), initial=0.3, present=present, absent=absent)
    drawn = mask()
    assert drawn[0, :2].tolist() == [1, 0]
    drawn.sum().backward()
    assert (mask.logits.grad != 0).tolist() == [[False, False, True]]
    assert mask.eval()().tolist() == [[1, 0, 0]]
    torch.testing.assert_close(mask.probabilities(), torch.tensor([[1.0, 0.0, 0.3]]))
    assert mask.state_dict().keys() == {"logits", "temperature"}


def test_the_models_alone_is_no_latent():
    """Pyro warns of latents of a model that its guide lacks."""
    trace = poutine.trace(RelaxedMask("m", (1, 2), program="model")).get_trace()
    assert trace.nodes["m"]["is_observed"]
    assert trace.log_prob_sum() == 0
    assert trace.nodes["_RETURN"]["value"].requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"present": torch.tensor([[True, True]]), "absent": torch.tensor([[False, True]])}, "edge (0, 1) can't be both"),
        ({"present": torch.tensor([[True]])}, "present"),
        ({"absent": torch.tensor([[1, 0]])}, "absent must be boolean"),
        ({"program": "neither"}, "program is 'both', 'model' or 'guide', not 'neither'"),
    ],
)
def test_knowledge_that_is_none(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RelaxedMask("m", (1, 2), **arguments)
