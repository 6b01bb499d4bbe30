"""Machines of others: Windows' rules for names, its encoding, no home, no temporary folder, one core, no AVX.

Windows is simulated: its rules are applied to the names that are made here.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PureWindowsPath

import pytest
import torch

from panels.training.launcher import slug
from storage.files import temporary_folder
from storage.run_folder import RunFolder
from tests.faults.stages import TINY
from tests.test_architecture import ROOT, SOURCES, name_of, tree_of
from tests.train.conftest import with_fields
from train.config import Config
from train.loop import train
from train.recipes import get_recipe

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
PATIENCE = 900


def fault_on_windows(name: str) -> str | None:
    """Why Windows does not take a name of a file or folder; None: it does."""
    if RESERVED.fullmatch(name):
        return "reserved"
    if name.endswith((".", " ")):
        return "ends with a dot or a space"
    if found := re.search(r'[<>:"/\\|?*\x00-\x1f]', name):
        return f"holds {found[0]!r}"
    return None


def tiny(run: Path, steps: int = 2) -> Config:
    """A run of a few steps."""
    return with_fields(
        get_recipe("debug"), corpus__stories=3, corpus__validation_stories=2, tokenizer__vocab_size=300,
        model__hidden_size=16, model__intermediate_size=32, model__head_dim=8, model__max_position_embeddings=32,
        data__batch_size=4, run__sample_tokens=3, run__threads=1, run__steps=steps, run__dir=run,
    )  # fmt: skip


def test_the_rules_are_those_of_windows() -> None:
    for name in ("con", "NUL", "nul.txt", "COM1", "lpt9.tar.gz", "a:b", "a.", "a ", "a?", "tab\t"):
        assert fault_on_windows(name), name
        if sys.version_info < (3, 13) and not name.endswith((".", " ")) and RESERVED.fullmatch(name):
            assert PureWindowsPath(name).is_reserved()
    for name in ("console", "step-000012", ".lock", "a.b", ".model.safetensors.0123456789ab.tmp"):
        assert fault_on_windows(name) is None, name


def test_every_file_of_the_project_and_of_a_run_has_a_name_that_windows_takes(tmp_path: Path) -> None:
    run = train(tiny(tmp_path / "run"), recipe="debug", quiet=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    made = [path.relative_to(run).as_posix() for path in run.rglob("*")]
    assert len(made) > 20
    for paths in (made, [path for path in listed.split("\0") if path]):
        assert len({path.casefold() for path in paths}) == len(paths)
        for path in paths:
            assert not [part for part in path.split("/") if fault_on_windows(part)], path
            assert len(path) < 150, path  # of the 260 that Windows has by default


TITLES = [
    "CON",
    "con.txt",
    "nul",
    "COM1",
    "LPT9",
    "a:b",
    "a/../b",
    "..",
    "C:\\x",
    "ends. ",
    " . ",
    "\0",
    "<|>",
    "ＣＯＮ",
]


@pytest.mark.parametrize("title", TITLES)
def test_a_run_that_is_named_on_the_page_has_a_name_that_windows_takes(title: str) -> None:
    name = slug(title)
    assert fault_on_windows(name) is None
    assert re.fullmatch(r"[a-z0-9-]+", name)


def test_text_files_are_read_and_written_as_utf8_everywhere() -> None:
    """Windows' default is another encoding."""
    for path in SOURCES:
        for node in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = {word.arg for word in node.keywords}
            constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if called in ("read_text", "write_text"):
                given = len(node.args) > (0 if called == "read_text" else 1)
                assert given or "encoding" in words, (name_of(path), node.lineno)
            if called == "open" and constants and constants[0] in ("r", "w", "a", "x", "r+", "w+"):
                assert "encoding" in words, (name_of(path), node.lineno)


