import re
from pathlib import Path

import pytest

from hub_export.__main__ import main


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("native", {"--license", "--language"}),
        ("gguf", {"--weights"}),
        ("onnx", {"--cache", "--no-cache"}),
    ],
)
def test_the_commands_have_these_flags(command: str, flags: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    common = {"--help", "--out", "--checkpoint", "--force", "--no-force"}
    assert set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) == flags | common


def test_an_error_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["native", "no-run", "--out", "out"])
    assert str(caught.value).startswith("error: no-run: expected a run folder, but there is no such folder.")
    assert list(tmp_path.iterdir()) == []
