"""The page to play with a trained model: what is on it, where it is served, and what it refuses."""

import socket
import sys

import pytest

pytest.importorskip("gradio")

from browser import CHROMIUM, opened
from gradio_client import Client, handle_file
from PIL import Image

import pyzoo
from pyzoo import cli
from pyzoo.errors import UsageError
from pyzoo.explore import HOST, explore, free_port, page
from pyzoo.trained import trained
from pyzoo.training import Run
from tiny import graph, structure


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = Run.create(graph(steps=4, batch_size=8), "digits", path=tmp_path_factory.mktemp("explore") / "run")
    return run.train(progress=False, evaluate=False, figures=False).pack(run.path.parent / "packed")


@pytest.fixture(scope="module")
def served(model):
    said = []
    app = explore(model, browser=False, wait=False, say=said.append)
    yield app, said[0].split()[0]
    app.close()


def test_a_picture_follows_what_is_set(served, tmp_path):
    client = Client(served[1], verbose=False, download_files=str(tmp_path))
    pictures = [client.predict("z_1", 0, end, api_name="/draw")[0] for end in (0, 7)]
    first, second = (Image.open(picture).tobytes() for picture in pictures)
    assert first != second


def test_what_is_no_image_gets_a_message(served, tmp_path):
    client = Client(served[1], verbose=False, download_files=str(tmp_path))
    Image.new("L", (20, 20), 255).save(tmp_path / "fine.png")
    assert client.predict("z_3", handle_file(str(tmp_path / "fine.png")), 0, api_name="/draw_1")[1] == ""
    (tmp_path / "bad.png").write_text("no image")
    said = client.predict("z_3", handle_file(str(tmp_path / "bad.png")), 0, api_name="/draw_1")[1]
    assert said.startswith("**the file is no image of a kind that is read here, PNG,")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    said = client.predict("z_3", handle_file(str(tmp_path / "large.png")), 0, api_name="/draw_1")[1]
    assert said == "**the image has 10,000 x 10,000 pixels: take one of at most 5,000 x 5,000**"


def test_the_page_is_of_this_machine_alone(served):
    assert served[1].startswith(f"http://{HOST}:")
    address = socket.gethostbyname(socket.gethostname())
    port = int(served[1].rpartition(":")[2])
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex((address, port)) != 0


def test_the_next_free_port_is_taken():
    with socket.socket() as used:
        used.bind((HOST, 0))
        used.listen()
        port = used.getsockname()[1]
        assert free_port(port) > port
    with pytest.raises(UsageError, match="--port must be from 1 to 65535"):
        free_port(0)


def test_a_recipe_without_panels_says_so(tmp_path):
    run = Run.create(structure(steps=2), "small", path=tmp_path / "run").train(progress=False, evaluate=False, figures=False)
    with pytest.raises(UsageError, match="mib-structure has nothing to play with on a page"):
        page(run)


def test_without_gradio_the_command_says_how_to_install_it(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["explore", str(model.path)]) == 2
    assert "the page needs gradio, which the extra explore installs: pip install 'gradio>=6'" in capsys.readouterr().err


def test_what_is_no_run_gets_one_line(tmp_path, capsys):
    assert cli.main(["explore", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_picture_follows_the_keyboard_in_a_browser(served, tmp_path):
    picture = "document.querySelector('img[alt=\"Move one node\"]')"
    with opened(served[1], tmp_path) as page:
        shown = page.wait(f"{picture}?.src")
        page.run("document.querySelectorAll('input[type=range]')[1].focus()")
        page.press("ArrowRight")
        page.wait(f"{picture}.src != {shown!r}")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("name", [name for name in trained() if name not in ("mib-ood", "mib-structure")])
def test_each_model_has_a_page_whose_picture_moves(name, tmp_path):
    """Its first slider does, by the keyboard."""
    model, said = pyzoo.load(name), []
    try:
        app = explore(model, browser=False, wait=False, say=said.append)
    except UsageError as error:
        if "PYZOO_DATA" in str(error):
            pytest.skip(str(error))
        raise
    picture = "[...document.querySelectorAll('img[alt]')].find(image => image.offsetParent && image.alt)"
    slider = "[...document.querySelectorAll('input[type=range]')].find(slider => slider.offsetParent)"
    try:
        with opened(said[0].split()[0], tmp_path) as page:
            shown = page.wait(f"{picture}?.src")
            page.wait(f"{slider} != null")
            page.run(f"{slider}.focus()")
            page.press("ArrowRight")
            page.wait(f"{picture}.src != {shown!r}")
    finally:
        app.close()


def test_a_proxy_does_not_hide_the_page(model, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    said = []
    explore(model, browser=False, wait=False, say=said.append).close()
    assert said
