"""A real Chromium that looks at the inspector of a real server."""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest

from .realserver import RealServer, wait_until

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

__all__ = ["Browser", "inspector_link", "the_browser"]

#: Notes what a page must never do, before any script of its own runs; and keeps its event streams at hand.
_BEFORE = """
window.hacked = [];
window.alert = window.prompt = (text) => { window.hacked.push(String(text)); };
window.streams = [];
window.EventSource = class extends EventSource {
  constructor(...given) { super(...given); window.streams.push(this); }
};
"""


@cache
def the_browser() -> Browser:
    """One for all tests of this process, which take turns: to start it takes longer than most of them."""
    browser = Browser()
    atexit.register(browser.quit)
    return browser


def inspector_link(server: RealServer) -> str:
    """The link to the inspector, with its token, from the server's log."""
    pattern = re.compile(r"inspector: (http://\S+)")
    wait_until(lambda: pattern.search(server.log) is not None, "the inspector listens")
    found = pattern.search(server.log)
    assert found is not None
    return found[1]


class Browser:
    """Chromium without a window.

    :raises SkipTest: if it, its driver or selenium is not installed.
    """

    def __init__(self, width: int = 1400, height: int = 900) -> None:
        if importlib.util.find_spec("selenium") is None:
            raise SkipTest("selenium is not installed")
        program = shutil.which("chromium")
        service = shutil.which("chromedriver")
        if program is None or service is None:
            raise SkipTest("chromium or chromium-driver is not installed")
        from selenium.webdriver import Chrome
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        self.profile = tempfile.TemporaryDirectory(prefix="pop3toy-chromium-", ignore_cleanup_errors=True)
        options = Options()
        options.binary_location = program
        for one in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-proxy-server",
            f"--user-data-dir={self.profile.name}/profile",
            f"--window-size={width},{height}",
        ):
            options.add_argument(one)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": self.profile.name})
        self.driver = Chrome(options=options, service=Service(service))
        self.command("Page.addScriptToEvaluateOnNewDocument", source=_BEFORE)

    def quit(self) -> None:
        """End it."""
        self.driver.quit()
        self.profile.cleanup()

    def command(self, name: str, **arguments: object) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, url: str) -> None:
        """Load a page anew."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def go(self, fragment: str) -> None:
        """Go elsewhere within the page."""
        self.run("location.hash = arguments[0]", fragment)

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns that runs in the page."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        """The first of them; waits until there is one that is shown."""
        self.until(lambda: any(found.is_displayed() for found in self.all(selector)), f"there is {selector}")
        return next(found for found in self.all(selector) if found.is_displayed())

    def text(self, selector: str) -> str:
        """What is shown of all elements that a CSS selector finds."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText).join('\\n')"
        return str(self.run(script, selector))

    def focused(self) -> Any:
        """The element that has the focus."""
        return self.driver.switch_to.active_element

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        from selenium.common.exceptions import StaleElementReferenceException

        def held() -> bool:
            try:
                return bool(condition())
            except StaleElementReferenceException:
                # The page has just put another in its place.
                return False

        wait_until(held, f"{what}, in\n{self.text('body')}", pause=0.05)

    def until_text(self, selector: str, *wanted: str) -> None:
        """Wait until all these texts are shown in there."""
        for one in wanted:
            self.until(lambda one=one: one in self.text(selector), f"{one!r} in {selector}")  # type: ignore[misc]

    def complaints(self) -> list[str]:
        """What the browser has complained of since this was asked last, but for what it could not load."""
        found = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [one["message"] for one in found if "Failed to load resource" not in one["message"]]

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Show the page as a screen of this size does."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip

    def dark(self, dark: bool = True) -> None:
        """Prefer a dark page."""
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        # What is only half shown yet has no contrast.
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", features=[colours, still])

    def picture(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(self.driver.get_screenshot_as_png())
