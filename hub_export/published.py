"""`verify`: which version of our code a bundle or a repository of the Hub carries, and whether it works here."""

import logging
from pathlib import Path
from typing import Annotated

import tyro

from hub_export.bundle import is_bundle, write_record
from hub_export.client import AbsentError, HubClient
from hub_export.code_version import Code, installed_transformers, project_code
from hub_export.verify import code_of, verify
from modeling.loading import HUB_FILES, split_hub_id
from storage.files import as_path
from storage.text import first_line

logger = logging.getLogger(__name__)


def verify_target(
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")],
    *,
    trust_remote_code: bool = False,
) -> str:
    """Say which code a bundle or a model on the Hub carries, and check it in an isolated process, where it generates.

    Into a bundle the record of the check is written.

    Args:
        target: the bundle, or `user/name` on the Hub, with or without `@` and a revision.
        trust_remote_code: run the model's code although it differs from this project's, as transformers does by
            trust_remote_code=True. Only this project's is run without.

    Returns:
        What was checked.

    Raises:
        ValueError: there is no such model, it is not one of ours, its code is later than this project's or differs
            from it, or it does not work with the installed transformers; the message says what to do.
    """
    folder, name, repo = as_path(target, "the folder of a bundle, or `user/name` of a model on the Hub"), target, None
    if (place := split_hub_id(target)) and "/" in place[0]:
        repo, revision = place
        folder, commit = _download(repo, revision)
        name = f"{repo} at commit {commit[:8]}"
    code = code_of(folder, name)
    logger.info("%s", describe(code, name, again=_again(repo, target)))
    try:
        verification = verify(folder, trust_remote_code=trust_remote_code)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), name)) from error
    if repo is None and is_bundle(folder):
        write_record(folder, verification)
    return f"{name}: {verification}"


def describe(code: Code, name: str, *, again: str) -> str:
    """Which code that is, the transformers versions that it works with, and what to do where it is not this project's.

    Args:
        code: the code that is there.
        name: what it is called.
        again: how it is published again, for the message.
    """
    ours, installed = project_code(), installed_transformers()
    text = f"{name}: code of version {code.version}, which works with {code.range}: {code.outside}."
    if not code.takes(installed):
        text += f" Installed is {installed}."
    if code.version != ours.version:
        text += f" {again} publishes it with the code of {ours.version}, for {ours.range}."
    return text


def _again(repo: str | None, target: str) -> str:
    if repo is None:
        return f"`python -m hub_export push {target} --repo NAME`"
    return (
        f"`python -m hub_export push RUN --repo {repo}`, with its run or the folder of "
        f"`hf download {repo} --local-dir DIR` in the place of RUN,"
    )


def _download(repo: str, revision: str | None) -> tuple[Path, str]:
    """A repository's files in the cache of the Hub's client, its code included, and their commit."""
    from huggingface_hub.errors import RevisionNotFoundError

    hub = HubClient(hub_state="Nothing was checked.")

    def commit() -> str | None:
        try:
            return str(hub.api.repo_info(repo, revision=revision).sha)
        except RevisionNotFoundError:
            return None

    try:
        found = hub.call(f"looking at {repo}", commit)
    except AbsentError as error:
        raise ValueError(
            f"{repo}: there is no such folder here, and the Hub shows no such repository. Check the spelling; a "
            "private one needs a token (`hf auth login`)."
        ) from error
    if found is None:
        raise ValueError(f"{repo}: there is no revision {revision!r}. Give a commit, a tag or a branch of it.")
    logger.info("downloading %s at commit %s …", repo, found[:8])
    return download_commit(hub, repo, found), found


def download_commit(hub: HubClient, repo: str, commit: str, *, cache: Path | None = None) -> Path:
    """Download a model of the Hub at a commit, with its code; return the folder of the snapshot.

    Args:
        hub: the client.
        repo: `user/name`.
        commit: its full id.
        cache: a cache of the Hub's client (default: the user's).

    Raises:
        ValueError: the Hub refused or does not answer.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download() -> str:
        try:
            files = [*HUB_FILES, "*.py"]
            return hub.api.snapshot_download(repo, revision=commit, cache_dir=cache, allow_patterns=files)
        except LocalEntryNotFoundError as error:
            raise ConnectionError(first_line(error).rstrip(".")) from error

    return Path(hub.call(f"downloading {repo} at commit {commit[:8]}", download))
