import re
from pathlib import Path

import pytest

from hub_export.__main__ import main


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
        ("bundle", CARD | FORCE | {"--out", "--repo"}),
        ("push", CARD | FORCE | SWITCHES | {"--repo", "--hardware"}),
        ("space", CARD | FORCE | {"--repo", "--hardware", "--out"}),
        ("native", CARD | FORCE | {"--out"}),
        ("gguf", FORCE | {"--checkpoint", "--out", "--weights"}),
        ("onnx", FORCE | {"--checkpoint", "--out", "--cache", "--no-cache"}),
        ("account", {"--repo"}),
        ("verify", set()),
    ],
)
def test_the_commands_have_these_flags(command: str, flags: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert set(re.findall(r"--[a-z][a-z-]*", printed)) == flags | {"--help"}
