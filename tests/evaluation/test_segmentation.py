"""Segmentation: scikit-learn's index and a covering by brute force, on random masks, and bad input."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pyzoo.evaluation import foreground_ari, mean_segmentation_covering, segments_of


def segmentations(seed, images=6, side=9, slots=5, pieces=3):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(slots, (images, side, side), generator=generator),
        torch.randint(pieces + 1, (images, side, side), generator=generator),
    )


def covering(predicted, target):
    """By brute force, for one image."""
    best = []
    for piece in np.unique(target[target > 0]):
        overlaps = [
            np.sum((predicted == slot) & (target == piece)) / np.sum((predicted == slot) | (target == piece))
            for slot in np.unique(predicted)
        ]
        best.append(max(overlaps))
    return np.mean(best)


@pytest.mark.parametrize("seed", range(5))
def test_agree_with_scikit_learn_and_brute_force(seed):
    predicted, target = segmentations(seed, slots=1 + seed, pieces=1 + seed % 3)
    ari, msc = foreground_ari(predicted, target), mean_segmentation_covering(predicted, target)
    for index, (one, other) in enumerate(zip(predicted.numpy(), target.numpy(), strict=True)):
        there = other > 0
        assert ari[index].item() == pytest.approx(adjusted_rand_score(other[there], one[there]), abs=1e-12)
        assert msc[index].item() == pytest.approx(covering(one, other), abs=1e-12)


@pytest.mark.parametrize("metric", [foreground_ari, mean_segmentation_covering])
def test_the_order_of_segments_and_pieces_does_not_matter(metric):
    predicted, target = segmentations(0)
    renamed = torch.tensor([10**12, 7, -3, 2, 0])[predicted]
    torch.testing.assert_close(metric(renamed, torch.tensor([0, 3, 1, 2])[target]), metric(predicted, target))
    torch.testing.assert_close(metric(predicted.to(torch.uint8), target.short()), metric(predicted, target))


def test_a_perfect_segmentation_scores_one():
    _, target = segmentations(1)
    assert foreground_ari(target, target).tolist() == [1.0] * 6
    assert mean_segmentation_covering(target, target).tolist() == [1.0] * 6
    merged = torch.where(target == 0, 1, target)  # the background goes to a piece's slot
    assert foreground_ari(merged, target).tolist() == [1.0] * 6
    assert (mean_segmentation_covering(merged, target) < 1).all()


def test_chance_scores_zero():
    generator = torch.Generator().manual_seed(0)
    predicted, target = (torch.randint(4, (200, 20, 20), generator=generator) for _ in range(2))
    assert foreground_ari(predicted, target).mean().abs() < 0.002


def test_an_image_without_pieces_has_no_score():
    target = torch.zeros(2, 3, 3, dtype=torch.long)
    target[0, 0] = 1
    for metric in (foreground_ari, mean_segmentation_covering):
        assert metric(torch.zeros_like(target), target).isnan().tolist() == [False, True]


def test_bad_input():
    predicted, target = segmentations(0)
    with pytest.raises(ValueError, match="predicted must be"):
        foreground_ari(predicted[:, :4], target)
    with pytest.raises(ValueError, match="target must be integers"):
        foreground_ari(predicted, target.float())
    with pytest.raises(ValueError, match="target must not be negative"):
        mean_segmentation_covering(predicted, target - 1)
    masks = torch.rand(2, 3, 4, 4).softmax(1)
    assert segments_of(masks).shape == (2, 4, 4)
    for half in (torch.bfloat16, torch.float16):
        assert segments_of(torch.randn(50, 3, 16, 16).softmax(1).to(half)).shape == (50, 16, 16)
    for bad in (0.9 * masks, masks.argmax(1), masks.int()):
        with pytest.raises(ValueError, match="masks must"):
            segments_of(bad)
