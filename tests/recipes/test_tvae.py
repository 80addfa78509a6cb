import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

from pyzoo.data.affnist import fit_to_28
from pyzoo.data.images import load_images
from pyzoo.data.transformations import FAMILIES
from pyzoo.errors import UsageError
from pyzoo.guides.tvae import TVAEGuide
from pyzoo.models.tvae import TVAE, Additive, Matrix
from pyzoo.recipes.tvae import report as tvae_report
from pyzoo.recipes.tvae.figures import few_labels, loss_over_training, moved_by
from pyzoo.recipes.tvae.recipe import PlainVAE, TVAERecipe, VAEPlus
from pyzoo.recipes.tvae.report import embed, infer_transformation, rotation_error
from pyzoo.recipes.tvae.tables import TVAEFigure2, TVAETable1
from pyzoo.settings import flat
from pyzoo.training import Pair
from tiny import blank, trained_state, trainer_of, tvae

CPU = torch.device("cpu")
KINDS = [TVAERecipe, PlainVAE, VAEPlus]


def parts(recipe):
    """Pair, objective, and its only schedule."""
    pair = recipe.programs()
    (objective,) = recipe.objectives(pair)
    (schedule,) = objective.schedules
    return pair, objective, schedule


@pytest.fixture
def few_samples(monkeypatch):
    """Likelihoods by three samples, and rotations of as few images."""
    monkeypatch.setattr(tvae_report.TVAEReport, "num_sources", 3)
    monkeypatch.setattr(tvae_report.TVAEReport, "num_targets", 3)
    whole = tvae_report.mean_log_likelihood
    monkeypatch.setattr(tvae_report, "mean_log_likelihood", lambda model, guide, batch, *a, **k: whole(model, guide, batch, 3))


def metrics(recipe, pair, full=False):
    return recipe.report(pair.eval(), CPU).metrics(full)


def test_the_papers_preset_is_the_papers_setting(images_are):
    images_are(blank(60_000))
    recipe = TVAERecipe.preset("paper")
    assert (recipe.batch_size, recipe.learning_rate, recipe.epoch(recipe.steps)) == (100, 1e-4, 200)
    networks = recipe.networks
    assert (networks.latent_map, networks.encoder_channels, networks.hidden_dim) == ("additive", (32, 32, 64, 128), 1000)
    _, objective, schedule = parts(recipe)
    scheduler = objective.scheduler(objective.optimizer(objective.groups))
    assert (scheduler.step_size, scheduler.gamma) == (50 * 600, 0.5)
    assert schedule.value(0) == 1.0


