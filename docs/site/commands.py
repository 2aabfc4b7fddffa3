"""The page of all commands, from what `--help` says."""

from __future__ import annotations

import re
from typing import Any

import typer
from rich.text import Text

HEAD = """# Every command

Made from what `--help` says. What all commands share, and exit codes: [the command line](../command-line.md).
"""


def commands_page() -> str:
    """Return the page: usage, what it does, arguments, options and examples of each command."""
    from cogguided._cli.app import app

    root = typer.main.get_command(app)
    parts = [HEAD]
    for path, command in _walk(root, ["cogguided"]):
        parts.append(_section(path, command))
    return "\n".join(parts)


def _walk(command: Any, path: list[str]) -> list[tuple[list[str], Any]]:
    below = getattr(command, "commands", {})
    found = [(path, command)]
    for name, child in below.items():
        found += _walk(child, [*path, name])
    return found


def _plain(text: str | None) -> str:
    return Text.from_markup(text or "").plain.strip()


def _section(path: list[str], command: Any) -> str:
    context = typer.Context(command, info_name=" ".join(path))
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    parts = [f"## `{' '.join(path)}`\n", f"```text\n{usage}\n```\n", _prose(_plain(command.help)), ""]
    rows = [row for parameter in command.params if (row := _row(parameter, context))]
    if rows:
        parts += ["| | |", "|---|---|", *rows, ""]
    epilog = _plain(command.epilog)
    if epilog:
        parts += [_examples(epilog), ""]
    return "\n".join(parts)


def _prose(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([_*])", r"\\\1", text.replace("<", "&lt;").replace(">", "&gt;"))


def _row(parameter: Any, context: typer.Context) -> str | None:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [(parameter.metavar or parameter.name).upper()]
    said = _plain(getattr(parameter, "help", "") or "")
    default = parameter.get_default(context, call=False)
    default = getattr(default, "value", default)
    plain = isinstance(default, (str, int, float)) and not isinstance(default, bool) and default != ""
    shown = f" *Default: {default}.*" if plain and getattr(parameter, "show_default", True) else ""
    needed = " *Needed.*" if parameter.required else ""
    cell = _prose(said).replace("|", "\\|").replace("\n", " ")
    shown_names = "<br>".join(f'<code class="option">{name}</code>' for name in names)
    return f"| {shown_names} | {cell}{needed}{shown} |"


def _examples(epilog: str) -> str:
    """Commands of an epilog in blocks, one each, whatever lines they were broken into; the rest as prose."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", epilog):
        line = " ".join(paragraph.split())
        command = re.match(r"(?:[A-Z_]+=\S+ )?(?:cogguided|accelerate launch|find|ray|curl) ", line)
        parts.append(f"```sh\n{line}\n```" if command else f"**{line}**" if line == "Examples" else _prose(line))
    return "\n\n".join(parts)
