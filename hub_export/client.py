"""The Hub client of a push: the account, what a repository holds, one commit, a tag; failures retried and explained."""

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from corpus.hub import connection_errors
from storage.text import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before the second try and those after it
LONGEST_WAIT = 60.0  # seconds; where the Hub asks for more (Retry-After), we give up
TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))  # statuses that may be gone at the next try
LOGIN = (
    "Make a token that may write at https://huggingface.co/settings/tokens and give it with `hf auth login` "
    "or in the environment variable HF_TOKEN"
)
TAG_TRIES = 10  # next versions, each of which another push may take first
CHANGED_MEANWHILE = "Something else changed the repository at the same time. Run the same command again."
ADVICE = {
    400: "Change what it names, and run the same command again.",
    401: f"The token was not accepted. {LOGIN}.",
    402: "The account would have to pay for that: choose other hardware (--hardware), or leave out --space.",
    403: f"The token has no right to do that. {LOGIN}.",
    409: CHANGED_MEANWHILE,
    412: CHANGED_MEANWHILE,
}
AGAIN = "Run the same command again in a while; it continues where this one stopped."

ALWAYS_THERE = (".gitattributes", "README.md")  # what the Hub itself puts into a repository
MARKS = {"model": "modeling_scratchgpt.py", "space": "modeling/modeling_scratchgpt.py"}
"""The file by which a repository is recognised as one of ours."""
OURS = {
    "model": (
        "*_scratchgpt.py", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
        "config.json", "generation_config.json", "loss.png", "prompts.json", "proof.json", "slow/*", "tokenizer.json",
        "tokenizer_config.json", "tokenizer.model", "tokenizer.vocab", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "merges.vocab", "merge_counts.json",
    ),
    "space": (
        "app.py", "bundle/**", "corpus/**", "modeling/**", "panels/**", "storage/**", "tokenization/**", "model.json",
        "requirements.txt",
    ),
}  # fmt: skip
"""What an earlier upload of ours may have left there; it is deleted when the new one lacks it. All else stays: `*`
matches within a folder, and only `**` the folders below it too."""

logger = logging.getLogger(__name__)


class AbsentError(ValueError):
    """The Hub shows no such repository."""


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(library_name="scratchgpt")