def test_settings_reach_the_model():
    weights = {"coherence_weight": 7.0, "prior_weight": 3.0, "transformation_weight": 2.0}
    recipe = tvae(coherence="conditional", **weights, latent_map="matrix", warmup_steps=10)
    (model, _), _, schedule = parts(recipe)
    assert (model.coherence, model.coherence_weight, model.prior_weight) == ("conditional", 7.0, 3.0)
    assert model.transformation_weight == 2.0
    assert isinstance(model.latent_map, Matrix)
    assert schedule.column == "kl_weight_z_0"
    assert [schedule.value(step) for step in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_rows_share_all_settings_and_networks(images_are, preset):
    images_are(blank(100))
    recipes = [kind.preset(preset) for kind in KINDS]
    pairs = [recipe.programs() for recipe in recipes]
    own = {"small": {"learning_rate"}, "paper": set()}[preset]
    common = set.intersection(*(set(flat(recipe)) for recipe in recipes)) - own
    shared = [{name: value for name, value in flat(recipe).items() if name in common} for recipe in recipes]
    assert shared[0] == shared[1] == shared[2]
    assert {"z_dim", "encoder_channels", "batch_size", "steps", "schedule"} <= common
    for part in (lambda pair: pair.model.decoder, lambda pair: pair.guide.encoder):
        shapes = [[p.shape for p in part(pair).parameters()] for pair in pairs]
        assert shapes[0] == shapes[1] == shapes[2]
    assert pairs[0].model.latent_map is not None
    assert pairs[1].model.latent_map is pairs[2].model.latent_map is None


def test_one_row_of_the_tables_has_a_rate_of_its_own_and_the_papers_rows_have_the_papers():
    def rates(table):
        return {row.label: table.recipe(row, 0).learning_rate for row in table.rows()}

    small = rates(TVAETable1())
    assert small.pop("VAE plus, z 10, mnist") == 3e-3
    assert all(rate == (3e-3 if label.startswith("T-VAE") else 1e-3) for label, rate in small.items())
    assert set(rates(TVAETable1(preset="paper")).values()) == {1e-4}
    shared = rates(TVAEFigure2(data=("mnist",), z_dims=(10,)))  # tables share their runs
    assert shared == {label: rate for label, rate in rates(TVAETable1()).items() if label in shared}


def test_baselines_have_no_settings_that_mean_nothing_to_them():
    ours = set(flat(TVAERecipe()))
    of_transformations = {"latent_map", "coherence", "coherence_weight", "prior_weight", "transformation_weight", "hidden_dim"}
    of_transformations |= {"num_views", "inverse_views"}
    assert ours - set(flat(VAEPlus())) == of_transformations
    assert ours - set(flat(PlainVAE())) == of_transformations | {"family"}


def test_sources():
    views = tvae().source(CPU).batch(3, 20)
    assert set(views) == {"x", "views"}
    plain, augmented = (tvae(kind).source(CPU).batch(3, 20) for kind in (PlainVAE, VAEPlus))
    assert torch.equal(plain["x"], views["x"])  # the same images in the same order
    same = (torch.cat([views["x"].unsqueeze(1), views["views"]], 1) == augmented["x"].unsqueeze(1)).flatten(2).all(-1)
    assert same.any(1).all()
    assert same[:, 1:].any()
    drawn = tvae(binarize="dynamic").source(CPU).batch(3, 20)
    assert set(drawn["views"].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "inverse"),
    [({}, True), ({"family": "crop"}, False), ({"family": "superpixels"}, False), ({"num_views": 3}, False)],
)
def test_other_families_and_numbers_of_views_train(tmp_path, few_samples, changes, inverse):
    recipe = tvae(steps=3, affnist="none", **changes)
    assert recipe.inverse_views == inverse
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.train()
    pair = trainer.pair
    assert pair.model.num_views == recipe.num_views
    assert pair.model.inverse_views == inverse
    assert ("rotation_error_degrees" in metrics(recipe, pair)) == (recipe.num_views == 2)
    names = {name for name, _ in trainer.report.figures([{"step": 3, "x": 1.0, "z_0": 1.0}])}
    assert ("figure3_transfer" in names) == (recipe.num_views == 2)
    assert moved_by(pair) == (("T", "its inverse") if inverse else ("first T", "second T"))


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("kind", [TVAERecipe, VAEPlus])
def test_resume_is_exact_and_engines_agree(tmp_path, kind, engine):
    recipe = tvae(kind, steps=8, warmup_steps=6)

    whole = trained_state(recipe, tmp_path / "whole", "eager")
    trained_state(dataclasses.replace(recipe, steps=5), tmp_path / "parts", engine)
    for name, value in trained_state(recipe, tmp_path / "parts", engine).items():
        assert torch.equal(value, whole[name]), name


def test_evaluating_moves_nothing_and_repeats(monkeypatch, few_samples):
    monkeypatch.setattr(tvae_report, "LABELS", (10,))
    recipe = tvae()
    pair, objective, _ = parts(recipe)
    before = {name: value.clone() for name, value in objective.module.state_dict().items()}
    torch.manual_seed(5)
    first = metrics(recipe, pair)
    torch.manual_seed(5)
    assert metrics(recipe, pair) == first
    assert all(torch.equal(before[name], value) for name, value in objective.module.state_dict().items())


def test_validation_images_are_kept_from_training(few_samples):
    recipe = tvae(validation=True)
    train, labels = load_images("digits", "train")
    held_out = len(train) // 6
    assert len(recipe.source(CPU).source.images) == recipe.train_size == len(train) - held_out
    assert torch.equal(recipe.measured_images()[1], labels[-held_out:])
    names = metrics(recipe, recipe.programs()).keys()
    assert {"validation_elbo", "validation_log_likelihood", "knn_affnist"} <= names
    assert not [name for name in names if name.startswith("test")]


def test_full_evaluation_keeps_the_quick_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        tvae_report,
        "mean_log_likelihood",
        lambda model, guide, batch, samples, max_rows: asked.append((len(batch["x"]), samples)) or 0.0,
    )
    recipe = tvae(affnist="none")
    found = metrics(recipe, recipe.programs(), full=True)
    assert {"test_log_likelihood", "test_log_likelihood_full"} <= found.keys()
    assert asked == [(360, 200), (360, 1000)]
    assert not [name for name in found if name.startswith("knn_affnist")]


