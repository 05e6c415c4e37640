"""The path manager shared by everything in this package."""

from iopath.common import file_io
from iopath.common.file_io import PathHandler as PathHandler

PathManager = file_io.PathManager()
PathManager.register_handler(file_io.HTTPURLHandler())
