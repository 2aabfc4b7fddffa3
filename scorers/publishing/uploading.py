"""From a folder with a model card to a repository on the Hugging Face Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from ..._errors import InputError
from .cards import CARD, MARK, check_hub_name


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Have the Hub check the card of a folder, make the repository unless it is there, and upload the folder.

    A card there whose text has been changed keeps its text, and gets the new metadata.

    Raises:
        InputError: no name of a repository; or the Hub does not accept the card's metadata, and says why.
        HfHubHTTPError: the Hub says no: no token, no right to write, ... (all of `huggingface_hub`'s own).

    Executed in ``tests/integrations/test_hub.py``.
    """
    api, name = HfApi(token=token), full_name(repo_id, token)
    card = with_own_text(ModelCard.load(folder / CARD), name, token)
    try:
        card.validate()
    except ValueError as error:
        raise InputError(f"{name}: the Hub does not accept the model card: {error}") from error
    (folder / CARD).write_text(str(card), "utf-8")
    repo = api.create_repo(name, private=private, exist_ok=True).repo_id
    message = commit_message or "Upload with cogguided"
    return api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, create_pr=create_pr)


def full_name(repo_id: str, token: str | None = None) -> str:
    """Return a repository's name with its owner: whom the token belongs to, where none is given.

    Raises:
        InputError: no name of a repository.

    >>> full_name("me/judge")
    'me/judge'
    """
    check_hub_name(repo_id)
    return repo_id if "/" in repo_id else f"{HfApi(token=token).whoami()['name']}/{repo_id}"


def with_own_text(card: ModelCard, repo_id: str, token: str | None) -> ModelCard:
    """Return a card with the text of that on the Hub, if there is one that a person has written in.

    Executed in ``tests/integrations/test_hub.py``.
    """
    try:
        before = ModelCard.load(repo_id, token=token, ignore_metadata_errors=True)
    except (EntryNotFoundError, RepositoryNotFoundError):
        return card
    if MARK in before.content:
        return card
    data = {**before.data.to_dict(), **card.data.to_dict()}
    data["tags"] = list(dict.fromkeys([*(before.data.get("tags") or ()), *(card.data.get("tags") or ())]))
    return ModelCard(f"---\n{ModelCardData(**data).to_yaml().strip()}\n---\n{before.text}")


def place(sources: Sequence[Path], home: Path, target: Path, link: bool) -> None:
    """Put files, of a folder, into another one: copied, or linked where they are only to be read once.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     one, two = Path(name, "one"), Path(name, "two")
    ...     one.mkdir()
    ...     (one / "a.txt").write_text("a")
    ...     place([one / "a.txt"], one, two, link=True)
    ...     (two / "a.txt").read_text()
    1
    'a'
    """
    for source in sources:
        file = target / source.relative_to(home)
        file.parent.mkdir(parents=True, exist_ok=True)
        if link:
            try:
                file.symlink_to(source.resolve())
                continue
            except OSError:  # a file system, or a Windows account, that has no links
                pass
        shutil.copyfile(source, file)
