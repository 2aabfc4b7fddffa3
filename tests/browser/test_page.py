"""The page as a whole: phones, light and dark, labels, and files that nobody may open."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

TABS = ("Generate", "Compare", "Score", "Runs")
NAMELESS = """
const shown = e => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden';
const named = e => e.getAttribute('aria-label') || e.title || e.textContent.trim() || e.placeholder ||
  (e.labels && [...e.labels].some(l => l.textContent.trim())) || e.closest('label')?.textContent.trim() ||
  document.getElementById(e.getAttribute('aria-labelledby'));
return [...document.querySelectorAll('input, textarea, select, button, [role=button], [role=listbox]')]
  .filter(e => shown(e) && e.type !== 'hidden' && !named(e)).map(e => e.outerHTML.slice(0, 200));
"""
CONTRAST = """
const number = c => c.match(/[\\d.]+/g).map(Number);
const light = c => { const [r, g, b] = number(c).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (number(c).length < 4 || number(c)[3] > .9) return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).map(e => {
  const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
  return (a + .05) / (b + .05); });
"""


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address + path, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("tab", TABS)
def test_a_phone_has_all_of_it_and_everything_has_a_name(browser, tab):
    browser.resize(380, 800)
    browser.tab(tab)
    browser.until(lambda: browser.all("[role=tabpanel]"))
    assert browser.too_wide() == []
    assert browser.too_wide_unnoticed() == []
    assert browser.driver.execute_script(NAMELESS) == []


@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read_in_light_and_dark(browser, dark):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.driver.refresh()
    browser.until(lambda: browser.one("#gen-prompt textarea, #gen-prompt input"))
    assert browser.driver.execute_script("return document.body.classList.contains('dark')") == dark
    ratios = browser.driver.execute_script(CONTRAST, "h1, .cg-note p, .cg-empty, label span, .cg-state")
    assert len(ratios) > 5
    assert min(ratios) >= 4.5
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_no_file_outside_the_output_folder_can_be_had(served, tmp_path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"secret")
    inside = served.out / "plain.txt"
    inside.write_text("mine")
    link = served.out / "link.png"
    link.symlink_to(outside)
    package = Path(__file__).resolve().parents[2] / "pyproject.toml"
    root = f"/gradio_api/file={urllib.parse.quote(str(served.out))}"
    assert get(served.address, f"{root}/plain.txt") == (200, b"mine")
    for path in (
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=%252Fetc%252Fpasswd",
        "/gradio_api/file//etc/passwd",
        "/file=/etc/passwd",
        f"/gradio_api/file={package}",
        f"/gradio_api/file={outside}",
        f"{root}/link.png",
        f"{root}/../secret.png",
        f"{root}/%2e%2e/{'%2e%2e/' * 8}etc/passwd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/file=https://example.org/x",
        "/gradio_api/proxy=https://example.org/x",
        "/static/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ):
        status, body = get(served.address, path)
        assert status in (400, 403, 404, 405, 422), (path, status, body[:80])
        assert b"root:" not in body
        assert b"secret" not in body
        assert b"[project]" not in body


def test_an_event_cannot_name_a_file_that_was_not_dropped(served):
    """What the page's own script would send, with a path of the server in place of an upload."""
    config = json.loads(get(served.address, "/config")[1])
    event = next(d for d in config["dependencies"] if d["api_name"] == "make" or "score" in str(d.get("api_name")))
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
    scoring = [d for d in config["dependencies"] if _takes_files(config, d)]
    assert scoring, event
    for dependency in scoring:
        data = [[file], *[None] * (len(dependency["inputs"]) - 1)]
        body = {"data": data, "fn_index": dependency["id"], "session_hash": "other", "trigger_id": None}
        request = urllib.request.Request(
            f"{served.address}/gradio_api/queue/join", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60):
            pass
        data_address = f"{served.address}/gradio_api/queue/data?session_hash=other"
        with urllib.request.urlopen(data_address, timeout=240) as stream:
            told = b""
            for line in stream:
                told += line
                if b"process_completed" in line or b"close_stream" in line:
                    break
        assert b"root:" not in told
        assert b'"success":false' in told.replace(b" ", b"")
    assert not list(served.out.glob("*scores.csv")) or os.path.getsize(next(served.out.glob("*scores.csv"))) < 10_000


def test_uploads_are_bounded(served):
    def upload(size: int) -> int:
        edge = b"----edge"
        head = b'\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        body = b"--" + edge + head + b"x" * size + b"\r\n--" + edge + b"--\r\n"
        kind = {"content-type": f"multipart/form-data; boundary={edge.decode()}"}
        request = urllib.request.Request(f"{served.address}/gradio_api/upload", body, kind)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:  # the server has answered and hung up before it was told all
            return 413

    assert upload(1000) == 200
    assert upload(40 * 2**20) == 413
    assert not [f for f in served.out.rglob(".cogguided-ui-*/uploads/**/*.png") if f.stat().st_size > 32 * 2**20]


def test_auth_asks_and_a_taken_port_is_told(serve):
    page = serve("--auth", "anna:secret")
    try:
        (page.out / "a.txt").write_text("mine")
        for path in ("/config", f"/gradio_api/file={page.out}/a.txt"):
            assert get(page.address, path)[0] == 401, path
        wrong = urllib.parse.urlencode({"username": "anna", "password": "wrong"}).encode()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{page.address}/login", wrong, timeout=60)
        port = page.address.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "cogguided", "ui", "--port", port, "--out", str(page.out), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=page.out)
        assert done.returncode == 1, done.stderr
        assert f"error: cannot listen on 127.0.0.1:{port}: the port is taken" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        page.end()


def _takes_files(config, dependency) -> bool:
    kinds = {c["id"]: c["type"] for c in config["components"]}
    return any(kinds.get(i) == "file" for i in dependency["inputs"])
