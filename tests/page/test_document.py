"""The document in the browser (`document.js`), apart from the page: cuts, history, storage form; against Python and by
its own laws."""

import json
import random
from typing import Any

import pytest

ALPHABET = ["a", "b", " ", "\n", "é", "😀", "\ud83d", "<b>"]
CUT = """
(cases) => cases.map(([state, text]) => {
  const { tokens, origin } = window.scratch.history.cut(state, text, "typing");
  return [tokens.length, origin];
})
"""
WALK = """
(walks) => walks.map((steps) => {
  const { History, EMPTY, pack, unpack, cut, grow, toContinue, endOf } = window.scratch.history;
  const problems = [];
  const holds = (condition, what) => condition || problems.push(what);
  const check = ({ text, tokens, origin }) => {
    let end = 0;
    for (const token of tokens) {
      holds(token.start >= end && text.startsWith(token.text, token.start), `token ${token.text} in ${text}`);
      end = endOf(token);
    }
    holds(origin === null || origin <= text.length, "origin");
  };
  const history = new History();
  let now = 0;
  for (const step of steps) {
    now += step.pause;
    const before = history.state;
    if (step.kind === "undo" || step.kind === "redo") {
      const can = step.kind === "undo" ? history.canUndo : history.canRedo;
      history[step.kind]();
      holds(can || history.state === before, "nothing to undo");
      if (can) {
        history[step.kind === "undo" ? "redo" : "undo"]();
        holds(history.state === before, "undo and redo");
        history[step.kind]();
      }
    } else if (step.kind === "model") {
      const base = toContinue(before);
      let state = base;
      const pieces = [];
      for (const text of step.tokens) {
        pieces.push({ id: pieces.length, label: text, text, obstacle: "", model: "m" });
        const row = [text, pieces.length - 1, 0.5, 0.25, 3, 0, [pieces.length - 1, 0.5, 0.25]];
        state = grow(state, { text, rest: "", tokens: [row] }, pieces);
        check(state);
      }
      holds(state.text === base.text + step.tokens.join("").replaceAll("\\r", "\\n"), "grown text");
      holds(state.tokens.length === base.tokens.length + step.tokens.length, "grown tokens");
      history.add(state);
      holds(!history.canRedo, "redo after a new step");
    } else {
      history.type(step.text, step.kind, now);
      holds(history.state.text === step.text, "typed text");
      holds(history.state.tokens.length >= cut(before, step.text, "").tokens.length, "tokens of the typed text");
      holds(!history.canRedo, "redo after typing");
      const typed = history.state.text;
      if (typed !== before.text) {
        history.undo();
        history.redo();
        holds(history.state.text === typed, "redo of the typed text");
      }
    }
    check(history.state);
    const again = unpack(JSON.parse(JSON.stringify(pack(history))));
    const plain = (each) => JSON.stringify([each.at, each.states]);
    holds(plain(again) === plain(history), "pack and unpack");
  }
  const texts = history.states.map((state) => state.text);
  while (history.canUndo) history.undo();
  holds(history.state.text === texts[0], "undo to the beginning");
  for (const text of texts) {
    holds(history.state.text === text, "redo to the end");
    history.redo();
  }
  return problems;
})
"""
UNPACK = """
(cases) => cases.map((packed) => {
  try {
    const history = window.scratch.history.unpack(packed);
    window.scratch.history.pack(history);
    return "";
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
})
"""
PACKED = """
() => {
  const { History, pack, grow, toContinue, branch } = window.scratch.history;
  const history = new History();
  history.type("The lamp", "insert", 0);
  const pieces = [" x", " y"].map((text, id) => ({ id, label: text, text, obstacle: "", model: "m" }));
  const row = [" x", 0, 0.5, 0.25, 3, 0, [0, 0.5, 0.25, 1, 0.125, 0]];
  history.add(grow(toContinue(history.state), { text: " x x", rest: "", tokens: [row, row] }, pieces));
  history.add(branch(history.state, 1, 1));
  history.undo();
  return pack(history);
}
"""


@pytest.fixture
def page(lab_page: Any) -> Any:
    """The page with its scripts."""
    lab_page.wait_for_function("window.scratch?.history")
    return lab_page


def words(choice: random.Random, most: int) -> str:
    return "".join(choice.choices(ALPHABET, k=choice.randrange(most + 1)))


def state_of(choice: random.Random) -> dict[str, Any]:
    """A text of typed and generated parts."""
    text, tokens = words(choice, 4), []
    for _ in range(choice.randrange(7)):
        piece = words(choice, 2)
        tokens.append({"start": utf16(text), "text": piece, "isInside": choice.random() < 0.2})
        text += piece + (words(choice, 3) if choice.random() < 0.3 else "")
    return {"text": text, "tokens": tokens, "origin": choice.choice([None, choice.randrange(utf16(text) + 1)])}


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(state: dict[str, Any], text: str) -> list[Any]:
    """How many tokens stay, and the origin, by the letter of what document.js promises."""
    old, new = (each.encode("utf-16-le", "surrogatepass") for each in (state["text"], text))
    same = next((at for at in range(0, min(len(old), len(new)), 2) if old[at : at + 2] != new[at : at + 2]), None)
    same = (min(len(old), len(new)) if same is None else same) // 2
    tokens = state["tokens"]
    count = max(
        count
        for count in range(len(tokens) + 1)
        if all(token["start"] + utf16(token["text"]) <= same for token in tokens[:count])
    )
    while 0 < count < len(tokens) and tokens[count]["isInside"]:
        count -= 1
    return [count, state["origin"] if state["origin"] is not None and state["origin"] <= same else None]


