"""A folder becomes a repository of the Hub: what would change is told first, then it changes in one commit."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from hub_export.client import AGAIN, AbsentError, Conversation

ALWAYS_THERE = (".gitattributes", "README.md")  # what the Hub itself puts into a repository
MARKS = {"model": "modeling_scratchgpt.py", "space": "modeling/modeling_scratchgpt.py"}
"""The file that says a repository is one of ours."""
OURS = {
    "model": (
        "*_scratchgpt.py", "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
        "loss.png", "prompts.json", "proof.json", "slow/*", "tokenizer*", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "merges.vocab", "merge_counts.json",
    ),
    "space": (
        "app.py", "bundle/*", "corpus/*", "modeling/*", "panels/*", "tokenization/*", "model.json", "requirements.txt",
    ),
}  # fmt: skip
"""What an earlier upload of ours may have left there; it goes when the new one has it no more. All else stays."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a folder goes."""

    repo: str  # user/name
    kind: Literal["model", "space"] = "model"
    private: bool = False  # of a repository that is made now
    hardware: str | None = None  # of a Space that is made now, by the Hub's name
    force: bool = False  # replace a repository that is not ours

    @property
    def address(self) -> str:
        """What people call it: `user/name`, `spaces/user/name`."""
        return self.repo if self.kind == "model" else f"spaces/{self.repo}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A repository as it is now."""

    head: str  # id of the latest commit on main
    private: bool
    files: dict[str, Any]  # huggingface_hub's RepoFile by path


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """What one commit would change."""

    target: Target
    files: dict[str, Path]  # by the path that each has there
    deleted: tuple[str, ...]  # paths that go
    remote: Remote | None  # None: the repository is not there yet

    def __str__(self) -> str:
        """One line a file, after one that says where they go."""
        target, there = self.target, self.remote
        visibility = "private" if (there.private if there else target.private) else "public"
        state = f"there, {visibility}, at commit {there.head[:8]}" if there else f"new, {visibility}"
        if target.hardware and not there:
            state += f", on {target.hardware}"
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        lines = [f"{target.address} ({state}): one commit of {len(sizes)} files, {sum(sizes.values()):,} bytes"]
        lines += [f"  {size:>13,}  {name}" for name, size in sorted(sizes.items())]
        lines += [f"{'delete':>15}  {name}" for name in self.deleted]
        return "\n".join(lines)


