"""What one can play with: pictures that follow what one sets."""

import warnings

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pyzoo.errors import UsageError
from pyzoo.infer import evaluating
from pyzoo.recipes.graph_vae.panels import moved
from pyzoo.recipes.images import read_own_image
from pyzoo.training import Choice, Choices, OwnImage, Slider, find_recipe
from tiny import tiny

CPU = torch.device("cpu")
RECIPES = ["compvae-sines", "compvae-colors", "graph-vae", "fc-vae", "tvae", "mib-multimodal", "mib-fair"]
RECIPES += ["monet", "mpp-monet", "genesis", "mpp-genesis"]


def report_of(name):
    recipe = find_recipe(name).preset(None, **tiny(name))
    torch.manual_seed(0)
    pair = recipe.programs().eval()
    return recipe.report(pair, CPU)


@pytest.fixture(scope="module", params=RECIPES)
def report(request):
    return report_of(request.param)


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def first_values(panel):
    return {name: None if isinstance(control, OwnImage) else control.value for name, control in panel.controls.items()}


def others(control, image):
    """Other values of a control: the ends of what it allows."""
    match control:
        case Slider():
            return [control.low, control.high]
        case Choice():
            return [control.options[0], control.options[-1]]
        case Choices():
            return [control.options, control.options[:1]]
        case OwnImage():
            return [image]
    raise AssertionError


def pixels(figure):
    return bytes(FigureCanvasAgg(figure).print_to_buffer()[0])


def test_each_control_changes_its_picture(report, image):
    panels = report.panels()
    assert panels
    with evaluating(torch.nn.ModuleList(report.pair)):
        for panel in panels:
            first = first_values(panel)
            before = pixels(panel.draw(**first))
            assert pixels(panel.draw(**first)) == before
            for name, control in panel.controls.items():
                values = others(control, image)
                assert any(pixels(panel.draw(**{**first, name: value})) != before for value in values), (panel.title, name)


def test_recipes_without_panels_have_none():
    assert not report_of("mib-structure").panels()
    assert not report_of("tvae-vae").panels()


def test_a_node_that_has_not_moved_yet_leaves_the_image_as_it_was_drawn():
    report = report_of("graph-vae")
    with evaluating(torch.nn.ModuleList(report.pair)):
        stays = moved(report, "z_2", 3, 3)
    [axes] = stays.axes
    still, follow = axes.images[0].get_array()[:30], axes.images[0].get_array()[30:]
    assert still.shape == follow.shape
    assert (abs(still - follow) < 1e-5).all()


# A user's image -------------------------------------------------------------------------------------------------------


def test_an_image_becomes_what_the_model_takes(tmp_path):
    dark = torch.zeros(40, 60, dtype=torch.uint8)
    dark[10:30, 20:40] = 255
    Image.fromarray(dark.numpy()).save(tmp_path / "dark.png")
    Image.fromarray((255 - dark).numpy()).save(tmp_path / "bright.png")
    first, second = (read_own_image(tmp_path / f"{name}.png", (1, 20, 20)) for name in ("dark", "bright"))
    assert first.shape == (1, 20, 20)
    assert torch.allclose(first, second, atol=1e-6)
    assert first[0, 10, 10] == 1
    assert first[0, 0, 0] == 0
    assert read_own_image(tmp_path / "dark.png", (3, 8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10_000, 10_000), "the image has 10,000 x 10,000 pixels: take one of at most 5,000 x 5,000"),
        ((30_000, 30_000), "the image is far too large: take one of at most 5,000 x 5,000 pixels"),
        (None, "the file is no image of a kind that is read here, PNG, JPEG, GIF, WEBP, BMP, TIFF, or is damaged"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused(tmp_path, size, message):
    file = tmp_path / "file.png"
    if size is None:
        file.write_text("no image")
    else:
        Image.new("1", size).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError) as refused:
            read_own_image(file, (1, 8, 8))
    assert str(refused.value) == message


def test_a_kind_of_file_that_starts_other_programs_is_not_read(tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "image.eps")
    with pytest.raises(UsageError, match="is no image of a kind that is read here"):
        read_own_image(tmp_path / "image.eps", (1, 8, 8))


def test_dark_ink_on_a_transparent_ground_is_seen(tmp_path):
    ink = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (5, 5, 15, 15))
    ink.save(tmp_path / "ink.png")
    found = read_own_image(tmp_path / "ink.png", (1, 20, 20))
    assert found[0, 10, 10] == 1
    assert found[0, 0, 0] == 0


def test_a_damaged_image_is_refused(tmp_path):
    file = tmp_path / "file.png"
    Image.effect_noise((50, 50), 100).save(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UsageError, match="cannot be read as an image"):
        read_own_image(file, (1, 8, 8))
