"""Screenshots of each tab for the docs: python tests/browser/pictures.py FOLDER_OF_PICTURES, which Score is given."""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from conftest import ROOT, Browser, Served

IMAGES = ROOT / "docs" / "images"


def keep(browser, name, height=None):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "whole.png"
        browser.picture(file, height)
        with Image.open(file) as image:
            image.convert("RGB").save(IMAGES / f"ui_{name}.webp", quality=72, method=6)


def generate(browser):
    browser.open_more()
    browser.choose("#gen-search", "best_of_n")
    browser.type("#gen-candidates", "12")
    browser.type("#gen-seed", "7")
    browser.click("#gen-more button")
    browser.type("#gen-prompt", "a face")
    browser.enter(browser.one("#gen-prompt input, #gen-prompt textarea"))
    browser.until(lambda: "kept in" in browser.text())
    browser.click(".cg-tile")
    browser.until(lambda: browser.one("#gen-belief svg"))
    keep(browser, "generate")


def compare(browser):
    browser.tab("Compare")
    browser.type("#cmp-prompts", "a cat")
    browser.type("#cmp-seed", "3")
    browser.click("#cmp-go")
    browser.until(lambda: "Pair 1 of 1" in browser.one("#cmp-ballot").text)
    keep(browser, "compare")


def score(browser, files):
    browser.tab("Score")
    field = browser.until(lambda: browser.driver.find_element("css selector", "#score-files input[type=file]"))
    field.send_keys("\n".join(str(file) for file in files))
    browser.until(lambda: files[-1].name[:6] in browser.one("#score-files").text)
    browser.click("#score-go")
    browser.until(lambda: browser.all("#score-table tbody tr"))
    browser.until(lambda: browser.one("#score-plot svg"))
    keep(browser, "score")


def runs(browser):
    browser.tab("Runs")
    browser.click("#runs-again")
    browser.choose("#runs-which", "a-face")
    browser.until(lambda: browser.one("#runs-report img, #runs-report iframe"))
    keep(browser, "runs", 1000)


def main(folder: Path) -> None:
    files = sorted(folder.glob("*.png"))[:6]
    with tempfile.TemporaryDirectory() as work:
        page, browser = Served(Path(work) / "out"), Browser(1200)
        try:
            browser.open(page.address)
            generate(browser)
            compare(browser)
            score(browser, files)
            runs(browser)
            print(json.dumps({file.name: file.stat().st_size for file in sorted(IMAGES.glob("ui_*.webp"))}))
        finally:
            browser.driver.quit()
            page.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
