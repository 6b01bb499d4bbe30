"""The folder of a Space: complete, described, pinned; and started for real in a virtual environment of its own."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import SpaceHardware, metadata_load

from hub_export.__main__ import main
from hub_export.space import HARDWARE, ROOT, Pin, make_space, page_files, requirements
from panels.generate import TIME_LIMIT
from tests.hub_double import WRITE_TOKEN, Hub
from tests.hub_export.conftest import contents
from tests.hub_export.hub_processes import environment
from tests.processes import CLEAN, running_page

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMPORT_ALL = """
import importlib, pathlib
for path in sorted(pathlib.Path().rglob("*.py")):
    if "bundle" not in path.parts:
        parts = path.with_suffix("").parts
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        assert pathlib.Path(module.__file__).resolve() == path.resolve(), module
"""
# What the package `spaces` does on ZeroGPU, as far as it shows: the function runs in a process forked from this one,
# arguments and what it yields are pickled, and closing the generator ends it before the next item.
SPACES = """
import multiprocessing, pickle
fork = multiprocessing.get_context("fork")
def GPU(*, duration):
    assert 0 < duration <= 60
    def decorate(task):
        def run(*arguments):
            receiver, sender = fork.Pipe(duplex=False)
            stop, arguments = fork.Event(), pickle.dumps(arguments)
            def work():
                for item in task(*pickle.loads(arguments)):
                    if stop.is_set():
                        break
                    sender.send(item)
                sender.send(None)
            process = fork.Process(target=work)
            process.start()
            try:
                while (item := receiver.recv()) is not None:
                    yield item
            finally:
                stop.set()
                process.join(20)
                print("process ended" if process.exitcode == 0 else "process hangs", flush=True)
        return run
    return decorate
"""
WRITE = """
import json, os, torch
from pathlib import Path
torch.set_num_threads(1)
from panels.context import AppContext
from panels.models import ModelLoader, default_source, find_model
from panels.generate import TIME_LIMIT, generate_queued
settings = dict(seed=7, max_new_tokens=20, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)
found = {"source": default_source(Path.cwd()), "time_limit": TIME_LIMIT}
for place in ("zero", "plain"):
    loader = ModelLoader(find_model(found["source"])).start()
    loaded, context = loader.wait(), AppContext(loader=loader)
    *_, draft = generate_queued(context, "The robot", **settings)
    object.__setattr__(loaded, "stop_token_ids", ())  # a text that only Stop ends
    seen = []
    for stopped in generate_queued(
        context, "The robot", should_stop=lambda: len(seen) > 1, **settings | {"max_new_tokens": 100_000}
    ):
        seen.append(stopped)
    found["name"], found["parameters"] = loaded.source.name, loaded.model.num_parameters()
    found[place] = [draft.text, draft.ending, stopped.ending, stopped.new_tokens < 100_000]
    print("that was", place, flush=True)
    os.environ.pop("SPACES_ZERO_GPU", None)
print(json.dumps(found))
"""


def front_matter(space: Path) -> dict:
    return metadata_load(space / "README.md") or {}


@pytest.fixture(scope="module")
def space(pristine_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Space with a copy of the model."""
    return make_space(pristine_bundle, tmp_path_factory.mktemp("space") / "moons")


def test_it_holds_the_page_and_the_model_and_nothing_else(space: Path, pristine_bundle: Path) -> None:
    page = {path.relative_to(ROOT).as_posix() for path in page_files()}
    model = {f"bundle/{name}" for name in contents(pristine_bundle)}
    assert contents(space).keys() == page | model | {"README.md", "requirements.txt"}
    packages = {name.split("/")[0] for name in page}
    assert packages == {"app.py", "corpus", "modeling", "panels", "storage", "tokenization"}
    assert {"panels/components/page.css", "panels/components/page.js", "modeling/modeling_scratchgpt.py"} <= page
    assert (space / "app.py").read_bytes() == (ROOT / "app.py").read_bytes()


