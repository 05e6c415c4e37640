"""The page: its parts, and which function of `zss_d2.web.labelling` answers which of them."""

from __future__ import annotations

import functools
import html
import logging
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from PIL import Image

from zss_d2.errors import ZssError
from zss_d2.web import labelling
from zss_d2.web.examples import Example
from zss_d2.web.labelling import Entries, Labelled
from zss_d2.web.models import Models

P = ParamSpec("P")
X = TypeVar("X")
logger = logging.getLogger(__name__)

# Fonts that machines have, so that none is asked for.
_FONTS = ("system-ui", "sans-serif")
THEME = gr.themes.Default(font=_FONTS, font_mono=("ui-monospace", "monospace"))
CSS = """
#legend table, #legend tr, #legend td, #legend th { border: none; }
#legend td, #legend th { padding: 2px 16px 2px 0; text-align: left; }
#legend td:last-child, #legend th:last-child { text-align: right; }
#legend .swatch { display: block; width: 1.2em; height: 1.2em; border: 1px solid #8888; }
"""
# Gradio's pictures have a button that sends them to another host.
_PICTURE = {"interactive": False, "format": "png", "buttons": ["download", "fullscreen"]}
# Visitors who wait for the network; more are asked to come back.
MOST_WAITING = 20
# Images that are decoded for previews at a time, each of up to --max-megapixels.
_PREVIEWS_AT_ONCE = 2
_NO_HEAT = "The scores were too many to keep; give a smaller image, or fewer words"
# How long a message stays, unless it is closed.
_MESSAGE_S = 30
# Files of visitors are removed so long after they were made; looked for as often.
_FILES_KEPT_S = 60 * 60
_CLEAN_EVERY_S = 10 * 60
# Visitors whose results are remembered, some MiB each.
_MOST_VISITORS = 100


