"""The pages in docs/: links lead somewhere, commands parse, tables and diagrams say what the configs say."""

import importlib.util
import re
import shlex
from pathlib import Path

import nbformat
import pytest
import tyro

import app
import corpus.__main__
import tokenization.__main__
from modeling.sizing import count_parameters, flops_per_token
from train.__main__ import parse
from train.config import Config, as_json
from train.recipes import RECIPES, get_recipe

DOCS = Path(__file__).parents[2] / "docs"
ROOT = DOCS.parent
RECIPES_PAGE = (DOCS / "recipes.md").read_text(encoding="utf-8")
TOUR = (DOCS / "tour.md").read_text(encoding="utf-8")
TUTORIALS = (DOCS / "tutorials.md").read_text(encoding="utf-8")
PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")])
SYSTEMS = ("scifi", "bookcorpus", "openwebtext", "wikitext", "wiki", "modern")

OTHER_PROGRAMS = {"llama-completion", "accelerate", "curl", "python3", "judge/bin/pip", "judge/bin/python"}
"""Of docs/native.md, compatibility.md and evaluate.md."""


def prose(page: Path) -> str:
    """The Markdown of a page or of a notebook."""
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    notebook = nbformat.read(page, as_version=4)
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """From the heading that begins with `title` in backquotes to the next heading."""
    found = re.search(rf"^###? `{title}`.*?(?=^##|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found, title
    return found[0]


def table(text: str, *header: str) -> list[dict[str, str]]:
    """The rows of the table with that header; backquotes and thousands separators are taken away."""
    lines = iter(text.splitlines())
    for line in lines:
        if tuple(cell.strip() for cell in line.strip("| ").split("|")) == header:
            break
    else:
        raise AssertionError(f"no table with the header {header}")
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        cells = [re.sub(r"(?<=\d),(?=\d)", "", cell.strip().strip("`")) for cell in cells]
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in blocks(prose(page), "sh")
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
# The walk through the READMEs has its commands in the cells of its tables.
COMMANDS += [("tutorials.md", command) for command in re.findall(r"`((?:python|make) [^`]+)`", TUTORIALS)]
TRAIN_COMMANDS = list(dict.fromkeys(command for _, command in COMMANDS if command.startswith("python -m train ")))


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\[[^]]*\]\(([^)\s]+)\)", prose(page))
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target == ROOT or ROOT in target.parents, f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(prose(target)), f"{page.name}: {link}"


def test_files_that_the_tour_names_are_there() -> None:
    folders = ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels", "tests")
    names = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")} | {"app.py"}
    for name in set(re.findall(r"\b\w[\w/]*\.py\b", TOUR)):
        assert (ROOT / name).is_file() if "/" in name else name in names, name


@pytest.mark.parametrize("command", TRAIN_COMMANDS)
def test_commands_of_training_parse(command: str) -> None:
    arguments = [word for word in shlex.split(command)[3:] if word != "--plan"]
    if arguments in (["--list"], ["scifi", "--help"]):
        return
    name, config = parse(arguments)
    assert name in RECIPES
    if "--corpus" in arguments:
        assert config.corpus.source == "local"


def test_other_commands_parse() -> None:
    for page, command in COMMANDS:
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command
        elif words[:2] == ["python", "app.py"]:
            app.parse(words[2:])
        elif words[:3] == ["python", "-m", "tokenization"]:
            tokenization.__main__.parser().parse_args(words[3:])
        elif words[:3] == ["python", "-m", "corpus"]:
            tyro.cli(corpus.__main__.Command, args=words[3:])  # type: ignore[arg-type]
        elif words[:3] == ["python", "-m", "train.sweep"]:
            assert words[3] in RECIPES, command
            assert "--trials" in words, command
        elif words[:2] == ["python", "-m"]:
            found = importlib.util.find_spec(words[2])
            assert found is not None, f"{page}: {command}"
            if found.submodule_search_locations:
                assert importlib.util.find_spec(f"{words[2]}.__main__") is not None, f"{page}: {command}"
        else:
            assert words[:2] in (["hf", "auth"], ["hf", "download"]) or words[0] in OTHER_PROGRAMS, f"{page}: {command}"


def test_every_recipe_is_described_and_shown() -> None:
    for name in RECIPES:
        described = section(RECIPES_PAGE, name)
        assert any(command.startswith(f"python -m train {name}") for command in blocks_of_commands(described)), name
    for name in SYSTEMS:
        assert "```mermaid" in section(TOUR, name)
        described = section(RECIPES_PAGE, name)
        assert "**Cost**" in described
        assert "**Expected**" in described


@pytest.mark.parametrize("name", SYSTEMS[:5])
def test_every_line_of_the_tutorials_has_its_result(name: str) -> None:
    rows = table(section(TUTORIALS, name), "README", "ours", "2026-11-29")
    assert len(rows) > 10
    for row in rows:
        assert row["README"], row
        assert row["2026-11-29"], row


def test_flags_in_the_tutorials_are_fields() -> None:
    flags = set(re.findall(r"--(\w+\.[\w-]+)", TUTORIALS))
    assert flags
    fields = {f"{part}.{field}" for part, values in as_json(Config()).items() for field in values}
    assert {flag.replace("-", "_").replace("no_", "") for flag in flags} <= fields