@dataclass(kw_only=True, slots=True)
class HubClient:
    """The calls of one command, and what they have changed so far."""

    api: "HfApi" = field(default_factory=_api)
    hub_state: str = "Nothing has been uploaded."
    """What is on the Hub now, for the message of a failure."""
    completed: str = ""
    """What earlier uploads of the same command have put there, for the same message."""
    waits: tuple[float, ...] = WAITS
    """Seconds before each further try; as many as there are further tries."""

    def call(self, action: str, function: Callable[..., T], *args: Any, again: bool = True, **kwargs: Any) -> T:
        """`function(*args, **kwargs)`, tried again after transient failures.

        Args:
            action: what the call does, for the message.
            again: whether to try again (default); no where huggingface_hub tries again by itself.

        Raises:
            ValueError: it failed; the message says what happened, what is on the Hub now and what to do.
            LocalTokenNotFoundError: there is no token.
            AbsentError: there is no such repository, or it is private and somebody else's.
        """
        for wait in (*(self.waits if again else ()), None):
            try:
                return function(*args, **kwargs)
            except Exception as error:
                cause, pause = self._judge(action, error)
                if wait is None or pause is None:
                    raise self.explain(action, cause) from error
                logger.info("%s: %s; trying again", action, _reason(cause))
                time.sleep(max(wait, pause))
        raise AssertionError("the last try returns or raises")

    def explain(self, action: str, cause: BaseException) -> ValueError:
        """The error of a call that failed."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        reason = _reason(cause)
        if isinstance(cause, OfflineModeIsEnabled):
            reason, advice = "HF_HUB_OFFLINE is set", "Unset it and run the same command again."
        elif isinstance(cause, HfHubHTTPError):
            advice = ADVICE.get(cause.response.status_code, AGAIN)
        elif isinstance(cause, ValueError) and not isinstance(cause, json.JSONDecodeError):
            reason, advice = str(cause).strip().replace("\n", " "), "Fix that and run the same command again."
        else:
            advice = f"Check the network. {AGAIN}"
        return ValueError(" ".join(filter(None, (f"{action}: {reason}.", self.completed, self.hub_state, advice))))

    def _judge(self, action: str, error: Exception) -> tuple[BaseException, float | None]:
        """The cause, and how many seconds the Hub asks us to wait; None where another try cannot help."""
        from huggingface_hub import get_token
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalTokenNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        cause = error
        while isinstance(cause, RuntimeError) and isinstance(cause.__cause__, Exception):  # of a file's upload
            cause = cause.__cause__
        if isinstance(cause, LocalTokenNotFoundError):
            raise cause
        if isinstance(cause, RepositoryNotFoundError) and not (cause.response.status_code == 401 and get_token()):
            raise AbsentError(str(self.explain(action, cause))) from error
        if isinstance(cause, HfHubHTTPError):
            if cause.response.status_code not in TRANSIENT:
                return cause, None
            retry_after = cause.response.headers.get("Retry-After") or ""
            pause = float(retry_after) if retry_after.isdigit() else 0.0
            return cause, pause if pause <= LONGEST_WAIT else None
        if isinstance(cause, OfflineModeIsEnabled):
            return cause, None
        if isinstance(cause, (*connection_errors(), RuntimeError, json.JSONDecodeError)):
            return cause, 0.0
        if isinstance(cause, ValueError):
            return cause, None
        raise error


def _reason(cause: BaseException) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError):
        detail = cause.server_message or first_line(cause)
        return f"the Hub answered {cause.response.status_code} ({detail.rstrip('.')})"
    if isinstance(cause, json.JSONDecodeError):
        return "the Hub answered something that is no JSON"
    return f"the Hub cannot be reached ({str(cause) or type(cause).__name__})"


def repository_id(hub: HubClient, repo: str) -> str:
    """The full id of a repository, `user/name`, once the token may write there.

    Args:
        hub: the client.
        repo: `user/name`, or `name` for a repository of the token's own user.

    Raises:
        ValueError: a name the Hub does not allow; no token, a wrong or a read-only one; somebody else's name.
    """
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(
            f"--repo: expected `name` or `user/name` as the Hub allows it, got {repo!r}: {error}"
        ) from error
    try:
        account = hub.call("asking the Hub who you are", hub.api.whoami)
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"expected an access token of the Hugging Face Hub, but there is none. {LOGIN}. {hub.hub_state}"
        ) from error
    user = str(account["name"])
    if not _may_write(account.get("auth", {}).get("accessToken", {})):
        raise ValueError(
            f"expected a token with the right to write, got a read-only one of {user}. {LOGIN}. {hub.hub_state}"
        )
    if "/" not in repo:
        return f"{user}/{repo}"
    namespaces = [user, *(str(organisation["name"]) for organisation in account.get("orgs", []))]
    if repo.split("/")[0] not in namespaces:
        raise ValueError(
            f"--repo: expected a name under {' or '.join(namespaces)}, which this token belongs to, got {repo!r}. "
            f"Log in as that user, or choose another name. {hub.hub_state}"
        )
    return repo


def _may_write(token: dict[str, Any]) -> bool:
    """Whether a token may write somewhere; a fine-grained one lists its rights globally and by repository."""
    if token.get("role") != "fineGrained":
        return token.get("role") != "read"
    rights = token.get("fineGrained", {})
    scoped = (right for scope in rights.get("scoped", []) for right in scope.get("permissions", []))
    return "repo.write" in (*rights.get("global", []), *scoped)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a folder is uploaded to."""

    repo: str  # user/name
    kind: Literal["model", "space"] = "model"
    private: bool = False  # of a repository that is made now
    hardware: str | None = None  # of a Space that is made now, by the Hub's name
    force: bool = False  # replace a repository that is not ours

    @property
    def address(self) -> str:
        """`user/name` or `spaces/user/name`."""
        return self.repo if self.kind == "model" else f"spaces/{self.repo}"

    @property
    def place(self) -> dict[str, Any]:
        """The arguments by which huggingface_hub knows the repository."""
        return {"repo_id": self.repo, "repo_type": self.kind}


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A repository as it is now."""

    head: str  # id of the latest commit on main
    private: bool
    files: dict[str, Any]  # huggingface_hub's RepoFile by path

    @property
    def uploaded(self) -> list[str]:
        """Paths of the files that somebody has uploaded."""
        return [name for name in self.files if name not in ALWAYS_THERE]


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """The plan of one commit."""

    target: Target
    files: dict[str, Path]  # by the path that each has there
    deleted: tuple[str, ...]  # paths to delete
    remote: Remote | None  # None: the repository is not there yet

    def __str__(self) -> str:
        """One line a file, after one for the repository."""
        target, remote = self.target, self.remote
        visibility = "private" if (remote or target).private else "public"
        state = f"there, {visibility}, at commit {remote.head[:8]}" if remote else f"new, {visibility}"
        if target.hardware and not remote:
            state += f", on {target.hardware}"
        size = sum(path.stat().st_size for path in self.files.values())
        lines = [f"{target.address} ({state}): one commit of {len(self.files)} files, {size:,} bytes"]
        return "\n".join([*lines, *list_files(self.files), *(f"{'delete':>15}  {name}" for name in self.deleted)])

    def is_done(self, remote: Remote) -> bool:
        """Whether the repository already holds exactly what the commit would bring about."""
        return not any(name in remote.files for name in self.deleted) and all(
            is_same_file(path, remote.files.get(name)) for name, path in self.files.items()
        )


def files_of(folder: Path) -> dict[str, Path]:
    """All files of a folder by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def is_ours(name: str, kind: str = "model") -> bool:
    """Whether a path in a repository of this kind is one that uploads of ours have, by `OURS`."""
    return any(
        fnmatch(name, pattern) and (pattern.endswith("**") or name.count("/") == pattern.count("/"))
        for pattern in OURS[kind]
    )


