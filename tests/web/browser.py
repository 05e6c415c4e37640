"""A headless Chromium, and what visitors do on the page."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

X = TypeVar("X")
_PATIENCE_S = 60
_CLEAR = "#upload button[aria-label=Clear]"


class Browser:
    """One window after the other on the page; see the methods.

    Args:
        driver: path of chromedriver.
        downloads: folder for files that are downloaded.
    """

    def __init__(self, driver: str, downloads: Path):
        options = webdriver.ChromeOptions()
        # Without a sandbox, as containers run as root.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.add_argument("--window-size=1300,1250")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.downloads = downloads
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def close_windows(self) -> None:
        """All but an empty one: each holds some of the few connections to one host."""
        empty, *others = self.driver.window_handles
        for window in others:
            self.switch(window)
            self.driver.close()
        self.switch(empty)

    def quit(self) -> None:
        self.driver.quit()

    def wait(self, find: Callable[[], X]) -> X:
        """The first true value that ``find`` returns; fails after a minute."""
        patient = WebDriverWait(
            self.driver, _PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]
        )
        return patient.until(lambda _: find())

    def open(self, url: str) -> str:
        """Open the page in a window of its own, whose name is returned."""
        self.driver.switch_to.new_window("window")
        self.driver.get(url)
        self.one("#words textarea")
        return self.driver.current_window_handle

    def switch(self, window: str) -> None:
        self.driver.switch_to.window(window)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """As shown, without marks of what is chosen."""
        return [element.text.strip(" ✓\n") for element in self.all(selector)]

    def one(self, selector: str) -> WebElement:
        """Waits until there is one."""
        return self.wait(lambda: self.all(selector))[0]

    def upload(self, path: Path) -> None:
        """Instead of what is there; does not wait until the page has it."""
        if clear := self.all(_CLEAR):
            clear[0].click()
        self.one("#upload input[type=file]").send_keys(str(path))

    def wait_for_upload(self) -> None:
        self.one(_CLEAR)

    def write(self, words: str, part: str = "words") -> None:
        field = self.one(f"#{part} textarea, #{part} input")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(words)

    def label(self) -> None:
        self.one("button#label").click()

    def set_opacity(self, value: str) -> None:
        field = self.one("#opacity input[type=number]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value, Keys.TAB)

    def legend(self) -> dict[str, str]:
        """Share by class, as shown."""
        rows = [row.text.rsplit(maxsplit=2) for row in self.all("#legend tr")[1:]]
        return {name: f"{share} {unit}" for name, share, unit in rows}

    def wait_for_legend(self, *names: str) -> dict[str, str]:
        """The legend, as soon as it is about these classes."""
        self.wait(lambda: tuple(self.legend()) == names)
        return self.legend()

    def picture(self, part: str) -> np.ndarray:
        """(H, W, 3), as sent to the browser."""
        source = self.one(f"#{part} img").get_attribute("src")
        with urllib.request.urlopen(source) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))

    def wait_for_message(self, text: str) -> None:
        """Wait for a message with that text, and close it."""

        def close() -> bool:
            for message in self.all("[data-testid=toast-body]"):
                if text in message.text:
                    message.find_element(By.CSS_SELECTOR, "button[aria-label=Close]").click()
                    return True
            return False

        self.wait(close)

    def keep_screenshot(self, path: str) -> None:
        """Write what the window shows as a PNG of 256 colours, a third of the size."""
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        image.quantize(256, kmeans=4).save(path, optimize=True)

    def download(self, part: str, name: str) -> Path:
        """Click a button and wait for the file of that name."""
        self.one(f"#{part}:not([disabled])").click()
        self.wait((self.downloads / name).is_file)
        return self.downloads / name

    def hosts_asked(self) -> set[str]:
        """Hosts that anything was requested of since this was last asked, whatever became of it.

        What the page's own policy forbids is no request: it is not sent.
        """
        asked: dict[str, str] = {}
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                asked[parameters["requestId"]] = parameters["request"]["url"]
            elif parameters.get("blockedReason") == "csp":
                del asked[parameters["requestId"]]
        urls = map(urlsplit, asked.values())
        return {url.netloc for url in urls if url.scheme not in ("data", "blob")}