def blocks_of_commands(text: str) -> list[str]:
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


PARAMETERS = table(
    RECIPES_PAGE,
    *("recipe", "vocabulary", "token table", "positions", "blocks × one block"),
    *("last norm", "output layer", "parameters"),
)


def test_the_table_of_parameters_has_every_recipe() -> None:
    assert {row["recipe"] for row in PARAMETERS} == set(RECIPES) - {
        "debug",
        "chat",
    }  # chat has the model that it goes on from


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: row["recipe"])
def test_parameters_are_those_of_the_config_and_of_the_sum(row: dict[str, str]) -> None:
    config = get_recipe(row["recipe"]).model.build(vocab_size=int(row["vocabulary"]), end_of_text=0)
    parameters = int(row["parameters"])
    assert parameters == count_parameters(config)
    blocks, block = map(int, row["blocks × one block"].split(" × "))
    assert blocks == config.num_hidden_layers
    rest = sum(int(row[name]) for name in ("token table", "positions", "last norm", "output layer"))
    assert parameters == rest + blocks * block


def test_parameters_in_the_text() -> None:
    bookcorpus = get_recipe("bookcorpus").model
    masked = count_parameters(bookcorpus.build(vocab_size=50_258, end_of_text=0))
    assert f"{masked:,}" in RECIPES_PAGE
    _, waves = parse(["bookcorpus", "--model.position-embedding", "sinusoidal"])
    assert f"{count_parameters(waves.model.build(vocab_size=50_257, end_of_text=0)):,}" in RECIPES_PAGE
    characters = [count_parameters(get_recipe("openwebtext").model.build(vocab_size=n, end_of_text=0)) for n in (9, 10)]
    assert f"each further character costs {characters[1] - characters[0]} parameters" in RECIPES_PAGE


COSTS = table(RECIPES_PAGE, "recipe", "tokens a step", "TFLOP a step", "steps", "tokens in all", "TFLOP in all")


@pytest.mark.parametrize("row", COSTS, ids=lambda row: row["recipe"])
def test_costs_are_those_of_the_config(row: dict[str, str]) -> None:
    recipe = get_recipe(row["recipe"])
    vocabulary = next(int(other["vocabulary"]) for other in PARAMETERS if other["recipe"] == row["recipe"])
    length = recipe.model.max_position_embeddings
    tokens, steps = recipe.data.batch_size * length, recipe.run.steps
    teraflops = tokens * flops_per_token(recipe.model.build(vocab_size=vocabulary, end_of_text=0), length) / 1e12
    assert (int(row["tokens a step"]), int(row["steps"])) == (tokens, steps)
    assert row["TFLOP a step"] == f"{teraflops:.2f}"
    assert row["tokens in all"] == f"{tokens * steps / 1e6:.1f} M"
    assert float(row["TFLOP in all"]) == pytest.approx(teraflops * steps, rel=0.01)


def number(value: int) -> str:
    return f"{value:,}"


@pytest.mark.parametrize("name", SYSTEMS)
def test_shapes_in_the_diagrams_are_those_of_the_config(name: str) -> None:
    recipe: Config = get_recipe(name)
    (diagram, *_) = blocks(section(TOUR, name), "mermaid")
    config = recipe.model.build(vocab_size=8257, end_of_text=0)
    assert config.head_dim is not None
    assert config.intermediate_size is not None
    batch, length = recipe.data.batch_size, config.max_position_embeddings
    width, heads, head_dim = config.hidden_size, config.num_attention_heads, config.head_dim
    inner = config.intermediate_size
    q, kind = heads * head_dim, "pre" if diagram.index("input_layernorm") < diagram.index("q_proj") else "post"
    assert kind == config.norm_position
    for text in (
        f"({batch}, {length})",
        f"one of {config.num_hidden_layers} blocks",
        f"q_proj, k_proj, v_proj: {width} → {q}, {'bias' if config.attention_bias else 'no bias'}",
        f"({batch}, {heads}, {length}, {head_dim})",
        f"q · k / √{head_dim}",
        f"weights ({batch}, {heads}, {length}, {length})",
        f"o_proj: {q} → {width}",
        f"up_proj: {width} → {number(inner)}",
        f"down_proj: {number(inner)} → {width}",
        f"x ({batch}, {length}, {width})",
        {"relu": "ReLU", "gelu": "GELU", "gelu_new": "gelu_new", "silu": "SiLU"}[config.hidden_act],
    ):
        assert text in diagram, text
    assert ("embed_positions" in diagram) == (config.position_embedding == "learned")
    if config.position_embedding == "learned":
        assert f"embed_positions: {number(length)} × {width}" in diagram
    assert ("RMSNorm" in diagram) == (config.norm == "rmsnorm")
    assert ("own weight" in diagram) == config.tie_word_embeddings
    head = next(line for line in diagram.splitlines() if "lm_head" in line)
    assert ("no bias" not in head and "own weight" not in head) == config.lm_head_bias
    for rate in {recipe.model.residual_dropout, recipe.model.attention_dropout} - {0.0, 0.2}:
        assert f"dropout {rate}" in diagram