def test_front_matter_is_what_a_space_of_gradio_needs(space: Path) -> None:
    found = front_matter(space)
    assert (found["sdk"], found["sdk_version"], found["app_file"]) == ("gradio", version("gradio"), "app.py")
    assert re.fullmatch(r"3\.1[0-9]\.\d+", found["python_version"])
    assert (found["title"], found["license"]) == ("scratchgpt-stories", "mit")
    assert found["tags"] == ["scratchgpt", "text-generation"]
    assert len(found["short_description"]) <= 60
    assert found["suggested_hardware"] == SpaceHardware.ZERO_A10G
    assert "models" not in found
    assert HARDWARE["cpu-basic"].name == SpaceHardware.CPU_BASIC


@pytest.mark.parametrize(("hardware", "torch"), [("zero", "2.11.0"), ("cpu-basic", version("torch").split("+")[0])])
def test_requirements_are_what_the_page_imports(
    pristine_bundle: Path, tmp_path: Path, hardware: str, torch: str
) -> None:
    made = make_space(pristine_bundle, tmp_path / "space", hardware=hardware)
    lines = (made / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert pinned["torch"] == torch
    assert {"transformers", "tokenizers", "safetensors", "regex", "numpy", "jinja2"} <= set(pinned)
    assert pinned["huggingface_hub"] == version("huggingface_hub")
    assert {"PyYAML", "markdown-it-py"} & set(pinned)  # imported as yaml and markdown_it
    assert not {"gradio", "spaces", "tyro", "datasets", "optuna", "matplotlib"} & set(pinned)
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in lines) == (hardware == "cpu-basic")
    assert front_matter(made)["suggested_hardware"] == HARDWARE[hardware].name


def test_versions_that_were_not_tested_together_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not requirements("zero").startswith("#")  # the tests run with what requirements.lock says
    assert not caplog.records
    other = {"transformers": "5.99.0", "gradio": "6.99.0"}
    monkeypatch.setattr("hub_export.space.version", lambda name: other.get(name) or version(name))
    first, *lines = requirements("zero").splitlines()
    assert first == (
        "# not the versions that were tested together (requirements.lock): "
        f"gradio 6.99.0 instead of {version('gradio')}, transformers 5.99.0 instead of {version('transformers')}"
    )
    assert {"transformers==5.99.0", f"tokenizers=={version('tokenizers')}", "torch==2.11.0"} <= set(lines)
    assert [record.getMessage() for record in caplog.records] == [f"the Space gets {first[2:]}"]


