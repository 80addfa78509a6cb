import pytest
import torch

from pyzoo.evaluation import class_probabilities, train_classifier

STRIPES = torch.zeros(2, 3, 9, 7)
STRIPES[0, :, ::2] = 1.0  # across, and down
STRIPES[1, :, :, ::2] = 1.0


def batch(step):
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(2, (16,), generator=generator)
    return STRIPES[labels] + 0.1 * torch.randn(16, 3, 9, 7, generator=generator), labels


def test_learns_what_is_plain_and_says_so_with_probabilities():
    judge = train_classifier(batch, steps=60, num_classes=2)
    said = class_probabilities(judge, STRIPES.repeat(3, 1, 1, 1), rows=4)
    torch.testing.assert_close(said.sum(1), torch.ones(6))
    assert said.argmax(1).tolist() == [0, 1] * 3
    assert said.amax(1).min() > 0.9
    assert not judge.training
    assert not any(p.requires_grad for p in judge.parameters())


def test_is_a_function_of_its_seed_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.no_grad():  # evaluating models happens in such a context
        one, again, other = (train_classifier(batch, 3, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    pairs = list(zip(one.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_no_steps():
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        train_classifier(batch, 0)
