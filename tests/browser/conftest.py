"""A page that is served, and a Chromium that reaches nothing else."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("COGGUIDED_BROWSER_PATIENCE", "120"))
"""Seconds that anything on the page may take."""


TOO_WIDE = """
const may = e => e.parentElement.closest('.cg-scroll, .cm-scroller, textarea');
return [...document.querySelectorAll('html, body *')].filter(e => e.getClientRects().length &&
  e.getBoundingClientRect().width > 1 && e.getBoundingClientRect().right > window.innerWidth + 1 &&
  !(e.parentElement && may(e)) || e === document.documentElement && e.scrollWidth > window.innerWidth)
  .map(e => e.outerHTML.slice(0, 160));
"""
"""Script: what reaches beyond the window's right edge. Wide tables and code alone may be scrolled sideways: Gradio's
own boxes may too, and would hide what is too wide for a phone."""
PLANTED = f"""
const unnoticed = [];
const planted = '; width: 600px !important; min-width: 600px !important; transition: none !important';
const panel = [...document.querySelectorAll('[role=tabpanel]')].find(e => e.getClientRects().length);
const named = e => e.id || [...e.classList].some(name => name.startsWith('cg-'));
for (const e of [...panel.querySelectorAll('*')].filter(e => e.getClientRects().length && named(e))) {{
  const before = e.getAttribute('style') ?? '';
  e.setAttribute('style', before + planted);
  if ((() => {{ {TOO_WIDE} }})().length === 0) unnoticed.push(e.outerHTML.slice(0, 160));
  e.setAttribute('style', before);
}}
return unnoticed;
"""
"""Script: makes each part of the shown tab 600 pixels wide in turn; returns those that `TOO_WIDE` does not notice."""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Served:
    """`cogguided ui` in a process of its own."""

    def __init__(self, out: Path, *options: str) -> None:
        self.out = out
        command = [sys.executable, "-m", "cogguided", "ui", "--out", out.name, "--device", "cpu", *options]
        self.log = out.with_suffix(".log")
        self.started = time.monotonic()
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(command, cwd=out.parent, stdout=stream, stderr=subprocess.STDOUT)
        self.address = self._address()

    def _address(self) -> str:
        end = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            text = self.log.read_text()
            if "cogguided ui: " in text:
                return text.partition("cogguided ui: ")[2].split()[0].rstrip("/")
            time.sleep(0.1)
        raise AssertionError(f"the page is not served: {self.log.read_text()}")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    page = Served(tmp_path_factory.mktemp("ui") / "out")
    yield page
    page.end()


@pytest.fixture
def serve(tmp_path):
    """Return what serves another page, with options; whoever does ends it."""
    return lambda *options: Served(tmp_path / "out", *options)


class Browser:
    """A few words on top of Selenium."""

    def __init__(self, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = chromium()
        flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking", "--hide-scrollbars", f"--window-size={width},{height}"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        for flag in flags:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(PATIENCE)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.resize(width, height)

    def resize(self, width: int, height: int = 1000) -> None:
        """Give the page itself a size: a window cannot be as narrow as a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.until(lambda: self.one("#gen-prompt textarea, #gen-prompt input"))

    def all(self, selector: str):
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def one(self, selector: str):
        found = self.all(selector)
        return found[0] if found else None

    def until(self, condition, seconds: float = PATIENCE):
        """Wait until something is so, and return it."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except WebDriverException:  # what is looked at is being replaced
                pass
            assert time.monotonic() < end, f"not so within {seconds} s; the page says: {self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        return self.driver.find_element("css selector", "body").text

    def click(self, selector: str) -> None:
        """Click what there is, once it can be clicked."""

        def done() -> bool:
            element = self.one(selector)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.until(done)

    def type(self, selector: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        element = self.until(lambda: self.one(f"{selector} textarea, {selector} input"))
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(Keys.DELETE)
        element.send_keys(text)

    def enter(self, element) -> None:
        """Press Enter."""
        from selenium.webdriver.common.keys import Keys

        element.send_keys(Keys.ENTER)

    def tab(self, name: str) -> None:
        self.until(lambda: [b for b in self.all("button[role=tab]") if b.text == name])[0].click()

    def open_more(self) -> None:
        """Open the accordion with search, budget and seed."""
        if not self.all("#gen-seed input, #gen-seed textarea"):
            self.click("#gen-more button")
        self.until(lambda: self.one("#gen-seed input, #gen-seed textarea"))

    def choose(self, selector: str, value: str) -> None:
        """Choose one of a dropdown's, by keyboard."""
        from selenium.webdriver.common.keys import Keys

        field = self.until(lambda: self.one(f"{selector} input"))
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value)
        field.send_keys(Keys.ENTER)

    def download(self, selector: str, folder: Path) -> Path:
        """Click what downloads a file, and return the file."""
        where = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
        before = set(folder.iterdir())
        self.click(selector)

        def whole():
            found = [f for f in set(folder.iterdir()) - before if f.suffix != ".crdownload" and f.name[0] != "."]
            return found and found[0]

        return self.until(whole)

    def addresses(self) -> set[str]:
        """All addresses that the browser asked for since this was last called."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        return found

    def too_wide(self) -> list[str]:
        """What reaches beyond the window's right edge."""
        return self.driver.execute_script(TOO_WIDE)

    def too_wide_unnoticed(self) -> list[str]:
        """Parts that could be as wide as 600 pixels without `too_wide` saying so."""
        return self.driver.execute_script(PLANTED)

    def picture(self, file: Path, height: int | None = None) -> None:
        """Keep a screenshot of the whole page, or of its upper part."""
        width = self.driver.execute_script("return window.innerWidth")
        whole = self.driver.execute_script("return document.documentElement.scrollHeight")
        self.driver.execute_script("window.scrollTo(0, 0)")
        self.resize(width, min(height or whole, whole))
        time.sleep(0.5)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(file))
        self.resize(width)


@pytest.fixture(scope="session")
def one_browser():
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture
def browser(one_browser, served):
    one_browser.resize(1280)
    one_browser.addresses()  # those of the test before
    one_browser.open(served.address)
    return one_browser


def pytest_collection_modifyitems(items):
    """Every test here wants a browser; without one it is skipped, and says why."""
    here = Path(__file__).parent
    missing = [name for name in ("gradio", "selenium") if not _installed(name)]
    why = None
    if missing:
        why = f"{' and '.join(missing)} not installed: make test-browser"
    elif chromium() is None or shutil.which("chromedriver") is None:
        why = "no chromium or no chromedriver: apt-get install chromium chromium-driver"
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
