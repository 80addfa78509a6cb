import pytest
import torch

from pyzoo.data.street_numbers import street_numbers


def draw(labels, seed=0):
    return street_numbers(labels, torch.Generator().manual_seed(seed))


def test_images_are_repeatable_and_in_range():
    labels = torch.arange(10).repeat(20)
    x = draw(labels)
    assert x.shape == (200, 3, 32, 32)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < 0.05 < 0.95 < x.max() <= 1
    assert torch.equal(x, draw(labels))
    assert not torch.equal(x, draw(labels, seed=1))


def test_digits_stand_off_from_their_background():
    x = draw(torch.full((300,), 8))
    brightness = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    spread = brightness.flatten(1).quantile(0.95, dim=1) - brightness.flatten(1).quantile(0.05, dim=1)
    assert spread.min() > 0.2
    darker = brightness[:, 10:22, 10:22].mean((1, 2)) < brightness[:, :4].mean((1, 2))
    assert 0.2 < darker.float().mean() < 0.8  # dark on bright, and bright on dark


def test_the_middle_digit_can_be_read_and_the_neighbors_do_not_tell():
    """A linear classifier of brightness, whichever way round, reads the middle well above chance."""
    from sklearn.linear_model import LogisticRegression

    labels = torch.arange(10).repeat(300)
    x = draw(labels, seed=2).mean(1)
    x = (x - x.mean((1, 2), keepdim=True)).abs()
    features = torch.nn.functional.avg_pool2d(x.unsqueeze(1), 2).flatten(1).numpy()
    model = LogisticRegression(max_iter=300).fit(features[:2500], labels[:2500])
    assert model.score(features[2500:], labels[2500:]) > 0.5
    edge = torch.cat([x[..., :5], x[..., -5:]], dim=-1).flatten(1).numpy()
    assert LogisticRegression(max_iter=300).fit(edge[:2500], labels[:2500]).score(edge[2500:], labels[2500:]) < 0.3


def test_bad_labels():
    with pytest.raises(ValueError, match="0 to 9, not 3 to 10"):
        draw(torch.tensor([3, 10]))