def test_tokens_stay_as_far_as_the_text_before_their_end_is_unchanged(page):
    choice, cases = random.Random(3), []
    for _ in range(600):
        state = state_of(choice)
        at = choice.randrange(len(state["text"]) + 1)
        end = choice.randrange(at, len(state["text"]) + 1)
        cases.append([state, state["text"][:at] + words(choice, 2) + state["text"][end:]])
    assert page.evaluate(CUT, cases) == [cut(*case) for case in cases]


def test_the_laws_of_the_history(page):
    choice, walks = random.Random(4), []
    for _ in range(60):
        steps: list[dict[str, Any]] = []
        text = ""
        for _ in range(choice.randrange(1, 30)):
            kind = choice.choice(["insert", "insert", "insert", "delete", "model", "undo", "redo"])
            step = {"kind": kind, "pause": choice.choice([10, 200, 1500])}
            if kind == "model":
                step["tokens"] = [words(choice, 2) for _ in range(choice.randrange(5))]
            elif kind == "insert":
                at = choice.randrange(len(text) + 1) if choice.random() < 0.3 else len(text)
                text = text[:at] + choice.choice(ALPHABET) + text[at:]
                step["text"] = text
            elif kind == "delete":
                text = text[: -choice.randrange(1, 3)]
                step["text"] = text
            steps.append(step)
        walks.append(steps)
    assert [problems for problems in page.evaluate(WALK, walks) if problems] == []


def test_no_broken_history_is_taken_and_none_breaks_the_page(page):
    packed = page.evaluate(PACKED)
    choice = random.Random(5)
    wrong: list[Any] = [None, 5, "x", [], {}, {**packed, "version": 2}]
    odd = [None, -1, 1.5, "x", [], {}, 10**9, True]

    def change(value: Any) -> Any:
        if isinstance(value, dict) and value:
            key = choice.choice(list(value))
            return {**value, key: choice.choice(odd) if choice.random() < 0.5 else change(value[key])}
        if isinstance(value, list) and value:
            at = choice.randrange(len(value))
            rest = [choice.choice(odd)] if choice.random() < 0.5 else [change(value[at])]
            return value[:at] + (rest if choice.random() < 0.8 else []) + value[at + 1 :]
        return choice.choice(odd)

    wrong += [change(packed) for _ in range(800)]
    said = page.evaluate(UNPACK, [*wrong, packed])
    assert said[-1] == ""
    assert all(message == "" or message.startswith("Error: expected ") for message in said), set(said)
    assert said[:6].count("") == 0
    assert "a history of version 1, got 2" in said[5]
    assert len(set(said)) > 6
    assert json.dumps(packed).count('"m"') == 1


def test_typing_is_grouped_and_a_letter_deleted_again_costs_no_token(page):
    states = page.evaluate(
        """() => {
          const { History, grow, toContinue } = window.scratch.history;
          const history = new History();
          let now = 0;
          for (const text of ["T", "Th", "The"]) history.type(text, "insert", now += 100);
          history.type("The l", "insert", now += 3000);
          history.type("The ", "delete", now += 100);
          const pieces = [{ id: 0, label: "x", text: "x", obstacle: "", model: "m" }];
          const row = ["x", 0, 0.5, 0.25, 3, 0, []];
          history.add(grow(toContinue(history.state), { text: "xx", rest: "", tokens: [row, row] }, pieces));
          history.type("The x!x", "insert", now += 5000);
          const after = history.state.tokens.length;
          history.type("The xx", "delete", now += 100);
          return [history.states.map((state) => state.text), after, history.state.tokens.length];
        }"""
    )
    assert states == [["", "The", "The l", "The ", "The xx", "The x!x", "The xx"], 1, 2]


def test_what_a_key_over_a_selection_takes_away_can_be_undone(page):
    """As after Ctrl+A in place of Shift+A, while one types."""
    states = page.evaluate(
        """() => {
          const { History } = window.scratch.history;
          const walk = (...steps) => {
            const history = new History();
            steps.forEach(([text, kind], number) => history.type(text, kind, 100 * number));
            return history.states.map((state) => state.text);
          };
          return [
            walk(["a", "insert"], ["ab", "insert"], ["abc", "insert"], ["x", "insert"], ["xy", "insert"]),
            walk(["one", "insertFromPaste"], ["two", "insertFromPaste"]),
            walk(["k", "insertCompositionText"], ["か", "insertCompositionText"], ["かk", "insertCompositionText"]),
          ];
        }"""
    )
    assert states == [["", "abc", "xy"], ["", "one", "two"], ["", "かk"]]
