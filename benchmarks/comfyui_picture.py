"""Picture of the workflow in ComfyUI's own front-end, which loads it from the file; needs ComfyUI and Chromium.

Run in ComfyUI's environment, with cogguided in it:

    python benchmarks/comfyui_picture.py path/to/ComfyUI --out docs/images/comfyui.webp
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

NODES = Path(__file__).resolve().parents[1] / "integrations" / "comfyui"
SERVER, BROWSER = 8321, 8322
WIDTH, HEIGHT = 1600, 700
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # no dialogue of templates
    "Comfy.UseNewMenu": "Disabled",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
COLUMNS = (("1", "5", "4"), ("10", "2", "3"), ("6",), ("7", "11", "12"), ("8", "9"))  # node ids, from left to right
LOAD = """(async () => {
  const app = window.app ?? window.comfyAPI.app.app;
  document.querySelectorAll(".comfy-menu").forEach(menu => menu.remove());
  await app.loadApiJson(%s, "cogguided");
  let x = 0;
  for (const column of %s) {
    let y = 0, width = 0;
    for (const id of column) {
      const node = app.graph.getNodeById(id);
      if (node.type === "CLIPTextEncode") node.size = [270, 96];
      node.pos = [x, y];
      y += node.size[1] + 55;
      width = Math.max(width, node.size[0]);
    }
    x += width + 60;
  }
  const [, , w, h] = app.graph.nodes.reduce((box, node) => [0, 0, Math.max(box[2], node.pos[0] + node.size[0]),
    Math.max(box[3], node.pos[1] + node.size[1])], [0, 0, 0, 0]);
  const canvas = app.canvas, place = canvas.canvas.getBoundingClientRect();
  const scale = Math.min((place.width - 40) / w, (place.height - 84) / h);
  canvas.ds.scale = scale;
  canvas.ds.offset = [20 / scale, 64 / scale];
  canvas.setDirty(true, true);
  await new Promise(done => setTimeout(done, 1500));
  const clip = {x: place.x, y: place.y, width: w * scale + 40, height: h * scale + 84, scale: 1};
  return JSON.stringify({nodes: app.graph.nodes.map(node => node.type), clip});
})()"""


@contextlib.contextmanager
def running(command: list[str], **kwargs: Any) -> Iterator[None]:
    """Keep a program running inside."""
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)
    try:
        yield
    finally:
        program.terminate()
        program.wait(30)


async def when_up(session: aiohttp.ClientSession, url: str, seconds: int = 120) -> Any:
    """Return the JSON at an address once something answers there."""
    for _ in range(seconds):
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as answer:
                return await answer.json(content_type=None)
        await asyncio.sleep(1)
    raise TimeoutError(url)


class Page:
    """A browser's page, by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.number = socket, 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method, and return its result."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            answer = await self.socket.receive_json(timeout=120)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    async def run(self, code: str) -> Any:
        """Run JavaScript, and return its value."""
        result = await self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")


async def shoot(workflow: dict[str, Any], out: Path, quality: int) -> None:
    """Load the workflow in the page, lay its nodes out, and save what is seen."""
    async with aiohttp.ClientSession() as session:
        known = await when_up(session, f"http://127.0.0.1:{SERVER}/object_info")
        missing = {node["class_type"] for node in workflow.values()} - set(known)
        if missing:
            raise SystemExit(f"ComfyUI does not know {sorted(missing)}; is cogguided in its environment?")
        tabs = await when_up(session, f"http://127.0.0.1:{BROWSER}/json")
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            page = Page(socket)
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            await page.ask("Emulation.setDeviceMetricsOverride", **size)
            for _ in range(60):
                if await page.run("!!(window.app ?? window.comfyAPI?.app?.app)?.canvas?.ds"):
                    break
                await asyncio.sleep(1)
            await asyncio.sleep(5)  # its own default workflow is loaded last
            told = json.loads(await page.run(LOAD % (json.dumps(workflow), json.dumps(COLUMNS))))
            print(f"{len(told['nodes'])} nodes: {', '.join(told['nodes'])}")
            picture = await page.ask("Page.captureScreenshot", format="png", clip=told["clip"])
    Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB").save(out, quality=quality, method=6)
    print(f"{out}: {out.stat().st_size / 1024:.0f} KB")


def main() -> None:
    """Start both programs, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="a checkout of ComfyUI")
    parser.add_argument("--workflow", type=Path, default=NODES / "workflow_api.json")
    parser.add_argument("--out", type=Path, default=Path("docs/images/comfyui.webp"))
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--quality", type=int, default=60)
    arguments = parser.parse_args()
    workflow = json.loads(arguments.workflow.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / "cogguided").symlink_to(NODES)
        (base / "models" / "checkpoints").mkdir(parents=True)
        (base / "models" / "checkpoints" / "model.safetensors").touch()  # a name in the loader's list
        (base / "user" / "default").mkdir(parents=True)
        (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS), "utf-8")
        path = os.pathsep.join([str(NODES.parents[2]), os.environ.get("PYTHONPATH", "")])
        host = [sys.executable, "main.py", "--cpu", "--port", str(SERVER), "--base-directory", folder]
        host += ["--database-url", "sqlite:///:memory:"]
        browser = [
            arguments.browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/browser",
            f"--remote-debugging-port={BROWSER}", f"--window-size={WIDTH},{HEIGHT}", "--hide-scrollbars",
        ]  # fmt: skip
        with running(host, cwd=arguments.comfyui, env={**os.environ, "PYTHONPATH": path}):
            asyncio.run(wait_for_server())
            with running([*browser, f"http://127.0.0.1:{SERVER}/"]):
                asyncio.run(shoot(workflow, arguments.out.absolute(), arguments.quality))


async def wait_for_server() -> None:
    """Return once ComfyUI answers."""
    async with aiohttp.ClientSession() as session:
        await when_up(session, f"http://127.0.0.1:{SERVER}/object_info")


if __name__ == "__main__":
    main()
