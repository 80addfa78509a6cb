"""A page on this machine to play with a trained model, by gradio: what ``pyzoo explore`` opens."""

import io
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyzoo.errors import UsageError, one_line
from pyzoo.training import Choice, Choices, OwnImage, Panel, Slider, TrainedModel

if TYPE_CHECKING:
    import gradio
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["explore", "page"]

HOST = "127.0.0.1"
"""Who can open the page: this machine alone."""

LARGEST_UPLOAD = "10mb"
"""Of an image's file."""

_PORTS = 100
"""Ports that are tried, from the first one on."""

_KEPT = 3600
"""Seconds for which gradio keeps uploads and pictures."""


def explore(
    model: TrainedModel,
    port: int = 7860,
    browser: bool = True,
    wait: bool = True,
    say: Callable[[str], None] = print,
) -> "gradio.Blocks":
    """Serves a page to play with a trained model.

    Args:
        model: a run or a trained model.
        port: where to serve it; where that is taken, the next free one.
        browser: open the page in the browser.
        wait: return when the page is closed, by Ctrl-C; otherwise at once, and ``close()`` of what is returned ends it.
        say: what to do with the line that names the page.

    Raises:
        UsageError: gradio is not installed, the recipe has nothing to play with, or no port is free.
    """
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), HOST)))
    app = page(model)
    port = free_port(port)
    say(f"http://{HOST}:{port} shows {model.path.name}; Ctrl-C ends it")
    try:
        app.launch(
            server_name=HOST,
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            max_file_size=LARGEST_UPLOAD,
            prevent_thread_lock=not wait,
            ssr_mode=False,
            footer_links=[],
            theme=_theme(),
        )
    except (OSError, ValueError, RuntimeError) as error:  # another process may have taken the port meanwhile
        raise UsageError(f"the page cannot be served at http://{HOST}:{port}: {one_line(error)}") from error
    return app


def page(model: TrainedModel) -> "gradio.Blocks":
    """The page, which is not served yet: a tab for each of the model's panels."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing of a user's leaves the machine; read when gradio is imported
    try:
        import gradio
    except ImportError as error:
        raise UsageError("the page needs gradio, which the extra explore installs: pip install 'gradio>=6'") from error
    panels = model.panels()
    if not panels:
        raise UsageError(f"{model.config['recipe']} has nothing to play with on a page; 'pyzoo figures' draws its figures")
    name = model.path.name
    with gradio.Blocks(analytics_enabled=False, title=f"pyzoo: {name}", delete_cache=(_KEPT, _KEPT)) as app:
        gradio.Markdown(f"# {name}\n\n{model.about} (*{model.recipe.about.paper}*)")
        for panel in panels:
            with gradio.Tab(panel.title):
                _add(gradio, panel)
    return app


def free_port(first: int) -> int:
    """The first port from one on that nobody listens at.

    Raises:
        UsageError: there is none near it.
    """
    if not 1 <= first <= 65535:
        raise UsageError(f"--port must be from 1 to 65535, got {first}")
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UsageError(f"--port: none of the ports from {first} on is free")


def _add(gradio: Any, panel: Panel) -> None:
    """Puts a panel's controls and its picture on the page; the picture follows them."""
    gradio.Markdown(panel.text)
    picture, message = _drawn(panel, [_first_value(control) for control in panel.controls.values()])
    with gradio.Row():
        if panel.controls:
            with gradio.Column(scale=1):
                controls = [_component(gradio, control) for control in panel.controls.values()]
        else:
            controls = []
        with gradio.Column(scale=3):
            shown = gradio.Image(
                picture, type="pil", format="png", show_label=False, interactive=False, buttons=["download"], alt_text=panel.title
            )
            said = gradio.Markdown(message)

    def draw(*values: Any) -> tuple[Any, str]:
        drawn, why = _drawn(panel, values)
        return (gradio.skip() if drawn is None else drawn), why

    if controls:
        gradio.on(
            [component.change for component in controls],
            draw,
            controls,
            [shown, said],
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_limit=1,
            concurrency_id="pictures",
        )


def _component(gradio: Any, control: Any) -> Any:
    """What one sets, as gradio has it."""
    match control:
        case Slider(label, low, high, value, step):
            return gradio.Slider(low, high, value, step=step, label=label)
        case Choice(label, options, value):
            return gradio.Radio(list(options), value=value, label=label)
        case Choices(label, options, value):
            return gradio.CheckboxGroup(list(options), value=list(value), label=label)
        case OwnImage(label):
            return gradio.File(label=label, file_types=["image"], height=120)
    raise TypeError(f"There is no component for {control!r}.")


def _first_value(control: Any) -> Any:
    return None if isinstance(control, OwnImage) else control.value


def _drawn(panel: Panel, values: Any) -> "tuple[Image | None, str]":
    """The picture of a panel's controls, or None and what is wrong with them."""
    try:
        return _pixels(panel.draw(**dict(zip(panel.controls, values, strict=True)))), ""
    except UsageError as error:
        return None, f"**{one_line(error)}**"


def _pixels(figure: "Figure") -> "Image":
    from PIL import Image

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return Image.open(content).convert("RGB")


def _theme() -> Any:
    import gradio

    fonts = ["system-ui", "sans-serif"]  # no font is fetched from elsewhere
    return gradio.themes.Soft(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