def list_files(files: dict[str, Path]) -> list[str]:
    """A line for each file: its size in bytes and its name."""
    return [f"  {path.stat().st_size:>13,}  {name}" for name, path in sorted(files.items())]


def is_same_file(path: Path, remote: Any) -> bool:
    """Whether a file here is the one on the Hub (a RepoFile; None: not there), by SHA-256, or git's hash."""
    if remote is None or path.stat().st_size != remote.size:
        return False
    if remote.lfs is not None:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == remote.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == remote.blob_id


def look(hub: HubClient, target: Target) -> Remote | None:
    """The repository as it is now; None when there is none (or it is private and somebody else's)."""
    try:
        info = hub.call(f"looking at {target.address}", hub.api.repo_info, **target.place)
        return hub.call(f"looking at the files of {target.address}", _read_remote, hub, target, info, again=False)
    except AbsentError:
        return None


def check_target(hub: HubClient, target: Target) -> Remote | None:
    """The repository as it is now, when a folder may be uploaded there; None when there is none.

    Raises:
        ValueError: it holds something that is not ours, or is public where a private one is asked for.
    """
    remote = look(hub, target)
    uploaded = remote.uploaded if remote else []
    if uploaded and MARKS[target.kind] not in uploaded and not target.force:
        raise ValueError(
            f"{target.address}: expected a new repository or one of ours (with {MARKS[target.kind]}), but it holds "
            f"{len(uploaded)} other file{'s' if len(uploaded) > 1 else ''} ({', '.join(sorted(uploaded)[:5])}). "
            f"{hub.hub_state} Choose another --repo name, or add --force to replace what is there (its history stays)."
        )
    if remote and target.private and not remote.private:
        raise ValueError(
            f"{target.address}: expected a private repository, but it is there already and public. {hub.hub_state} "
            "Make it private in its settings on the Hub, choose another --repo name, or leave out --private."
        )
    return remote


def plan_upload(hub: HubClient, folder: Path, target: Target) -> Upload:
    """What uploading `folder` would change; only looks.

    Raises:
        ValueError: as `check_target`.
    """
    files, remote = files_of(folder), check_target(hub, target)
    uploaded = remote.uploaded if remote else []
    replaces_all = MARKS[target.kind] not in uploaded  # it is not ours, and --force was given
    old = [name for name in uploaded if name not in files and (replaces_all or is_ours(name, target.kind))]
    return Upload(target=target, files=files, deleted=tuple(sorted(old)), remote=remote)


