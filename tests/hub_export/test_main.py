import re
from pathlib import Path

import pytest

from hub_export.__main__ import COMMANDS, main
from hub_export.exports.common import require


@pytest.mark.parametrize("arguments", [["bundle", "no-run", "--out", "out"], ["verify", "no-bundle"]])
def test_a_users_error_is_a_message_and_not_a_traceback(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert str(caught.value).startswith(f"error: {arguments[1]}: expected a ")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["publish"])
    assert caught.value.code == 2
    assert "bundle" in capsys.readouterr().err


CARD = {"--checkpoint", "--license", "--language"}
FORCE = {"--force", "--no-force"}
SWITCHES = {f"--{no}{name}" for no in ("", "no-") for name in ("private", "space", "dry-run")}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("bundle", CARD | FORCE | {"--out", "--repo", "--dtype"}),
        ("push", CARD | FORCE | SWITCHES | {"--repo", "--hardware"}),
        ("space", CARD | FORCE | {"--repo", "--hardware", "--out"}),
        ("native", CARD | FORCE | {"--out"}),
        ("gguf", FORCE | {"--checkpoint", "--out", "--weights"}),
        ("onnx", FORCE | {"--checkpoint", "--out", "--cache", "--no-cache"}),
        ("account", {"--repo"}),
        ("verify", {"--trust-remote-code", "--no-trust-remote-code"}),
    ],
)
def test_the_commands_have_these_flags(command: str, flags: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert set(re.findall(r"--[a-z][a-z-]*", printed)) == flags | {"--help"}


def test_ctrl_c_ends_a_command_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(repo: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "account", interrupted)
    with pytest.raises(SystemExit, match=r"^error: interrupted; the same command again completes what it was doing$"):
        main(["account", "--repo", "moons"])


def test_packages_that_are_not_installed_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require("json", "pathlib", for_what="anything")
    with pytest.raises(ValueError, match=r"^a file needs nope_1, which is not installed: pip install nope_1$"):
        require("json", "nope_1", for_what="a file")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command, needed, packages in (
        ("onnx", "an ONNX file needs onnx and onnxscript and onnxruntime, which are", "onnx onnxscript onnxruntime"),
        ("gguf", "a GGUF file needs gguf, which is", "gguf"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {needed} not installed: pip install {packages}$"):
            main([command, "no-run", "--out", str(tmp_path / "file")])
