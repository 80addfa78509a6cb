"""Images of a user's that no one expects: all alike, very few, very small."""

import pytest
import torch

import pyzoo
from pyzoo.errors import UsageError
from tiny import tiny

OPTIONS = {"steps": 2, "progress": False, "device": "cpu", "engine": "eager"}


def trained(recipe, path, data, **settings):
    small = {name: value for name, value in tiny(recipe).items() if name != "data"}
    return pyzoo.train(recipe, data=data, out=path, **{**small, **OPTIONS, "batch_size": 2, **settings})


@pytest.mark.parametrize("images", [torch.zeros(12, 8, 8), torch.ones(12, 8, 8), torch.rand(12, 1, 1), torch.rand(3, 8, 8)])
def test_images_that_can_not_be_embedded_have_no_such_figure(tmp_path, images):
    run = trained("graph-vae", tmp_path / "run", images, held_out=0.0)
    names = {file.stem for file in run.folder.figures.iterdir()}
    assert "samples" in names
    assert "figure6_embeddings" not in names


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 24, 40])
def test_few_test_images_are_measured(tmp_path, count):
    run = trained("tvae", tmp_path / "run", torch.rand(count, 16, 16))
    assert "rotation_error_degrees" in run.metrics or count < 10


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 10, 30])
def test_few_images_in_environments(tmp_path, count):
    data = (torch.rand(count, 8, 8), torch.arange(count) % 2)
    try:
        run = trained("mib-ood", tmp_path / "run", data, batch_size=4)
    except UsageError as error:
        assert "--held-out" in str(error)  # noqa: PT017
        assert not (tmp_path / "run").exists()
    else:
        assert run.metrics
    trained("mib-ood", tmp_path / "other", data, batch_size=4, held_out=0.0)


def test_a_batch_that_sharpening_can_fill_is_chosen(tmp_path):
    data = (torch.rand(200, 8, 8), torch.arange(200) % 2)
    kind = pyzoo.training.find_recipe("mib-ood")
    path = kind.keep_data(tmp_path, *data)
    recipe = kind.preset(data=str(path)).fitted({"data"})
    recipe.prepare()
    assert recipe.batch_size < recipe.train_size
    with pytest.raises(UsageError, match=r"take a --batch-size of at most \d+, or --no-sharpen"):
        kind.preset(data=str(path), batch_size=recipe.train_size).prepare()


def test_no_name_is_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--data must be a name, a folder or a file"):
        pyzoo.train("graph-vae", data="", **OPTIONS)


def test_a_path_is_never_the_name_of_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no file or folder"):
        pyzoo.train("graph-vae", data=tmp_path / "digits", **OPTIONS)