def publish(hub: HubClient, upload: Upload) -> str:
    """Make the repository where there is none, and upload the files in one commit, unless they are there already.

    Returns:
        The id of the commit that holds the files.

    Raises:
        ValueError: the Hub refused, or cannot be reached, or somebody else committed since the plan was made.
    """
    target, remote = upload.target, upload.remote
    if remote is None:
        options: dict[str, Any] = {"private": target.private or None, "exist_ok": True}
        if target.kind == "space":
            options |= {"space_sdk": "gradio", "space_hardware": target.hardware}
        hub.call(f"making the repository {target.address}", hub.api.create_repo, **target.place, **options)
        hub.hub_state = f"The repository {target.address} is there, without its files."
        remote = look(hub, target)
        if remote is None:
            raise ValueError(f"{target.address} was made, but the Hub does not show it. {AGAIN}")
    else:
        hub.hub_state = f"{target.address} is there as it was, at commit {remote.head[:8]}."
    if upload.is_done(remote):
        logger.info("%s holds these files already, at commit %s", target.address, remote.head[:8])
        return remote.head
    return _commit(hub, upload, remote)


def _commit(hub: HubClient, upload: Upload, remote: Remote) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    target, api = upload.target, hub.api
    additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in upload.files.items()]
    deletions = [CommitOperationDelete(path_in_repo=name) for name in upload.deleted]
    large = {"additions": additions, "free_memory": False}
    # Not again: it retries by itself, and skips what is there.
    hub.call(f"uploading to {target.address}", api.preupload_lfs_files, again=False, **target.place, **large)
    message = "Upload a ScratchGPT model" if target.kind == "model" else "Upload the page of a ScratchGPT model"

    def commit() -> str:
        try:
            made = api.create_commit(
                **target.place,
                operations=[*additions, *deletions],
                commit_message=message,
                parent_commit=remote.head,  # refused when somebody else has committed since the plan was made
            )
            return str(made.oid)
        except Exception:
            # The commit may have arrived and only its answer been lost; a second one would then be refused.
            with contextlib.suppress(Exception):
                now = _read_remote(hub, target, api.repo_info(**target.place))
                if now.head != remote.head and upload.is_done(now):
                    logger.info("the commit had arrived, only its answer was lost")
                    return now.head
            raise

    hub.hub_state += " Whether the commit arrived is not known; the same command finds out."
    oid = hub.call(f"committing to {target.address}", commit)
    hub.hub_state = f"{target.address} is on the Hub, complete, at commit {oid}."
    return oid


def _read_remote(hub: HubClient, target: Target, info: Any) -> Remote:
    from huggingface_hub.hf_api import RepoFile

    tree = hub.api.list_repo_tree(**target.place, revision=info.sha, recursive=True)
    files: dict[str, Any] = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return Remote(head=str(info.sha), private=bool(info.private), files=files)


def tag_version(hub: HubClient, target: Target, commit: str) -> str:
    """Give a commit the next version, `v1`, `v2` …, unless it has one; return the tag.

    Raises:
        ValueError: the Hub refused or cannot be reached, or others take each next version at the same time.
    """
    for _ in range(TAG_TRIES):
        refs = hub.call(f"reading the tags of {target.address}", hub.api.list_repo_refs, **target.place)
        versions = {tag.name: tag.target_commit for tag in refs.tags if re.fullmatch(r"v\d+", tag.name)}
        if name := next((name for name, at in versions.items() if at == commit), None):
            return name
        name = f"v{1 + max((int(name[1:]) for name in versions), default=0)}"
        # Another push may take the name first, which is no error here: only reading the tags again tells whose it is.
        tag = {"tag": name, "revision": commit, "exist_ok": True}
        hub.call(f"tagging {target.address}", hub.api.create_tag, **target.place, **tag)
    raise ValueError(f"tagging {target.address}: others take each next version. {hub.hub_state} {CHANGED_MEANWHILE}")
