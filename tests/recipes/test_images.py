"""Every recipe of images trains on a user's images, whose shape, classes and split it reads from the files."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from pyzoo.about import entries
from pyzoo.errors import UsageError
from pyzoo.recipes.images import ImageRecipe
from pyzoo.recipes.mib.recipe import MIBRecipe
from tiny import GRAPH, MIB, SLOTS, TVAE, made

CPU = torch.device("cpu")
KINDS = [kind for entry in entries("pyzoo.recipes").values() if issubclass(kind := entry.load(), ImageRecipe)]


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """A folder of 40 color images of 16 x 16 pixels, in subfolders for three classes."""
    folder, generator = tmp_path_factory.mktemp("colors"), np.random.default_rng(0)
    for index in range(40):
        path = folder / ("cat", "dog", "eel")[index % 3] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


def own(kind, data, **changes):
    families = {"pyzoo.recipes.tvae": TVAE, "pyzoo.recipes.slots": {**SLOTS, "attention_channels": (4, 4, 4), "channels": (4, 4)}}
    tiny = next((found for family, found in families.items() if kind.__module__.startswith(family)), GRAPH)
    tiny = MIB if issubclass(kind, MIBRecipe) else tiny
    return made(kind, {**tiny, "batch_size": 6, "data": str(data)}, changes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_recipe_of_images_trains_on_a_folder(colors, kind):
    recipe = own(kind, colors)
    recipe.prepare()
    assert recipe.dataset.shape == (3, 16, 16)
    assert recipe.dataset.classes == ("cat", "dog", "eel")
    tested = min(0.2 * 40, getattr(recipe, "evaluation_scenes", 40))
    assert len(recipe.measured_images()[0]) == pytest.approx(tested, abs=1)
    pair = recipe.programs()
    batch = recipe.source(CPU).batch(0, 6)
    for objective in recipe.objectives(pair):
        loss, _ = objective.module(**batch)
        assert loss.isfinite()
    if kind.name == "monet":  # draws no scenes
        return
    with torch.no_grad():
        drawn = recipe.report(pair.eval(), CPU).sample(2, seed=0)["x"]
    assert drawn.shape == (2, 2 if kind.name == "mib-ood" else 3, 16, 16)  # red and green


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_images_without_labels(tmp_path, kind):
    """Two views need labels; one view does without, and what needs them is not measured."""
    np.save(tmp_path / "plain.npy", np.random.default_rng(0).integers(0, 256, (30, 16, 16), dtype=np.uint8))
    recipe = own(kind, tmp_path / "plain.npy", test_share=0.5)
    if hasattr(recipe, "second_view") or kind.name == "mib-ood":
        with pytest.raises(UsageError, match="label"):
            recipe.prepare()
        return
    recipe.prepare()
    pair = recipe.programs().eval()
    with torch.no_grad():
        found = recipe.report(pair, CPU).metrics()
    assert all(math.isfinite(value) for value in found.values())
    assert not [name for name in found if "knn" in name or "judge" in name]


def test_one_class_is_too_few_for_two_views(tmp_path):
    kind = next(kind for kind in KINDS if kind.name == "mib-multimodal")
    np.savez(tmp_path / "one.npz", images=np.zeros((30, 16, 16), np.uint8), labels=np.zeros(30, int))
    with pytest.raises(UsageError, match="images of at least two classes"):
        own(kind, tmp_path / "one.npz").prepare()
    own(next(kind for kind in KINDS if kind.name == "mib-vae"), tmp_path / "one.npz").prepare()


def test_images_that_do_not_fit_the_networks_say_which_do(tmp_path):
    np.save(tmp_path / "odd.npy", np.zeros((30, 18, 18), np.uint8))
    kind = next(kind for kind in KINDS if kind.name == "tvae")
    with pytest.raises(UsageError, match="a multiple of 4 and at least 16; set --image-size"):
        own(kind, tmp_path / "odd.npy").prepare()
    recipe = own(kind, tmp_path / "odd.npy", image_size=20)
    recipe.prepare()
    assert recipe.programs().model.likelihoods(torch.zeros(1, 4))[0].mean.shape == (1, 1, 20, 20)
