"""Publishes a run or a bundle: account, check, one commit, a load from the Hub, a version."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub_export import card
from hub_export.account import repository_id
from hub_export.bundle import bundle, check_private, looks_like_bundle
from hub_export.client import Conversation
from hub_export.manifest import RECORD, checksums
from hub_export.renewal import copy_bundle
from hub_export.run_folder import read_object
from hub_export.space import HARDWARE, Pin, check_space_target, make_space
from hub_export.upload import Target, Upload, check_target, is_same_file, look, plan_upload, publish, tag_version
from hub_export.verify import PROBE_TEXT
from modeling.loading import WEIGHTS_NAME

logger = logging.getLogger(__name__)

_LANDING = Path(__file__).with_name("upload_check.py")


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    space: bool = False,
    hardware: str = "zero",
    dry_run: bool = False,
    force: bool = False,
    checkpoint: str = "best",
    license: str = card.LICENSE,
    language: str = card.LANGUAGE,
) -> str:
    """Publishes a run, or a bundle that is as it was checked; an older one gets this project's code and a new check.

    The account, the name and what is on the Hub under it are looked at first. Then the bundle is made and checked, and
    all that will be uploaded is logged, before anything changes on the Hub. The model goes there in one commit, is
    loaded from there by that commit in an isolated process, and gets the next version as its tag. The Space comes last.
    Each step finds out whether it was done already, so the same call again completes what was interrupted.

    Args:
        run: the run folder, or a bundle made from one.
        repo: `user/name`, or `name` for a repository of the token's own user.
        private: whether repositories that are made now are private (default: no); one that exists must be.
        space: whether a Space with the page is published too, under the same name (default: no).
        hardware: the Space's, `zero` (default) or `cpu-basic`.
        dry_run: only look, and say what would be uploaded (default: no).
        force: replace repositories that are not ours (default: no).
        checkpoint, license, language: as those of `bundle`; only for a run.

    Returns:
        What there is now, in words, with its addresses.

    Raises:
        ValueError: no usable token, a name the Hub refuses, a repository that is not ours, a bundle that is dirty, was
            not checked or fails the check, a Hub that does not answer, or anything `bundle` raises.
        OSError: no room for the bundle.
    """
    from huggingface_hub import HfApi

    hub = Conversation(api=HfApi(library_name="scratchgpt"))
    run = Path(run)
    trouble = None
    try:
        repo = repository_id(hub, repo)
        target = Target(repo=repo, private=private, force=force)
        page = Target(repo=repo, kind="space", private=private, hardware=HARDWARE[hardware].name, force=force)
        for place in (target, page) if space else (target,):
            check_target(hub, place)
    except ValueError as error:
        if not dry_run:
            raise
        trouble = error
    with (
        tempfile.TemporaryDirectory(prefix="scratchgpt-push-") as scratch,
        _bundled(run, Path(scratch), repo, checkpoint=checkpoint, license=license, language=language) as folder,
    ):
        if trouble:
            logger.info("would be uploaded:\n%s", _listing(folder))
            raise trouble
        upload = plan_upload(hub, folder, target)
        logger.info("%s\n%s", "would be uploaded:" if dry_run else "to be uploaded:", upload)
        is_private = upload.remote.private if upload.remote else private
        pin = (
            None if is_private else Pin(repo=repo, revision="0" * 40)
        )  # a private model comes along, for want of a token
        page_folder = Path(scratch) / "space"
        if space:
            make_space(folder, page_folder, pin=pin, hardware=hardware)
            logger.info("%s", plan_upload(hub, page_folder, page))
        if dry_run:
            return "nothing was uploaded (--dry-run)"
        commit, version = publish_model(hub, upload, folder)
        said = f"published: {hub.api.endpoint}/{repo}/commit/{commit} ({version})"
        if space:
            if pin is not None:
                shutil.rmtree(page_folder)
                make_space(folder, page_folder, pin=Pin(repo=repo, revision=commit), hardware=hardware)
            hub.done, hub.standing = f"{hub.standing} ", "Its Space is not there yet."
            check_private(page_folder, machine_paths=_places(run))
            publish(hub, plan_upload(hub, page_folder, page))
            said += f"\npublished: {hub.api.endpoint}/spaces/{repo}"
        return said


def space(
    run: str | Path,
    out: str | Path,
    *,
    repo: str | None = None,
    hardware: str = "zero",
    force: bool = False,
    checkpoint: str = "best",
    license: str = card.LICENSE,
    language: str = card.LANGUAGE,
) -> Path:
    """Makes the folder of a Space.

    Args:
        run: the run folder, or a bundle.
        out: the folder to make.
        repo: `user/name` of the model on the Hub; its present commit is pinned, and must hold the weights of `run`.
            None (default) puts a copy of the model into the Space.
        hardware: `zero` (default) or `cpu-basic`.
        force: whether a Space that exists under this name is replaced (default: no).
        checkpoint, license, language: as those of `bundle`; only for a run.

    Raises:
        ValueError: as `push`, or the model is not on the Hub.
        OSError: the folder cannot be written.
    """
    from huggingface_hub import HfApi

    run, out = Path(run), Path(out)
    check_space_target(out, force)
    with (
        tempfile.TemporaryDirectory(prefix="scratchgpt-space-") as scratch,
        _bundled(run, Path(scratch), repo, checkpoint=checkpoint, license=license, language=language) as folder,
    ):
        pin = None
        if repo is not None:
            hub = Conversation(api=HfApi(library_name="scratchgpt"), standing="")
            remote = look(hub, Target(repo=repo))
            if remote is None or not is_same_file(folder / WEIGHTS_NAME, remote.files.get(WEIGHTS_NAME)):
                raise ValueError(
                    f"--repo: expected the model of {run} on the Hub, but {repo} "
                    f"{'is not there' if remote is None else 'holds other weights'}. Publish it with "
                    f"`python -m hub_export push {run} --repo {repo}`, or leave out --repo."
                )
            pin = Pin(repo=repo, revision=remote.head)
        return make_space(folder, out, pin=pin, hardware=hardware, force=force)


def check_account(repo: str) -> str:
    """Whether a model may be published under a name, before anything is made that takes long.

    Args:
        repo: `user/name`, or `name` for a repository of the token's own user.

    Returns:
        Who publishes where, in words.

    Raises:
        ValueError: as `push` before it changes anything.
    """
    from huggingface_hub import HfApi

    hub = Conversation(api=HfApi(library_name="scratchgpt"))
    target = Target(repo=repository_id(hub, repo))
    remote = check_target(hub, target)
    return f"{target.repo} may be published: it is {'there, and one of ours' if remote else 'not there yet'}."


def publish_model(hub: Conversation, upload: Upload, folder: Path) -> tuple[str, str]:
    """Uploads a checked bundle, loads it from the Hub by its commit, and tags it.

    Returns:
        The commit and the tag.

    Raises:
        ValueError: the Hub refused or cannot be reached, or what it gives back is not what was uploaded.
    """
    target = upload.target
    commit = publish(hub, upload)
    hub.standing = f"{target.repo} is on the Hub, whole, at commit {commit}, but without the tag of its version."
    verify_landing(hub, target.repo, commit, folder)
    version = tag_version(hub, target, commit)
    hub.standing = f"{target.repo} is on the Hub, whole, at commit {commit}, as {version}."
    return commit, version


def verify_landing(hub: Conversation, repo: str, commit: str, folder: Path) -> None:
    """Loads a commit from the Hub in an isolated process with an empty cache, compares it with the bundle, generates.

    Raises:
        ValueError: it does not load, computes something else, or generates something wrong.
    """
    from huggingface_hub import get_token

    logger.info("loading %s from the Hub by commit %s in an isolated process …", repo, commit[:8])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TRANSFORMERS_"))
    }
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    if token := get_token():
        environment["HF_TOKEN"] = token
    error = ""
    for _ in range(2):  # the network may have failed the first time; huggingface_hub does not retry every request
        with tempfile.TemporaryDirectory(prefix="scratchgpt-landing-") as scratch:
            task = Path(scratch) / "task.json"
            content = {"repo": repo, "revision": commit, "folder": str(folder.resolve()), "probe": PROBE_TEXT}
            task.write_text(json.dumps(content), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-P", str(_LANDING), str(task)],
                cwd=scratch,
                env=environment | {"HF_HOME": str(Path(scratch) / "hf_home")},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            report = task.with_name("report.json")
            found = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
        if done.returncode == 0 and "error" not in found:
            logger.info("it loads from there: %s", ", ".join(found["checks"]))
            return
        error = found.get("error") or done.stderr.strip()[-500:] or f"exit status {done.returncode}"
    raise ValueError(
        f"loading {repo} from the Hub by commit {commit}: {' '.join(error.split())}. {hub.standing} "
        "Run the same command again: it loads it once more, and tags it when that works."
    )


@contextmanager
def _bundled(
    run: Path, scratch: Path, repo: str | None, *, checkpoint: str, license: str, language: str
) -> Iterator[Path]:
    """The bundle to upload: made from a run, or a copy of one that is checked, with a card that knows its address."""
    folder = scratch / "bundle"
    if (run / "run.json").is_file() or not (run.is_dir() and looks_like_bundle(run)):
        bundle(run, folder, checkpoint=checkpoint, repo=repo, license=license, language=language)
    else:
        if (checkpoint, license, language) != ("best", card.LICENSE, card.LANGUAGE):
            raise ValueError(
                f"{run}: expected a run folder for --checkpoint, --license and --language, but this is a bundle, "
                "which has them already. Leave them out, or push the run."
            )
        copy_bundle(run, folder)
        if repo is not None:
            _address_card(folder, repo)
    check_private(folder, machine_paths=_places(run))
    yield folder


def _address_card(folder: Path, repo: str) -> None:
    """Puts the id of the repository into a card that was written before it was known."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    addressed = re.sub(r"\nPut the id of the repository, or .*? in the place of `your-name/[^`]*`\.\n", "\n", text)
    addressed = re.sub(r"\byour-name/[\w.-]+", repo, addressed)
    if addressed != text:
        path.write_text(addressed, encoding="utf-8", newline="\n")
        record = read_object(folder / RECORD) | {"sha256": checksums(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")


def _places(run: Path) -> tuple[Path, ...]:
    """What no file that is uploaded may name."""
    return run, Path.cwd(), Path.home(), Path(__file__).parents[1]


def _listing(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"  {path.stat().st_size:>13,}  {path.relative_to(folder).as_posix()}" for path in files)
