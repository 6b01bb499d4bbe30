"""Publishes a run or a bundle: account, check, one commit, a load from the Hub, a version tag."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from hub_export import card
from hub_export.bundle import (
    RECORD,
    bundle,
    changed_files,
    check_private,
    check_record,
    is_bundle,
    private_places,
    read_record,
    write_record,
)
from hub_export.client import (
    MARKS,
    HubClient,
    Remote,
    Target,
    Upload,
    check_target,
    files_of,
    is_ours,
    is_same_file,
    list_files,
    look,
    plan_upload,
    publish,
    repository_id,
    tag_version,
)
from hub_export.code_version import (
    MARK,
    installed_transformers,
    other_code,
    project_code,
    put_code,
    read_code,
    refuse_newer,
)
from hub_export.exports.common import Run
from hub_export.published import download_commit
from hub_export.space import HARDWARE, Pin, check_space_target, make_space
from hub_export.verify import PROBE_TEXT, run_isolated, verify
from modeling.stored.weights import WEIGHTS_NAME
from storage.files import temporary_folder
from storage.model_card import read_card
from storage.run_folder import RunFolder

MAY_BE_EDITED = ("README.md", "loss.png", "prompts.json", "*_scratchgpt.py")
"""Files of an older bundle that may differ from the checked ones: they are for people, or replaced here."""

logger = logging.getLogger(__name__)


def push(
    run: Run,
    repo: str,
    *,
    private: bool = False,
    space: bool = False,
    hardware: Literal["zero", "cpu-basic"] = "zero",
    dry_run: bool = False,
    force: bool = False,
    checkpoint: str = "best",
    license: str | None = None,
    language: str | None = None,
) -> str:
    """Publish a run, or a bundle that was checked, on the Hugging Face Hub: one commit, loaded from there, tagged.

    The account, the name and what is on the Hub under it are looked at first. Then the bundle is made and checked, and
    the plan of the upload is logged, before anything changes on the Hub. The model is uploaded in one commit, loaded
    from the Hub by that commit in an isolated process, and tagged with the next version. The Space comes last. Each
    step finds out whether it was done already, so the same call again completes what was interrupted.

    Args:
        run: the run folder, or a bundle that is as it was checked; an older one gets this project's code and a check.
        repo: `user/name`, or `name` for a repository of the token's own user.
        private: make new repositories private; one that exists must be.
        space: publish the page too, as a Space of the same name.
        hardware: what the Space runs on: ZeroGPU, which is free, or a CPU.
        dry_run: only look, and print what would be uploaded.
        force: replace what a repository holds that is not ours.
        checkpoint: `best`, `latest` or `step-NNNNNN`; only of a run, as what follows.
        license: license of the weights, as the Hub spells it, for the card; unset: as on the card that the repository
            has, else mit.
        language: language of the corpus, as a code, for the card; unset: as on that card, else en.

    Returns:
        What was published, with its addresses.

    Raises:
        ValueError: no usable token, a name the Hub refuses, a repository that is not ours, a public Space of a private
            model, a bundle that was changed, not checked or fails the check, a Hub that does not answer, or anything
            `bundle` raises.
        OSError: no room for the bundle.
    """
    hub, run = HubClient(), Path(run)
    refusal, target, page = None, Target(repo=repo), Target(repo=repo)
    given, published = {"license": license, "language": language}, dict[str, Any]()
    try:
        repo = repository_id(hub, repo)
        target = Target(repo=repo, private=private, force=force)
        page = Target(repo=repo, kind="space", private=private, hardware=HARDWARE[hardware].name, force=force)
        found = [check_target(hub, place) for place in ((target, page) if space else (target,))]
        if space and found[0] and found[0].private and not (private or (found[1] and found[1].private)):
            raise ValueError(
                f"{repo}: expected --private with --space, since this repository is private and a public Space would "
                "have a copy of its model; add --private, or leave out --space"
            )
        published = stated_terms(hub, target, found[0])
    except ValueError as error:
        if not dry_run:
            raise
        refusal = error
    with _bundled(run, repo, checkpoint=checkpoint, given=given, published=published) as folder:
        if refusal:
            logger.info("would be uploaded:\n%s", "\n".join(list_files(files_of(folder))))
            raise refusal
        upload = plan_upload(hub, folder, target)
        logger.info("%s\n%s", "would be uploaded:" if dry_run else "to be uploaded:", upload)
        # A Space has no token to load a private model with, so it gets a copy of it.
        is_private = upload.remote.private if upload.remote else private
        page_folder = folder.with_name("space")
        if space:
            planned = None if is_private else Pin(repo=repo, revision="0" * 40)
            make_space(folder, page_folder, pin=planned, hardware=hardware)
            logger.info("%s", plan_upload(hub, page_folder, page))
        if dry_run:
            return "nothing was uploaded (--dry-run)"
        commit, version = publish_model(hub, upload, folder)
        result = f"published: {hub.api.endpoint}/{repo}/commit/{commit} ({version})"
        if space:
            hub.completed, hub.hub_state = hub.hub_state, "Its Space is not there yet."
            pin = _pin(repo, look(hub, target), commit)  # an organisation may make what is new private by itself
            page = replace(page, private=private or pin is None)
            check_target(hub, page)
            make_space(folder, page_folder, pin=pin, hardware=hardware, force=True)
            check_private(page_folder, machine_paths=private_places(run))
            publish(hub, plan_upload(hub, page_folder, page))
            result += f"\npublished: {hub.api.endpoint}/spaces/{repo}"
        return result


def space(
    run: Run,
    out: Path,
    *,
    repo: str | None = None,
    hardware: Literal["zero", "cpu-basic"] = "zero",
    force: bool = False,
    checkpoint: str = "best",
    license: str | None = None,
    language: str | None = None,
) -> Path:
    """Make the folder of a Space: the page, what it needs, and the model or where it is on the Hub.

    Args:
        run: the run folder, or a bundle.
        out: the folder to make.
        repo: the model on the Hub (`user/name`, pushed before), which the page then loads at its present commit; unset,
            or where that is private: a copy of the model comes along.
        hardware: what it runs on: ZeroGPU, which is free, or a CPU.
        force: replace a Space that exists under this name.
        checkpoint: `best`, `latest` or `step-NNNNNN`; only of a run, as what follows.
        license: license of the weights, as the Hub spells it, for the card; unset: mit.
        language: language of the corpus, as a code, for the card; unset: en.

    Raises:
        ValueError: as `push`, or the model is not on the Hub.
        OSError: the folder cannot be written.
    """
    run = Path(run)
    check_space_target(out, force)
    given = {"license": license, "language": language}
    with _bundled(run, repo, checkpoint=checkpoint, given=given) as folder:
        pin = None
        if repo is not None:
            remote = look(HubClient(hub_state=""), Target(repo=repo))
            if remote is None or not is_same_file(folder / WEIGHTS_NAME, remote.files.get(WEIGHTS_NAME)):
                raise ValueError(
                    f"--repo: expected the model of {run} on the Hub, but {repo} "
                    f"{'is not there' if remote is None else 'holds other weights'}. Publish it with "
                    f"`python -m hub_export push {run} --repo {repo}`, or leave out --repo."
                )
            pin = _pin(repo, remote, remote.head)
        return make_space(folder, out, pin=pin, hardware=hardware, force=force)


def _pin(repo: str, remote: Remote | None, commit: str) -> Pin | None:
    """The model on the Hub that a Space loads; None, with a word, where it is private: a Space has no token."""
    if remote is not None and not remote.private:
        return Pin(repo=repo, revision=commit)
    logger.info("%s is private, and a Space could not load it: the Space gets a copy of the model", repo)
    return None


def check_account(repo: str) -> str:
    """Say who you are on the Hub, and whether a repository may be published under a name; changes nothing.

    Args:
        repo: `user/name`, or `name` for a repository of the token's own user.

    Returns:
        Who publishes where.

    Raises:
        ValueError: as `push` before it changes anything.
    """
    hub = HubClient()
    target = Target(repo=repository_id(hub, repo))
    remote = check_target(hub, target)
    return f"{target.repo} may be published: it is {'there, and one of ours' if remote else 'not there yet'}."


def publish_model(hub: HubClient, upload: Upload, folder: Path) -> tuple[str, str]:
    """Upload a checked bundle, load it from the Hub by its commit, and tag it.

    Returns:
        The commit and the tag.

    Raises:
        ValueError: the Hub refused or cannot be reached, or what it serves is not what was uploaded.
    """
    target = upload.target
    commit = publish(hub, upload)
    hub.hub_state = f"{target.repo} is on the Hub, complete, at commit {commit}, but without the tag of its version."
    check_published(hub, target.repo, commit, folder)
    version = tag_version(hub, target, commit)
    hub.hub_state = f"{target.repo} is on the Hub, complete, at commit {commit}, as {version}."
    return commit, version


def check_published(hub: HubClient, repo: str, commit: str, folder: Path) -> None:
    """Download a commit into an empty cache, load it from there in an isolated process, compare it, generate.

    This process downloads it: the one that runs its code has no token.

    Raises:
        ValueError: it does not load, computes something else, or generates something wrong.
    """
    logger.info("loading %s from the Hub by commit %s in an isolated process …", repo, commit[:8])
    task = {
        "check": "published",
        "repo": repo,
        "revision": commit,
        "folder": str(folder.resolve()),
        "probe": PROBE_TEXT,
    }
    with temporary_folder("scratchgpt-hub-") as cache:
        snapshot = download_commit(hub, repo, commit, cache=cache)
        report = run_isolated(task | {"snapshot": str(snapshot)}, hub_cache=cache)
    if "failed" in report:
        raise ValueError(
            f"loading {repo} from the Hub by commit {commit}: {' '.join(report['error'].split())}. "
            f"{hub.hub_state} Run the same command again: it loads it once more, and tags it when that works."
        )
    logger.info("it loads from there: %s", ", ".join(report["checks"]))


def stated_terms(hub: HubClient, target: Target, remote: Remote | None) -> dict[str, Any]:
    """`license` and `language` on the card of a repository of ours: what was published under one license stays under
    it, unless another is given.

    Raises:
        ValueError: the Hub does not answer.
    """
    name = "README.md"
    if remote is None or MARKS[target.kind] not in remote.uploaded or name not in remote.files:
        return {}
    with temporary_folder("scratchgpt-card-") as folder:
        place = {**target.place, "revision": remote.head, "local_dir": folder}
        hub.call(f"reading the card of {target.address}", hub.api.hf_hub_download, filename=name, **place)
        data, _ = read_card(folder)
    return {key: value for key in ("license", "language") if (value := data.get(key))}  # several languages are a list


@contextmanager
def _bundled(
    run: Path,
    repo: str | None,
    *,
    checkpoint: str,
    given: dict[str, str | None],
    published: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Path]:
    """The bundle to upload: made from a run, or a copy of a checked one, with a card that names the repository.

    Args:
        given: license and language; None: not given.
        published: those of the repository so far.
    """
    with temporary_folder("scratchgpt-push-") as scratch:
        folder = scratch / "bundle"
        if RunFolder(run).has_state or not (run.is_dir() and is_bundle(run)):
            license = given["license"] or published.get("license", card.LICENSE)
            language = given["language"] or published.get("language", card.LANGUAGE)
            bundle(run, folder, checkpoint=checkpoint, repo=repo, license=license, language=language)
            logger.info("the card says license: %s, language: %s (--license, --language)", license, language)
        else:
            if checkpoint != "best" or any(value is not None for value in given.values()):
                raise ValueError(
                    f"{run}: expected a run folder for --checkpoint, --license and --language, but this is a bundle, "
                    "which has them already. Leave them out, or push the run."
                )
            copy_bundle(run, folder, repo=repo)
        check_private(folder, machine_paths=private_places(run))
        yield folder


def copy_bundle(bundle: Path, folder: Path, *, repo: str | None = None) -> None:
    """Copy a checked bundle; one with other code than this project's gets this project's and is checked again.

    Its record does not vouch for its code, since whoever writes the one can write the other. A bundle that was checked
    with another transformers than the installed one is checked again too. A folder that `hf download` made of a
    repository is a bundle too: whoever has nothing else can publish it again.

    Args:
        bundle: the bundle; it is not changed.
        folder: the copy to make.
        repo: `user/name` on the Hub, for the card of a bundle that was made before it was known.

    Raises:
        ValueError: the bundle was changed since its check or has none, its code is later than this project's, its
            configurations name other code, or it fails the check.
        OSError: the copy cannot be written.
    """
    code, record, ours = read_code(bundle), read_record(bundle), project_code()
    refuse_newer(code, bundle)
    version = code.version if code else None
    other = other_code(bundle)
    is_current = version == ours.version and (not record or record.get(MARK) == version) and not other
    checked, installed = record.get("transformers"), installed_transformers()
    if is_current:
        check_record(bundle)
        shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        if checked != installed:
            logger.info("%s was checked with transformers %s; checking it with %s", bundle, checked, installed)
    else:
        _copy_ours(bundle, folder)
        put_code(folder)
        if left := other_code(folder):
            raise ValueError(
                f"{bundle}: expected configurations that name this project's code, but {', '.join(left)} "
                f"{'names' if len(left) == 1 else 'name'} other code (auto_map, custom_pipelines). Take that out, or "
                "push the run that it was made from."
            )
        logger.info(
            "%s has code of version %s%s%s; it is uploaded with this project's, %s, and checked with that",
            bundle,
            version,
            f" that differs from this project's ({', '.join(other)})" if version == ours.version and other else "",
            "" if code is None or code.takes(installed) else f", made for {code.range}",
            ours.version,
        )
    if repo is not None:
        card.set_repository(folder, repo)
    if not is_current or checked != installed:
        write_record(folder, verify(folder))
    elif repo is not None:
        write_record(folder)


def _copy_ours(bundle: Path, folder: Path) -> None:
    """Copy the files that a bundle of ours may have, and log the names of others.

    Raises:
        ValueError: weights, config or tokenizer are not as they were when the bundle was checked.
    """
    visible = [name for name in files_of(bundle) if not any(part.startswith((".", "__")) for part in name.split("/"))]
    ours = [name for name in visible if name == "README.md" or is_ours(name)]
    if (bundle / RECORD).is_file():
        changed = [name for name in changed_files(bundle) if name in ours or not (bundle / name).exists()]
        damaged = [
            name for name in changed if not any(fnmatch(name.split("/")[-1], pattern) for pattern in MAY_BE_EDITED)
        ]
        if damaged:
            raise ValueError(
                f"{bundle}: expected the files that were checked, but {', '.join(damaged)} "
                f"{'is' if len(damaged) == 1 else 'are'} not as then. Download it again (`hf download`), or push the "
                "run that it was made from."
            )
    if left := [name for name in visible if name not in ours]:
        logger.info("left out, since no bundle has them: %s", ", ".join(left))
    for name in ours:
        if name != RECORD:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, folder / name)
