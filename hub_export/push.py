"""Publishes a run: export, proof, repository, one commit."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import card
from .bundle import bundle

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOGIN = "Make a token that may write at https://huggingface.co/settings/tokens and give it with `hf auth login`"


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    checkpoint: str = "best",
    license: str = card.LICENSE,
    language: str = card.LANGUAGE,
) -> str:
    """Exports a run, proves the bundle and uploads it to the Hub in one commit.

    The account, the name and what is on the Hub under it are checked first, and a repository is made only once the
    bundle is proved.

    Args:
        run: the run folder.
        repo: `user/name`, or `name` for a repository of the token's own user.
        private: whether a repository that is made now is private (default: no).
        checkpoint: `best` (default), `latest` or `step-NNNNNN`.
        license, language: for the card's front matter (defaults: mit, en).

    Returns:
        The address of the commit.

    Raises:
        ValueError: no usable token, a name the Hub refuses, a repository that is not ours, a Hub that does not
            answer, or anything `bundle` raises.
        OSError: no room for the bundle.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="scratchgpt")
    repo = _repo_id(api, repo)
    _check_repository(api, repo)
    with tempfile.TemporaryDirectory(prefix="scratchgpt-push-") as scratch:
        folder = bundle(
            run, Path(scratch) / "bundle", checkpoint=checkpoint, repo=repo, license=license, language=language
        )
        return upload(api, folder, repo, private=private)


def upload(api: "HfApi", folder: Path, repo: str, *, private: bool = False) -> str:
    """Makes the repository where there is none and uploads a proved bundle in one commit.

    Args:
        api: the Hub and the account.
        folder: the bundle.
        repo: `user/name`.
        private: whether a repository that is made now is private (default: no).

    Returns:
        The address of the commit.

    Raises:
        ValueError: the Hub refused, or cannot be reached; the message says what is on the Hub now.
    """
    with _explained(f"making the repository {repo}", "Nothing has been uploaded."):
        api.create_repo(repo, private=private or None, exist_ok=True)
    with _explained(f"uploading to {repo}", "The repository is there, perhaps without its files."):
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a ScratchGPT model")
    return str(commit.commit_url)


def _check_repository(api: "HfApi", repo: str) -> None:
    """Refuses a repository that holds something else than a model of ours."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with _explained(f"looking at the repository {repo}", "Nothing has been uploaded."):
        try:
            present = set(api.list_repo_files(repo)) - {".gitattributes", "README.md"}
        except RepositoryNotFoundError:
            return
    if present and "modeling_scratchgpt.py" not in present:
        raise ValueError(
            f"{repo}: expected a new repository or one with a model of ours, but it holds {len(present)} other "
            f"files ({', '.join(sorted(present)[:5])}). Nothing has been uploaded; choose another --repo name."
        )


def _repo_id(api: "HfApi", repo: str) -> str:
    """The full id of the repository, once the token may write there."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(
            f"--repo: expected `name` or `user/name` as the Hub allows it, got {repo!r}: {error}"
        ) from error
    try:
        with _explained("asking the Hub who you are", "Nothing has been uploaded."):
            account = api.whoami()
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"expected an access token of the Hugging Face Hub, but there is none. {LOGIN}, or in the environment "
            "variable HF_TOKEN. Nothing has been uploaded."
        ) from error
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError(
            f"expected a token with the right to write, got a read-only one. {LOGIN}. Nothing has been uploaded."
        )
    user = account["name"]
    if "/" not in repo:
        return f"{user}/{repo}"
    namespaces = [user, *(organisation["name"] for organisation in account.get("orgs", []))]
    if repo.split("/")[0] not in namespaces:
        raise ValueError(
            f"--repo: expected a name under {' or '.join(namespaces)}, which this token belongs to, got {repo!r}. "
            "Log in as that user, or choose another name. Nothing has been uploaded."
        )
    return repo


@contextmanager
def _explained(doing: str, state: str) -> Iterator[None]:
    """Turns what huggingface_hub raises in the block into one clear ValueError that also says what is on the Hub."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{doing}: HF_HUB_OFFLINE is set. {state} Unset it and run the same command again.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: f"The token was not accepted. {LOGIN} or in HF_TOKEN.",
            403: f"The token has no right to do that. {LOGIN} or in HF_TOKEN.",
        }.get(status, "Run the same command again in a while.")
        detail = error.server_message or str(error).splitlines()[0]
        raise ValueError(f"{doing}: the Hub answered {status} ({detail}). {state} {advice}") from error
    except HTTPError as error:
        raise ValueError(
            f"{doing}: the Hub cannot be reached ({error or type(error).__name__}). {state} "
            "Check the network and run the same command again."
        ) from error
