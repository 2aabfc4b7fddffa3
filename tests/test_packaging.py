"""The package as a package: what is in it, what it costs to import, which way its imports run."""

import ast
import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ["_version", "_defaults", "_errors", "_texts", "_claiming", "_reports", "scorers", "guidance", "pipelines"]
LAYERS += ["integrations", "ui", "_cli", "__main__"]
DATA = ["ui/style.css", *sorted(str(f.relative_to(ROOT)) for f in (ROOT / "_reports/templates").iterdir())]
"""Files of the package that are neither Python nor weights."""
NOT_THE_PACKAGE = {"tests", "examples", "benchmarks", "docs", "build", "dist", "out", "runs"}

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_files() -> list[Path]:
    """Every Python file of the package, relative to the root."""
    files = [p.relative_to(ROOT) for p in ROOT.rglob("*.py")]
    return sorted(f for f in files if f.parts[0] not in NOT_THE_PACKAGE and not f.parts[0].startswith("."))


def run(code: str) -> str:
    """Run code in a fresh interpreter, away from the repository."""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", code]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_listed_packages_are_the_packages_in_the_tree():
    tree = {".".join(("cogguided", *f.parent.parts)) for f in package_files() if f.name == "__init__.py"}
    with_code = {".".join(("cogguided", *f.parent.parts)) for f in package_files()}
    assert with_code == tree, "a folder has Python files but no __init__.py"
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(tree)