def test_everything_in_it_imports_and_it_writes_with_a_pinned_model_as_on_zerogpu(
    pristine_bundle: Path, tmp_path: Path
) -> None:
    """The process does not import this project. Since the commit was pinned, the model was removed from main."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "spaces.py").write_text(SPACES)
    with Hub().serve() as hub:
        files = contents(pristine_bundle)
        repository = hub.create("alice/moons", files=files)
        commit = repository.head
        made = make_space(pristine_bundle, tmp_path / "space", pin=Pin(repo="alice/moons", revision=commit))
        repository.commits.append({".gitattributes": b"", "README.md": b"the model was taken away"})
        variables = environment(hub.url, tmp_path, token=None, ours=False) | {"OMP_NUM_THREADS": "1"}
        installed = os.pathsep.join([str(tmp_path / "installed"), CLEAN])
        variables |= {"SPACES_ZERO_GPU": "true", "PYTHONPATH": installed}
        command = [sys.executable, "-c", IMPORT_ALL + WRITE]
        done = subprocess.run(
            command, cwd=made, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    loaded = json.loads(said[-1])
    assert (loaded["source"], loaded["name"]) == (f"alice/moons@{commit}", "scratchgpt-stories")
    assert loaded["parameters"] > 25_000
    assert not (made / "bundle").exists()
    found = front_matter(made)
    assert (found["title"], found["models"]) == ("moons", ["alice/moons"])
    (preloaded,) = found["preload_from_hub"]
    repo, names, revision = preloaded.split(" ")
    assert (repo, revision) == ("alice/moons", commit)
    loaded_files = set(names.split(","))
    assert {"config.json", "model.safetensors", "tokenizer.json", "slow/vocab.json", "README.md"} <= loaded_files
    assert loaded_files <= contents(pristine_bundle).keys()
    # On ZeroGPU only the writing is in the process with the GPU.
    assert said[:-1] == ["process ended", "process ended", "that was zero", "that was plain"]
    assert (loaded["time_limit"], TIME_LIMIT) == (50.0, 120.0)
    assert loaded["zero"] == loaded["plain"]
    assert loaded["zero"][0].startswith("The robot")
    assert len(loaded["zero"][0]) > len("The robot")
    assert loaded["zero"][2:] == ["stopped", True]


def test_a_name_that_is_not_free(pristine_bundle: Path, space: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a Space is there\. Add --force to replace it"):
        make_space(pristine_bundle, space)
    assert make_space(pristine_bundle, space, force=True) == space
    (tmp_path / "letters").mkdir()
    with pytest.raises(ValueError, match=r"something that is no Space is there \(so not even --force replaces it\)"):
        make_space(pristine_bundle, tmp_path / "letters", force=True)
    with pytest.raises(ValueError, match=r"no Space is there"):
        make_space(pristine_bundle, ROOT, force=True)
    with pytest.raises(ValueError, match=r"--hardware: expected one of zero, cpu-basic, got 't4'"):
        make_space(pristine_bundle, tmp_path / "new", hardware="t4")


def test_the_command_pins_what_is_on_the_hub(hub: Hub, pristine_bundle: Path, tmp_path: Path) -> None:
    files = contents(pristine_bundle)
    command = ["space", str(pristine_bundle), "--out", str(tmp_path / "space"), "--repo", "alice/moons"]
    with pytest.raises(SystemExit, match=r"but alice/moons is not there\. Publish it with `python -m hub_export push"):
        main(command)
    hub.create("alice/moons", files=files | {"model.safetensors": b"other weights"})
    with pytest.raises(SystemExit, match=r"but alice/moons holds other weights\. Publish it with"):
        main(command)
    commit = hub.create("alice/moons", files=files).head
    main(command)
    assert json.loads((tmp_path / "space" / "model.json").read_text()) == {"repo": "alice/moons", "revision": commit}


def test_the_command_copies_a_model_that_is_private_on_the_hub(
    hub: Hub, pristine_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    caplog.set_level("INFO", logger="hub_export")
    hub.create("alice/moons", files=contents(pristine_bundle), private=True)
    main(["space", str(pristine_bundle), "--out", str(tmp_path / "space"), "--repo", "alice/moons"])
    assert not (tmp_path / "space" / "model.json").exists()
    assert "bundle/model.safetensors" in contents(tmp_path / "space")
    assert "alice/moons is private, and a Space could not load it: the Space gets a copy of the model" in caplog.text


@pytest.mark.slow
def test_it_starts_in_a_virtual_environment_of_its_own(pristine_bundle: Path, tmp_path: Path) -> None:
    from gradio_client import Client

    space = make_space(pristine_bundle, tmp_path / "space", hardware="cpu-basic")
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run(
        [*install, f"gradio=={front_matter(space)['sdk_version']}", "-r", "requirements.txt"], cwd=space, check=True
    )
    texts = []
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    variables |= {"HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_OFFLINE": "1"}
    for package in (None, "spaces"):  # as on any machine, then as on a Space, where that package is installed
        if package:
            subprocess.run([*install, package], check=True)
        log = tmp_path / f"{package}.log"
        with running_page(python, "app.py", folder=space, environment=variables, log=log) as address:
            client = Client(address, verbose=False)
            texts.append(client.predict("The robot", 12, 0.8, 0, 1.0, 0.0, 1.0, 3, api_name="/generate"))
    assert texts[0].startswith("The robot")
    assert len(texts[0]) > len("The robot")
    assert texts[0] == texts[1]