class Pixels(nn.Module):
    """An encoder whose latent is the image."""

    def forward(self, x):
        return torch.cat([x.flatten(1), torch.full_like(x.flatten(1), -50.0)], dim=1)


class Logits(nn.Module):
    """A decoder whose mean is the latent."""

    def forward(self, z):
        return z.view(-1, 1, 28, 28).clamp(1e-4, 1 - 1e-4).logit()


class TurnedDifference(nn.Module):
    """h_xi that knows the answer for one target: the difference between the turned and the still image."""

    def __init__(self, target, angles):
        super().__init__()
        self.rotation, self.target, self.angles = FAMILIES["rotation"], target, iter(angles)

    def forward(self, together):
        moved = []
        for _ in together:
            matrices = self.rotation.matrices(torch.tensor([next(self.angles)]))
            moved.append((self.rotation.apply(self.target, matrices) - self.target).flatten())
        return torch.stack(moved)


@pytest.mark.parametrize(
    ("turned_by", "error"), [(lambda angle: angle, 0.0), (lambda angle: angle + 3, 3.0), (lambda angle: 0.0, 12.5)]
)
def test_rotation_error_is_that_of_a_known_transfer(turned_by, error):
    target = _digit()
    angles = [turned_by(angle) for angle in (-20.0, -15.0, -10.0, -5.0, 5.0, 10.0, 15.0, 20.0) for _ in range(2)]
    model = TVAE(Logits(), 784, Additive())
    guide = TVAEGuide(Pixels(), nn.Identity(), TurnedDifference(target, angles))
    sources = torch.rand(2, 1, 28, 28)
    assert rotation_error(Pair(model, guide), sources, target) == pytest.approx(error, abs=0.3)


class Equivariant(nn.Module):
    """An encoder to where the ink is, turned about the image's center as the image is, and on to a decoder of a blob there."""

    def forward(self, x):
        place = torch.linspace(-1, 1, 28)
        total = x.sum((1, 2, 3))
        center = torch.stack([(x.sum((1, 2)) * place).sum(-1) / total, (x.sum((1, 3)) * place).sum(-1) / total], dim=-1)
        return torch.cat([center, torch.full_like(center, -50.0)], dim=-1)


class Blob(nn.Module):
    def forward(self, z):
        place = torch.linspace(-1, 1, 28)
        distance = (place - z[:, :1]).square().unsqueeze(1) + (place - z[:, 1:]).square().unsqueeze(2)
        return (-distance / 0.01).exp().clamp(1e-4, 1 - 1e-4).logit().unsqueeze(1)


def test_rotation_error_of_a_vae_whose_latents_turn_with_the_image(monkeypatch):
    """A blob right of the center: half the difference of its places when turned either way is a step up or down."""
    blob = torch.sigmoid(Blob()(torch.tensor([[0.5, 0.0]])))
    pair = Pair(TVAE(Blob(), 2), TVAEGuide(Equivariant()))
    assert rotation_error(pair, blob, blob) < 1.5
    monkeypatch.setattr(tvae_report, "infer_transformation", lambda *arguments: -infer_transformation(*arguments))
    assert rotation_error(pair, blob, blob) > 20


def _digit():
    """A digit well inside the image, (1, 1, 28, 28), from 0 to 1."""
    image = load_images("digits", "test")[0][3:4].float() / 255
    return nn.functional.pad(nn.functional.interpolate(image, size=(18, 18), mode="bilinear"), (5,) * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind):
    recipe = tvae(kind)
    report = recipe.report(recipe.programs().eval(), CPU)
    samples = report.sample(5, seed=0)
    assert samples["x"].shape == samples["mean"].shape == (5, 1, 28, 28)
    assert report.picture(samples).axes
    with pytest.raises(UsageError, match="nothing 'T' to condition on"):
        report.sample(5, seed=0, given={"T": 1})


def test_figure_of_few_labels():
    runs = [{f"knn_affnist_{count}_labels": value, f"knn_affnist_{count}_labels_spread": 1.0} for count, value in ((10, 30.0),)]
    [axes] = few_labels({"VAE": runs, "T-VAE": [{**runs[0], "knn_affnist_10_labels": 40.0}] * 2}, "title").axes
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[30.0], [40.0]]


