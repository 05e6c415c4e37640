"""What goes to the screen, and what only into the file."""

import io
import logging

import pytest

from zss_d2.engine.processes.logs import file_only


@pytest.mark.parametrize("kind", [logging.FileHandler, logging.StreamHandler])
def test_only_files_get_ordinary_messages(tmp_path, kind):
    """Upstream writes its log.txt by a plain StreamHandler, the stand-in by a FileHandler."""
    path, screen = tmp_path / "log.txt", io.StringIO()
    stream = path if kind is logging.FileHandler else path.open("w")
    handlers = [logging.StreamHandler(screen), kind(stream)]
    logger = logging.getLogger("detectron2")
    before, logger.handlers = logger.handlers, handlers
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with file_only():
            logger.info("Environment info")
            logger.warning("odd")
        logger.info("later")
    finally:
        logger.handlers = before
        logger.setLevel(level)
        handlers[1].close()
        if kind is logging.StreamHandler:
            stream.close()
    assert screen.getvalue().split() == ["odd", "later"]
    assert path.read_text() == "Environment info\nodd\nlater\n"