def test_root_modules_are_private_and_shadow_no_standard_name():
    for file in package_files():
        if len(file.parts) == 1:
            assert file.stem.startswith("_"), f"{file}: modules at the root start with an underscore"
            assert file.stem.strip("_") not in sys.stdlib_module_names - {"main"}


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def imports_of(file: Path) -> list[tuple[int, str]]:
    """(level, dotted module) of every import statement in a file, those inside functions too."""
    found = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
            if node.level:  # `from .. import scorers`
                found += [(node.level, ".".join(filter(None, (node.module, a.name)))) for a in node.names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
    return found


# diffusers runs the first on its own, outside a package; ComfyUI imports the second by its path
ON_ITS_OWN = {Path("pipelines/custom_pipeline.py"), Path("integrations/comfyui/nodes.py")}


@pytest.mark.parametrize("file", package_files(), ids=str)
def test_imports_are_relative_and_run_one_way(file):
    layer = file.with_suffix("").parts[0]
    if layer == "__init__":
        return
    for level, module in imports_of(file):
        if level == 0:
            absolute = module.split(".")[0]
            ours = ("cogguided", "scorers", "guidance", "pipelines", "integrations", "ui")
            assert absolute not in ours or file in ON_ITS_OWN, f"{file}: {module}"
            continue
        parts = [*file.parent.parts[: len(file.parent.parts) - level + 1], *module.split(".")]
        if parts[0] in LAYERS:
            assert LAYERS.index(parts[0]) <= LAYERS.index(layer), f"{file} imports {'.'.join(parts)}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below the root; a package is its `__init__`."""
    return {".".join(f.with_suffix("").parts).removesuffix("__init__").strip("."): f for f in package_files()}


@functools.cache
def arrows() -> dict[str, set[str]]:
    """Which modules each module imports, in functions too; not what only a type checker follows."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, file in known.items():
        every = list(ast.walk(tree_of(file)))
        guards = [n for n in every if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
        typed = {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}
        for node in every:
            if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in typed:
                continue
            home = file.parent.parts[: len(file.parent.parts) - node.level + 1]
            target = ".".join([*home, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                inner = f"{target}.{alias.name}".strip(".")
                found[name].add(inner if inner in known else target)
    return found


def test_no_module_imports_the_root():
    assert [name for name, of in arrows().items() if "" in of] == []


def test_there_is_no_circle():
    """Of imports, where a package's `__init__` counts as a module that others import by the package's name."""
    left = arrows()
    while free := [name for name, of in left.items() if not of & left.keys()]:  # imports none of the others
        left = {name: of for name, of in left.items() if name not in free}
    while free := left.keys() - set().union(*left.values()):  # is imported by none of them
        left = {name: of for name, of in left.items() if name not in free}
    assert {name: sorted(of & left.keys()) for name, of in left.items()} == {}


def test_no_folder_has_more_than_a_dozen_modules():
    counts = Counter(str(file.parent) for file in package_files() if file.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > 12} == {}


def test_import_is_cheap_lazy_and_offline():
    code = """
import socket, sys
def refuse(*a, **k): raise AssertionError("the network was touched")
socket.socket.connect = refuse; socket.getaddrinfo = refuse
import cogguided
heavy = {"torch", "diffusers", "transformers", "open_clip", "numpy", "PIL", "typer", "matplotlib", "jinja2"}
heavy &= set(sys.modules)
assert not heavy, heavy
assert set(cogguided.__all__) <= set(dir(cogguided))
print(cogguided.__version__)
"""
    assert run(code) == importlib.metadata.version("cogguided")


def test_unknown_attribute():
    import cogguided

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cogguided.nothing  # noqa: B018


def test_public_names_are_the_same_for_type_checkers():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    import cogguided

    assert typed == cogguided._HOME
    assert sorted(typed) == cogguided.__all__


def test_extras_are_complete_and_have_no_upper_pins():
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    assert {"xformers", "embedded", "test", "dev"} <= set(extras)
    for requirement in [*project["dependencies"], *(r for rs in extras.values() for r in rs)]:
        assert not re.search(r"<|==|~=", requirement.partition(";")[0]), requirement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from the tree with what is installed (no network), unpacked; its weights are empty files."""
    out = tmp_path_factory.mktemp("wheel")
    # Built from a copy without artefacts, so that nothing stale gets in and the tree stays clean.
    source = out / "source"
    tracked = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "py.typed", *DATA)]
    tracked += [ROOT / f for f in package_files()]
    tracked += [p for p in (ROOT / "pipelines/embedded").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    for file in tracked:
        target = source / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            target.touch()
        elif not target.exists():
            os.link(file, target)
    build = f"import setuptools.build_meta; setuptools.build_meta.build_wheel({str(out)!r})"  # as pip does
    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=False, cwd=source)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("cogguided-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_wheel_has_every_file(wheel):
    inside = {p.relative_to(wheel / "cogguided") for p in (wheel / "cogguided").rglob("*") if p.is_file()}
    expected = {*package_files(), Path("py.typed"), *map(Path, DATA)}
    weights = ROOT / "pipelines/embedded/weights"
    expected |= {p.relative_to(ROOT) for p in weights.rglob("*") if p.is_file()}
    assert expected <= inside
    assert not any(part in NOT_THE_PACKAGE for p in inside for part in p.parts[:1])
    licences = {p.name for p in wheel.glob("*.dist-info/licenses/*")}
    assert {"LICENSE", "NOTICE"} <= licences


def test_wheel_imports_by_itself(wheel, forks, tmp_path):
    """In a process that has imported what we need, but nothing of ours."""
    code = f"""
import socket, sys
from pathlib import Path
def refuse(*a, **k): raise AssertionError("the network was touched")
socket.socket.connect = refuse; socket.getaddrinfo = refuse
for name in [name for name in sys.modules if name.split(".")[0] == "cogguided"]: del sys.modules[name]
sys.path.insert(0, {str(wheel)!r})
import cogguided
for name in cogguided.__all__: getattr(cogguided, name)
assert Path(cogguided.pipelines.CUSTOM_PIPELINE).is_file()
print(cogguided.__file__)
"""
    done = forks(code, tmp_path / "log")
    assert (done.code, done.said.strip()) == (0, str(wheel / "cogguided/__init__.py"))


def test_editable_install_is_this_tree():
    assert run("import cogguided; print(cogguided.__file__)") == str(ROOT / "__init__.py")


def test_makefile_and_ci():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-browser", "check", "dev", "embedded"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    ci = ROOT / ".ci/run"
    assert "make test" in ci.read_text()
    assert os.access(ci, os.X_OK)


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("which files are tracked only a git checkout knows")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [file for name in listed.split("\0") if name and (file := ROOT / name).is_file()]


def test_a_checkout_is_at_most_54_mib():
    sizes = {str(file.relative_to(ROOT)): file.stat().st_size for file in tracked_files()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:20]
    assert sum(sizes.values()) <= 54 * 2**20, largest


def test_no_large_file_is_kept_twice():
    large = [file.read_bytes() for file in tracked_files() if file.stat().st_size > 10_000]
    assert len(set(large)) == len(large)


def test_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