def test_no_worker_depends_on_how_processes_are_started() -> None:
    """Workers are threads, and other processes are commands: nothing is forked, as Windows and macOS would not."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not [name for name in modules if "multiprocessing" in name], (name_of(path), node.lineno)
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.endswith(("ProcessPoolExecutor", "os.fork", "DataLoader")), (
                    name_of(path),
                    node.lineno,
                )


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_demo_has_a_run_and_a_bundle_for_each_recipe_and_text_without_gnu_realpath(tmp_path: Path) -> None:
    """Those of macOS know no `realpath -m`; the names are those that it gave."""
    (tmp_path / "realpath").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "realpath").chmod(0o755)

    def names(*words: str) -> list[str]:
        command = ["make", "-n", "demo", f"PYTHON={sys.executable}", *words]
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        told = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
        ).stdout
        return re.findall(r'--(?:bundle|run-dir) "(.*?)"', told)

    assert names() == ["bundle", "runs/stories"]
    assert names("RECIPE=debug") == ["bundles/debug", "runs/debug"]
    named = "modern-a-4194860952"
    assert names("RECIPE=modern", "CORPUS=/nonexist/../a.txt") == [f"bundles/{named}", f"runs/{named}"]
    assert len({names(f"CORPUS={folder}/a.txt")[0] for folder in ("one", "two")}) == 2


def test_without_a_temporary_folder_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with (
        pytest.raises(
            OSError,
            match=r"expected a temporary folder that may be written to: No usable .*\. Set TMPDIR to a folder that may",
        ),
        temporary_folder("x-"),
    ):
        pass


def test_a_run_does_not_fail_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As without a home and a temporary folder, where matplotlib cannot even be imported."""
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)

    class NoFolder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "matplotlib":
                raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(sys, "meta_path", [NoFolder, *sys.meta_path])
    run = RunFolder(train(tiny(tmp_path / "run"), recipe="debug"))
    assert run.state["status"] == "finished"
    assert not run.picture.exists()
    log = run.log.read_text()
    assert log.count("no loss.png: matplotlib has no folder for its cache (") == 1


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(True, True, "cuda"), (True, False, "cuda"), (False, False, "cpu")]
)
def test_the_device_that_a_model_is_loaded_onto(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str
) -> None:
    """Simulated: there is no GPU here. A model is served from CUDA where it is, else from the CPU, on a Mac too."""
    from modeling import loading

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    asked: list[str] = []

    class Stop(Exception):  # noqa: N818 (it ends the loading, which needs the device)
        pass

    def to(model: torch.nn.Module, place: str) -> None:
        asked.append(place)
        raise Stop

    monkeypatch.setattr("transformers.PreTrainedModel.to", to)
    with pytest.raises(Stop):
        loading.load_model(ROOT / "pretrained" / "scifi")
    assert asked == [device]


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "usual": {},
    "no HOME": {"HOME": None, "TMPDIR": None},
    "a HOME that is not there": {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
    "a HOME that cannot be written": {"HOME": "/proc", "TMPDIR": "/proc"},
    "one core": {},
    "no AVX": {"ATEN_CPU_CAPABILITY": "default"},
}
WRITE = (
    "from panels.models import load_model; from panels.generate import generate; "
    "from modeling.generation import SamplingSettings; "
    "loaded = load_model('pretrained/scifi'); settings = SamplingSettings(max_new_tokens=40, temperature=0.0); "
    "print(ascii([*generate(loaded, 'The robot', settings)][-1].text))"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its environments are those of Linux")
def test_training_and_writing_work_on_odd_machines(tmp_path: Path) -> None:
    texts, weights = {}, {}
    for name, changes in ENVIRONMENTS.items():
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment = {key: value for key, value in environment.items() if key not in changes}
        environment |= {key: value for key, value in changes.items() if value is not None}
        first = ["taskset", "-c", "0"] if name == "one core" and shutil.which("taskset") else []
        run = tmp_path / name.replace(" ", "-")
        # One process for both: the imports of a second one would cost more than all that is tested here.
        words = ["debug", *TINY, "--steps", "3", "--run-dir", str(run)]
        program = f"from train.__main__ import main; main({words}); {WRITE}"
        done = subprocess.run(
            [*first, sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (name, done.stderr[-2000:])
        assert "Traceback" not in done.stderr
        texts[name] = done.stdout.splitlines()[-1]
        weights[name] = (run / "checkpoints" / "step-000003" / "model.safetensors").read_bytes()
    assert {*texts.values()} == {texts["usual"]}  # the same tokens, also without AVX
    assert {weights[name] for name in ENVIRONMENTS if name != "no AVX"} == {weights["usual"]}
