"""Build the site: `make docs`, or `python docs/site/build_site.py`.

    python docs/site/build_site.py                into out/site, which opens from the file too
    python docs/site/build_site.py --serve        and serve it on http://127.0.0.1:8100/ until Ctrl-C
    python docs/site/build_site.py --keep         and keep what tutorials and figures come to in docs/

The pages go to out/docs first (`staging.py`), the tutorials are run for their pictures (`blocks.py`; again only when
their code has changed), and MkDocs makes HTML of it, in which a warning is an error. With --keep the figures are
drawn again too (`figures.py`). No step uses the network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "out"


def main() -> None:
    """Build, and serve if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="serve it afterwards, until Ctrl-C")
    parser.add_argument("--keep", action="store_true", help="write pictures and printed output into docs/")
    parser.add_argument("--port", type=int, default=8100)
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "NO_MKDOCS_2_WARNING": "1"}
    # the package's root is the checkout itself, so its name is that of a link to it
    link = ROOT / ".typing" / "cogguided"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("..", target_is_directory=True)
    sys.path.insert(0, str(link.parent))
    pages(args.keep)
    # not --quiet: it drops the warnings that --strict counts
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit("the site was not built: see above")
    print(f"the site: {OUT / 'site' / 'index.html'}")
    if args.serve:
        print(f"http://127.0.0.1:{args.port}/, until Ctrl-C")
        subprocess.run(
            [sys.executable, "-m", "http.server", str(args.port), "--bind", "127.0.0.1", "--directory", OUT / "site"],
            check=False,
        )


def pages(keep: bool) -> None:
    """Put all pages into out/docs, with what the tutorials drew and printed."""
    import figures
    import tutorials
    from commands import commands_page
    from staging import Stage

    if keep:
        figures.main()

    stage = Stage(OUT / "docs")
    stage.add_docs()
    stage.write("reference/commands.md", commands_page())
    for asset in (HERE / "assets").iterdir():
        stage.copy(asset, f"assets/{asset.name}")
    for page in tutorials.TUTORIALS:
        tutorials.make(page, OUT / "tutorials" / page.stem, OUT / "docs", keep)


if __name__ == "__main__":
    main()