def build(
    models: Models, examples: Sequence[Example], folder: Path, most_megapixels: float
) -> gr.Blocks:
    """The page.

    Args:
        models: that it offers.
        examples: images in ``folder``.
        folder: where files for downloads are written, each in a folder that nobody guesses.
        most_megapixels: of an uploaded image.
    """
    most_pixels = round(most_megapixels * 1e6)
    with gr.Blocks(
        title="zss_d2: label an image with words",
        analytics_enabled=False,
        delete_cache=(_CLEAN_EVERY_S, _FILES_KEPT_S),
    ) as page:
        labelled = gr.State(delete_callback=_forget)
        gr.Markdown("## Label an image with your own words")
        with gr.Row():
            with gr.Column():
                upload = gr.File(
                    label="Image",
                    file_types=["image"],
                    elem_id="upload",
                    height=140,
                )
                preview = gr.Image(label="Preview", visible=False, height=220, **_PICTURE)
                gallery = gr.Dataset(
                    label="Examples",
                    components=[gr.Image(visible=False, render=False)],
                    samples=[[str(example.image)] for example in examples],
                    type="index",
                    elem_id="examples",
                )
                words = gr.Textbox(
                    label="Words",
                    value="",
                    info="One class per line; a|b: two wordings of one class; # begins a comment",
                    lines=4,
                    max_lines=12,
                    elem_id="words",
                )
                background = gr.Textbox(
                    label="Background words",
                    value="",
                    info="They compete, and come out as one class, background",
                    lines=2,
                    elem_id="background",
                )
                with gr.Accordion("More", open=len(models.names) > 1, elem_id="more"):
                    model = gr.Dropdown(models.names, label="Model", elem_id="model")
                    unknown = gr.Slider(
                        0,
                        1,
                        step=0.01,
                        label="Unknown below",
                        info="Pixels whose best score is lower are labelled unknown",
                        elem_id="unknown",
                    )
                    seen_bias = gr.Textbox(
                        label="Seen bias",
                        value="",
                        info="Taken from the scores of classes the model was trained with, -1 to "
                        "1; empty: as the model has it",
                        elem_id="seen-bias",
                    )
                button = gr.Button("Label", variant="primary", elem_id="label")
            with gr.Column():
                overlay = gr.Image(label="Labels", elem_id="overlay", **_PICTURE)
                opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Opacity", elem_id="opacity")
                # Not gr.HTML, which needs scripts that are made from text.
                legend = gr.Markdown(sanitize_html=False, latex_delimiters=[], elem_id="legend")
                with gr.Row():
                    download_labels = gr.DownloadButton(
                        "Labels (PNG)", interactive=False, elem_id="download-labels"
                    )
                    download_coco = gr.DownloadButton(
                        "COCO (JSON)", interactive=False, elem_id="download-coco"
                    )
                with gr.Accordion("Heat map of a word", open=False, elem_id="heat"):
                    word = gr.Dropdown([], label="Word", elem_id="heat-word")
                    heat_map = gr.Image(
                        label="Score, 0 dark to 1 bright", elem_id="heat-map", **_PICTURE
                    )

        @_told
        def show_preview(file: str | None) -> dict[str, Any]:
            if file is None:
                return gr.update(value=None, visible=False)
            image = labelling.read_upload(Path(file), most_pixels)
            return gr.update(value=labelling.preview(image), visible=True)

        @_told
        def choose_example(index: int) -> tuple[str, str]:
            return str(examples[index].image), examples[index].words

        @_told
        def label(
            before: Labelled | None,
            file: str | None,
            words: str,
            background: str,
            model: str,
            unknown_below: float,
            seen_bias: str,
            opacity: float,
        ) -> tuple[Any, ...]:
            entries = Entries(
                Path(file) if file else None,
                words,
                background,
                unknown_below,
                labelling.read_bias(seen_bias),
            )
            with models.use(model) as predictor:
                new = labelling.label(
                    predictor, entries, most_pixels, folder / secrets.token_urlsafe()
                )
            _forget(before)
            return (
                new,
                new.overlay(opacity),
                labelling.legend_html(new.legend),
                gr.update(value=new.labels_file, interactive=True),
                gr.update(value=new.coco_file, interactive=True),
                gr.update(choices=[*new.heat], value=None, info=None if new.heat else _NO_HEAT),
                None,
            )

        @_told
        def repaint(labelled: Labelled | None, opacity: float) -> Image.Image | None:
            return labelled and labelled.overlay(opacity)

        @_told
        def show_heat(labelled: Labelled | None, word: str | None) -> Image.Image | None:
            return labelled.heat_map(word) if labelled and word else None

        # Only `label` runs the network.
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        gallery.click(choose_example, gallery, [upload, words], **quiet)
        upload.change(
            show_preview,
            upload,
            preview,
            concurrency_id="previews",
            concurrency_limit=_PREVIEWS_AT_ONCE,
            **quiet,
        )
        button.click(
            label,
            [labelled, upload, words, background, model, unknown, seen_bias, opacity],
            [labelled, overlay, legend, download_labels, download_coco, word, heat_map],
            concurrency_id="network",
            concurrency_limit=1,
            show_progress_on=overlay,
            api_visibility="private",
        )
        opacity.change(
            repaint,
            [labelled, opacity],
            overlay,
            trigger_mode="always_last",
            concurrency_limit=None,
            **quiet,
        )
        word.change(show_heat, [labelled, word], heat_map, concurrency_limit=None, **quiet)
    page.queue(max_size=MOST_WAITING)
    page.state_session_capacity = _MOST_VISITORS
    return page


def _told(function: Callable[P, X]) -> Callable[P, X]:
    """Make a function of the page end with a message on it; what is our fault is logged."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> X:
        try:
            return function(*args, **kwargs)
        except ZssError as error:
            message = str(error)
        except Exception:
            logger.exception("%s failed", function.__name__)
            message = "This went wrong here, not with you; the terminal of zss web says why."
        raise gr.Error(html.escape(message), duration=_MESSAGE_S, print_exception=False)

    return run


def _forget(labelled: Labelled | None) -> None:
    """Remove the files of a result that nobody can see any more."""
    if labelled is not None:
        shutil.rmtree(labelled.labels_file.parent, ignore_errors=True)