def test_affnists_files_are_looked_at_before_training(tmp_path):
    def write(split, labels):
        path = tmp_path / "affNIST" / split / "1.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((1600, len(labels)), np.uint8)
        savemat(path, {"affNISTdata": {"image": pixels, "label_int": np.array(labels)}})

    recipe = tvae(affnist="files", data_dir=tmp_path)
    with pytest.raises(UsageError, match="was not found"):
        recipe.prepare()
    write("training_and_validation_batches", [0, 1, 2, 3])
    write("test_batches", [0, 1, 7])
    with pytest.raises(UsageError, match="--neighbors must be at most 4"):
        recipe.prepare()
    with pytest.raises(UsageError, match=r"no training image of the digits \[7\]"):
        dataclasses.replace(recipe, neighbors=2).prepare()
    write("test_batches", [0, 1, 3])
    dataclasses.replace(recipe, neighbors=2).prepare()


def test_embeddings_are_classified_by_the_training_images(monkeypatch):
    """What is given to the classifier: training images first; affNIST once whole and once its middle."""
    asked = []
    monkeypatch.setattr(tvae_report, "knn_accuracy", lambda a, la, b, lb, k: asked.append((a, la, b, lb)) or 0.5)
    monkeypatch.setattr(tvae_report, "mean_log_likelihood", lambda *arguments, **settings: 0.0)
    monkeypatch.setattr(tvae_report, "LABELS", ())
    monkeypatch.setattr(tvae_report, "embed", lambda guide, images, device: images.flatten(1).float())
    for validation, held_out in ((False, 1 / 6), (True, 1 / 6), (True, 0.05)):
        recipe = tvae(validation=validation, held_out=held_out)
        asked.clear()
        metrics(recipe, recipe.programs())
        (train, test), affnist = (recipe.training_images(), recipe.measured_images()), recipe.affnist_images()
        expected = [(train[0], test[0]), *[[fit_to_28(part[0], how) for part in affnist] for how in ("resize", "crop")]]
        for (a, _, b, _), (wanted_a, wanted_b) in zip(asked, expected, strict=True):
            assert torch.equal(a, wanted_a.flatten(1).float())
            assert torch.equal(b, wanted_b.flatten(1).float())
        # Those that are measured are made of no image that is trained on.
        assert len(affnist[0][1]) == (recipe.train_size if validation else 1437)


def test_every_logged_term_is_drawn():
    recipe = tvae(transformation_weight=2.0)
    _, objective, _ = parts(recipe)
    _, terms = objective.module(**recipe.source(CPU).batch(0, 10))
    history = [{"step": step, **{name: value.item() for name, value in terms.items()}} for step in (1, 2)]
    figure = loss_over_training(history)
    named = [line for axes in figure.axes for line in axes.lines if not line.get_label().startswith("_")]
    assert len(named) == len(terms)


def test_embeddings_are_of_bytes():
    with pytest.raises(ValueError, match="are uint8, not"):
        embed(tvae().programs().guide, torch.rand(2, 1, 28, 28), CPU)


def test_notes_say_what_the_numbers_are_of(images_are):
    assert "stand-in" in tvae().note
    images_are(blank(100))
    assert "made from MNIST" in TVAERecipe.preset("small").note
    assert "cross-entropy" in TVAERecipe.preset("small").note
    assert "cross-entropy" not in tvae(binarize="dynamic").note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nonesuch"}, "nonesuch"),
        ({"neighbors": 1438}, "--neighbors must be at most 1437"),
        ({"validation": True, "neighbors": 1300}, "--neighbors must be at most 1198"),
        ({"family": "flip"}, "--family must be one of affine"),
        ({"latent_map": "shift"}, "--latent-map"),
        ({"coherence": "paired"}, "--coherence"),
        ({"affnist": "svhn"}, "--affnist"),
        ({"z_dim": 0}, "--z-dim must be at least 1"),
        ({"num_views": 0}, "--num-views"),
        ({"neighbors": 0}, "--neighbors"),
        ({"encoder_channels": (4, 4)}, "--encoder-channels must be 4 values"),
        ({"prior_weight": -1.0}, "--prior-weight"),
        ({"transformation_weight": -1.0}, "--transformation-weight"),
        ({"warmup_steps": -1}, "--warmup-steps"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"batch_size": 1438}, "--batch-size must be at most 1437"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        tvae(**changes).prepare()