def plan_upload(hub: Conversation, folder: Path, target: Target) -> Upload:
    """What putting `folder` there would change; only looks.

    Raises:
        ValueError: the repository holds something that is not ours, or is public where a private one is asked for.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    remote = check_target(hub, target)
    present = _present(remote)
    is_ours = MARKS[target.kind] in present
    goes = [name for name in present if name not in files and (not is_ours or _made_by_us(name, target))]
    return Upload(target=target, files=files, deleted=tuple(sorted(goes)), remote=remote)


def check_target(hub: Conversation, target: Target) -> Remote | None:
    """The repository as it is now, when a folder may go there; None when there is none.

    Raises:
        ValueError: it holds something that is not ours, or is public where a private one is asked for.
    """
    remote = look(hub, target)
    present = _present(remote)
    if present and MARKS[target.kind] not in present and not target.force:
        raise ValueError(
            f"{target.address}: expected a new repository or one of ours (with {MARKS[target.kind]}), but it holds "
            f"{len(present)} other file{'s' if len(present) > 1 else ''} ({', '.join(sorted(present)[:5])}). "
            f"{hub.standing} Choose another --repo name, or add --force to replace what is there (its history stays)."
        )
    if remote and target.private and not remote.private:
        raise ValueError(
            f"{target.address}: expected a private repository, but it is there already and public. {hub.standing} "
            "Make it private in its settings on the Hub, choose another --repo name, or leave out --private."
        )
    return remote


def look(hub: Conversation, target: Target) -> Remote | None:
    """The repository as it is now; None when there is none (or it is private and somebody else's)."""
    try:
        info = hub.call(f"looking at {target.address}", hub.api.repo_info, target.repo, repo_type=target.kind)
        return hub.call(f"looking at the files of {target.address}", _tree, hub, target, info, again=False)
    except AbsentError:
        return None


def is_there(upload: Upload, remote: Remote) -> bool:
    """Whether the repository already holds exactly what the upload would bring about."""
    return not any(name in remote.files for name in upload.deleted) and all(
        is_same_file(path, remote.files.get(name)) for name, path in upload.files.items()
    )


def is_same_file(path: Path, there: Any) -> bool:
    """Whether a file here is the one there (None: not there), by SHA-256, or git's hash of a small one."""
    if there is None or path.stat().st_size != there.size:
        return False
    if there.lfs is not None:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == there.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == there.blob_id


def publish(hub: Conversation, upload: Upload) -> str:
    """Makes the repository where there is none, and puts the files there in one commit.

    A commit whose answer was lost is recognised by its files; what is there already is not committed again.

    Returns:
        The id of the commit that holds the files.

    Raises:
        ValueError: the Hub refused, or cannot be reached.
    """
    target, remote = upload.target, upload.remote
    if remote is None:
        space = {"space_sdk": "gradio", "space_hardware": target.hardware} if target.kind == "space" else {}
        hub.call(
            f"making the repository {target.address}",
            hub.api.create_repo,
            target.repo,
            repo_type=target.kind,
            private=target.private or None,
            exist_ok=True,
            **space,
        )
        hub.standing = f"The repository {target.address} is there, without its files."
        remote = look(hub, target)
        if remote is None:
            raise ValueError(f"{target.address} was made, but the Hub does not show it. {AGAIN}")
    else:
        hub.standing = f"{target.address} is there as it was, at commit {remote.head[:8]}."
    if is_there(upload, remote):
        logger.info("%s holds these files already, at commit %s", target.address, remote.head[:8])
        return remote.head
    return _commit(hub, upload, remote)


def tag_version(hub: Conversation, target: Target, commit: str) -> str:
    """Gives a commit the next version, `v1`, `v2` …, unless it has one; returns the tag."""
    refs = hub.call(f"reading the tags of {target.address}", hub.api.list_repo_refs, target.repo, repo_type=target.kind)
    versions = {tag.name: tag.target_commit for tag in refs.tags if re.fullmatch(r"v\d+", tag.name)}
    if name := next((name for name, at in versions.items() if at == commit), None):
        return name
    name = f"v{1 + max((int(name[1:]) for name in versions), default=0)}"
    hub.call(
        f"tagging {target.address}",
        hub.api.create_tag,
        target.repo,
        repo_type=target.kind,
        tag=name,
        revision=commit,
        exist_ok=True,
    )
    return name


def _commit(hub: Conversation, upload: Upload, remote: Remote) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    target, api = upload.target, hub.api
    additions = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
        for name, path in upload.files.items()
        if not is_same_file(path, remote.files.get(name))
    ]
    if additions:
        hub.call(
            f"uploading to {target.address}",
            api.preupload_lfs_files,
            again=False,
            repo_id=target.repo,
            repo_type=target.kind,
            additions=additions,
            free_memory=False,
        )
    message = "Upload a ScratchGPT model" if target.kind == "model" else "Upload the page of a ScratchGPT model"
    operations = [*additions, *(CommitOperationDelete(path_in_repo=name) for name in upload.deleted)]

    def commit() -> str:
        try:
            done = api.create_commit(
                target.repo,
                repo_type=target.kind,
                operations=operations,
                commit_message=message,
                parent_commit=remote.head,
            )
            return str(done.oid)
        except Exception:
            with contextlib.suppress(Exception):  # the failure of the commit is what will be told
                now = _tree(hub, target, api.repo_info(target.repo, repo_type=target.kind))
                if now.head != remote.head and is_there(upload, now):
                    logger.info("the commit had arrived, only its answer was lost")
                    return now.head
            raise

    before = hub.standing
    hub.standing = f"{before} Whether the commit arrived is not known; the same command finds out."
    oid = hub.call(f"committing to {target.address}", commit)
    hub.standing = f"{target.address} is on the Hub, whole, at commit {oid}."
    return oid


def _present(remote: Remote | None) -> list[str]:
    return [name for name in remote.files if name not in ALWAYS_THERE] if remote else []


def _tree(hub: Conversation, target: Target, info: Any) -> Remote:
    from huggingface_hub.hf_api import RepoFile

    tree: Iterable[Any] = hub.api.list_repo_tree(target.repo, repo_type=target.kind, revision=info.sha, recursive=True)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return Remote(head=str(info.sha), private=bool(info.private), files=files)


def _made_by_us(name: str, target: Target) -> bool:
    return any(fnmatch(name, pattern) for pattern in OURS[target.kind])
