"""`verify` of a repository on the Hub and of an old bundle, and what `push` makes of the latter."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub_export import code_version
from hub_export.__main__ import main
from hub_export.bundle import RECORD, checksums
from hub_export.code_version import ROOT, installed_transformers, other_code, project_code
from hub_export.push import copy_bundle
from tests.hub_double import Fault, Hub
from tests.hub_export.conftest import contents, make_old, plant
from tests.hub_export.test_bundle import BUNDLE_FILES
from tests.hub_export.test_verify import SWALLOWED

Logged = Callable[[], list[str]]
OURS, INSTALLED = project_code(), installed_transformers()
MODULES = ("configuration_scratchgpt.py", "modeling_scratchgpt.py")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    caplog.set_level(logging.INFO, logger="hub_export")
    return lambda: caplog.messages


def verify(target: object, *flags: str) -> str:
    """The message with which `verify` ends."""
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(target), *flags])
    return str(caught.value)


def set_version(folder: Path, version: str) -> None:
    path = folder / "configuration_scratchgpt.py"
    code = re.sub(r'CODE_VERSION = ".*"', f'CODE_VERSION = "{version}"', path.read_text(encoding="utf-8"))
    path.write_text(code, encoding="utf-8")


def test_a_repository_that_works(
    hub: Hub, pristine_bundle: Path, logged: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = hub.create("alice/moons", files=contents(pristine_bundle))
    repository.tags["v1"] = commit = repository.head
    main(["verify", "alice/moons@v1"])
    name = f"alice/moons at commit {commit[:8]}"
    assert logged()[:2] == [
        f"downloading alice/moons at commit {commit[:8]} …",
        f"{name}: code of version {OURS.version}, which works with transformers {OURS.lowest} to {OURS.newest}: "
        "earlier versions are refused with a message, and later ones were not tested with it.",
    ]
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: verified in ")
    assert f"with transformers {INSTALLED}, " in printed
    assert "generation with a static cache" in printed
    assert not [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]


@pytest.mark.slow
def test_a_repository_with_the_first_code_is_affected(hub: Hub, made: Path, logged: Logged) -> None:
    repository = hub.create("alice/moons", files=contents(make_old(plant(made, SWALLOWED))))
    error = verify("alice/moons", "--trust-remote-code")
    name = f"alice/moons at commit {repository.head[:8]}"
    assert logged()[1] == (
        f"{name}: code of version 0.1.0, which works with transformers 5.21 to 5.23: earlier versions do not load it, "
        f"and with later ones it writes nonsense without an error. Installed is {INSTALLED}. "
        "`python -m hub_export push RUN --repo alice/moons`, with its run or the folder of `hf download alice/moons "
        f"--local-dir DIR` in the place of RUN, publishes it with the code of {OURS.version}, for transformers "
        f"{OURS.lowest} to {OURS.newest}."
    )
    assert error.startswith(
        f"error: {name}: expected a folder that works anywhere, but with transformers {INSTALLED} the check "
        "'generation with a cache' failed: "
    )
    assert error.endswith(
        "its code is of version 0.1.0, made for transformers 5.21 to 5.23: `python -m hub_export push` publishes it "
        "with this project's code."
    )


def test_later_code_is_not_run(hub: Hub, made: Path) -> None:
    set_version(made, "99.1")
    later = f"its code is of version 99.1, later than this project's {OURS.version} (it says that it works with "
    update = f"transformers {OURS.lowest} to {OURS.newest}). Update this project and run the same command again."
    repository = hub.create("alice/moons", files=contents(made))
    assert verify("alice/moons") == f"error: alice/moons at commit {repository.head[:8]}: {later}{update}"
    assert verify(made) == f"error: {made}: {later}{update}"
    with pytest.raises(ValueError, match="Update this project and run the same command again"):
        copy_bundle(made, made.with_name("copy"))


def plant_note(folder: Path, ran: Path) -> Path:
    """Make a bundle's model write a line into `ran` wherever its code runs, and its record fit."""
    with (folder / "modeling_scratchgpt.py").open("a", encoding="utf-8") as code:
        code.write(f"\nwith open({str(ran)!r}, 'a') as file:\n    file.write('it ran\\n')\n")
    record = json.loads((folder / RECORD).read_text()) | {"transformers": "5.1.0", "sha256": checksums(folder)}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def test_other_code_is_not_run_unless_asked_for(hub: Hub, made: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    repository = hub.create("alice/moons", files=contents(plant_note(made, ran)))
    differs = "expected this project's code, but modeling_scratchgpt.py differs from it, and the check would run it. "
    flag = "where you trust it, add --trust-remote-code to `python -m hub_export verify`."
    assert verify(made) == f"error: {made}: {differs}Read the code; {flag}"
    assert verify("alice/moons").startswith(f"error: alice/moons at commit {repository.head[:8]}: {differs}")
    assert not ran.exists()


@pytest.mark.slow
def test_other_code_is_run_where_that_is_asked_for(made: Path, tmp_path: Path) -> None:
    main(["verify", str(plant_note(made, tmp_path / "ran")), "--trust-remote-code"])
    assert "it ran" in (tmp_path / "ran").read_text()


def test_other_code_with_a_fitting_record_is_replaced_and_not_run(made: Path, tmp_path: Path, logged: Logged) -> None:
    """Whoever writes the code of a bundle can write its record too."""
    (made / "slow" / "helper.py").write_text("import nothing\n")
    plant_note(made, tmp_path / "ran")
    copy_bundle(made, tmp_path / "copy")
    assert not (tmp_path / "ran").exists()
    assert other_code(tmp_path / "copy") == []
    assert set(contents(tmp_path / "copy")) == BUNDLE_FILES
    assert logged()[0] == (
        f"{made} has code of version {OURS.version} that differs from this project's (modeling_scratchgpt.py, "
        f"slow/helper.py); it is uploaded with this project's, {OURS.version}, and checked with that"
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "alice/evil--configuration_scratchgpt.ScratchGPTConfig"}}),
        ("config.json", {"auto_map": {"AutoConfig": "evil.Config"}}),
        ("config.json", {"custom_pipelines": {"text-generation": {"impl": "alice/evil--pipeline.Evil"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "alice/evil--fast.Evil"]}}),
        ("slow/tokenizer_config.json", {"auto_map": ["evil.Slow", None]}),
    ],
)
def test_a_configuration_that_names_other_code_is_refused(
    made: Path, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    assert other_code(made) == []
    (made / name).write_text(json.dumps(json.loads((made / name).read_text()) | changes))
    (made / RECORD).write_text(json.dumps(json.loads((made / RECORD).read_text()) | {"sha256": checksums(made)}))
    assert other_code(made) == [name]
    with pytest.raises(ValueError, match=rf"name this project's code, but {re.escape(name)} names other code \(auto_"):
        copy_bundle(made, tmp_path / "copy")


def test_a_file_that_generates_is_other_code(made: Path) -> None:
    (made / "custom_generate").mkdir()
    (made / "custom_generate" / "generate.py").write_text("def generate(model):\n    return None\n")
    (made / "configuration_scratchgpt.py").unlink()
    assert other_code(made) == ["configuration_scratchgpt.py", "custom_generate/generate.py"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("alice/nothing", "alice/nothing: there is no such folder here, and the Hub shows no such repository. Check"),
        ("alice/moons@v7", "alice/moons: there is no revision 'v7'. Give a commit, a tag or a branch of it."),
        ("alice/moons", "expected a model with code of ours, model_type 'scratchgpt', got 'gpt2' without conf"),
        ("alice/empty", "expected a model folder, but it has no config.json. Give a folder that `python -m hub_export"),
        ("tests/nothing", "tests/nothing: expected a model folder, but it has no config.json."),
        ("moons", "moons: expected a model folder, but it has no config.json."),
        ("~nosuch/model", "expected the folder of a bundle, or `user/name` of a model on the Hub, got ~nosuch/model: "),
    ],
)
def test_what_is_no_model_of_ours_is_an_error(
    hub: Hub, target: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    hub.create("alice/moons", files={"config.json": b'{"model_type": "gpt2"}'})
    hub.create("alice/empty", files={"README.md": b"# nothing"})
    assert message in verify(target)


@pytest.mark.parametrize(
    ("answered", "answer", "message"),
    [
        (0, 503, r"looking at alice/moons: the Hub answered 503 \(.*\)\. Nothing was checked\. Run the same command"),
        (
            3,
            "cut",
            r"downloading alice/moons at commit \w+: the Hub cannot be reached \(.*\)\. Nothing was checked\. Check",
        ),
    ],
)
def test_a_hub_that_does_not_answer(
    hub: Hub, answered: int, answer: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.create("alice/moons", files={"config.json": b"{}"})
    hub.faults.append(Fault(request="", answer=answer, spared=answered))
    assert re.match(f"error: {message}", verify("alice/moons"))


@pytest.mark.slow
def test_an_old_bundle_is_copied_with_this_projects_code(made: Path, tmp_path: Path, logged: Logged) -> None:
    """As `hf download` makes it of a repository: the owner's card and a file of the owner's own are in it."""
    make_old(made)
    (made / ".cache" / "huggingface").mkdir(parents=True)
    (made / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (made / "picture.png").write_bytes(b"of the owner")
    (made / "native").mkdir()
    (made / "native" / "model.safetensors").write_bytes(b"of the owner")
    with (made / "README.md").open("a", encoding="utf-8") as card:
        card.write("By hand.\n")
    before = contents(made)
    copy_bundle(made, tmp_path / "copy")
    assert contents(made) == before
    copy = contents(tmp_path / "copy")
    assert set(copy) == BUNDLE_FILES
    assert copy["README.md"] == before["README.md"]
    assert copy["model.safetensors"] == before["model.safetensors"]
    for name in MODULES:
        assert copy[name] == (ROOT / "modeling" / name).read_bytes()
    record = json.loads(copy["proof.json"])
    assert (record["scratchgpt_version"], record["transformers"]) == (OURS.version, INSTALLED)
    assert json.loads(copy["config.json"])["scratchgpt_version"] == OURS.version
    assert json.loads(copy["tokenizer_config.json"])["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert logged()[:2] == [
        "left out, since no bundle has them: native/model.safetensors, picture.png",
        f"{made} has code of version 0.1.0, made for transformers 5.21 to 5.23; it is uploaded with this project's, "
        f"{OURS.version}, and checked with that",
    ]


def test_an_old_bundle_that_was_damaged_is_refused(made: Path, tmp_path: Path) -> None:
    make_old(made)
    (made / "slow" / "merges.txt").unlink()
    weights = bytearray((made / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (made / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"but model\.safetensors, slow/merges\.txt are not as then\. Download it"):
        copy_bundle(made, tmp_path / "copy")


@pytest.mark.slow
def test_a_bundle_checked_with_another_transformers_is_checked_again(
    made: Path, tmp_path: Path, logged: Logged
) -> None:
    record = json.loads((made / "proof.json").read_text()) | {"transformers": "5.1.0"}
    (made / "proof.json").write_text(json.dumps(record))
    copy_bundle(made, tmp_path / "copy")
    assert logged()[0] == f"{made} was checked with transformers 5.1.0; checking it with {INSTALLED}"
    assert json.loads((tmp_path / "copy" / "proof.json").read_text())["transformers"] == INSTALLED
    count = len(logged())
    copy_bundle(tmp_path / "copy", tmp_path / "again")
    assert len(logged()) == count
    assert contents(tmp_path / "again") == contents(tmp_path / "copy")


def write_configuration(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "configuration_scratchgpt.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("installed", "takes"),
    [("4.57.5", False), ("4.57.6", True), ("5.0.0rc1", True), ("5.24.0", True), ("5.24.9", True), ("5.25.0", False)],
)
def test_the_versions_that_code_works_with_are_read_from_it(tmp_path: Path, installed: str, takes: bool) -> None:
    text = 'CODE_VERSION = "0.2"\nLOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS = "4.57.6", "5.24.0"\n'
    code = code_version.read_code(write_configuration(tmp_path, text))
    assert code is not None
    assert (code.version, code.range) == ("0.2", "transformers 4.57.6 to 5.24.0")
    assert code.takes(installed) == takes


def test_code_without_a_mark_is_the_first(tmp_path: Path) -> None:
    assert code_version.read_code(tmp_path) is None
    write_configuration(tmp_path, "AUTO_MAP = {}\n")
    for architecture, newest in (("ScratchGPTForCausalLM", "5.23"), ("ScratchGPTForMaskedLM", "5.24")):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
        code = code_version.read_code(tmp_path)
        assert code is not None
        assert (code.version, code.range) == ("0.1.0", f"transformers 5.21 to {newest}")
        taken = [version for version in ("5.20.2", "5.21.0", "5.23.1", "5.25.0") if code.takes(version)]
        assert taken == ["5.21.0", "5.23.1"]


def test_a_mark_that_is_no_version_is_an_error(tmp_path: Path) -> None:
    write_configuration(tmp_path, 'CODE_VERSION = "new"\nLOWEST_TRANSFORMERS = "5.0"\n')
    with pytest.raises(ValueError, match=r"to be versions, got new, 5\.0, None\. The file was edited, or is dam"):
        code_version.read_code(tmp_path)
