"""The writing loop in a terminal: a prompt, its continuation, the next prompt; a masked model fills blanks instead."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, TextIO

from panels.formats import model_facts, visible
from panels.generate import Draft, generate
from panels.models import LoadedModel, ModelLoader
from panels.sampling import DEFAULTS, number, settings_from, stop_text

if TYPE_CHECKING:
    from modeling.generation import SamplingSettings

HELP = """Type the beginning of a text and press Enter; an empty line lets the model begin.
  /continue           continue the last text
  /NAME VALUE         change a setting: {names}
  /settings           show the settings
  /help               this list
  /quit, Ctrl-D       leave (Ctrl-C stops a text that is being written)
A prompt that begins with a slash is typed with two.
"""
MASKED_HELP = """Type a text with blanks, ____, and press Enter: the likeliest words go into them, others are listed.
  /top N              list so many words for each blank (now {top})
  /help               this list
  /quit, Ctrl-D       leave
A text that begins with a slash is typed with two.
"""


class ModelError(ValueError):
    """The model cannot be loaded, which no other prompt changes."""


class Terminal:
    """The state of one session: the model, the settings, and the last text.

    The model may still be loading while the first prompt is typed."""

    def __init__(self, loader: ModelLoader, settings: dict[str, Any], source: TextIO, sink: TextIO) -> None:
        self.loader = loader
        self.settings = settings
        self.source = source
        self.sink = sink
        self.text = ""
        self.top = 5  # words listed for a blank
        parse_settings(settings)

    @property
    def loaded(self) -> LoadedModel:
        """The model, as soon as it is there. Raises ModelError when it cannot be loaded."""
        if not self.loader.done.is_set() and self.sink.isatty():
            self._say("Loading the model …")
        try:
            return self.loader.wait()
        except (ValueError, OSError) as error:
            raise ModelError(str(error)) from error

    @property
    def masked(self) -> bool:
        """Whether the model fills blanks; one that comes from the Hub says so when it is loaded."""
        return (self.loader.source if self.loader.source.folder else self.loaded.source).masked

    def run(self) -> None:
        """Read, write, and so on until the input ends or someone says quit.

        Raises ModelError when the model cannot be loaded."""
        source = self.loader.source if self.loader.source.folder else self.loaded.source
        self._say(" · ".join([source.name, *model_facts(source)]))
        self._say("/help lists the commands, quit leaves.")
        while (line := self._read()) is not None:
            if line.strip() in ("quit", "exit", "/quit", "/exit"):
                return
            try:
                if line.startswith("/") and not line.startswith("//"):
                    self._command(line[1:])
                else:
                    text = line.removeprefix("/") if line.startswith("//") else line
                    (self._fill if self.masked else self._write)(text)
            except ModelError:
                raise
            except ValueError as error:
                self._say(f"! {error}")

    def _read(self) -> str | None:
        """The next line, None at the end of the input."""
        if self.source.isatty():
            self._print("\n> ")
        try:
            line = self.source.readline()
        except KeyboardInterrupt:
            return None
        return line.rstrip("\r\n") if line else None

    def _command(self, line: str) -> None:
        name, _, value = line.strip().partition(" ")
        name = name.replace("-", "_")
        if self.masked:
            self._masked_command(name, value.strip())
        elif name == "continue":
            self._write(self.text)
        elif name == "help":
            self._say(HELP.format(names=", ".join([*DEFAULTS, "seed", "stop"])).rstrip())
        elif name == "settings":
            self._say("  ".join(f"{key} {worth}" for key, worth in (DEFAULTS | self.settings).items()))
        elif name in DEFAULTS or name in ("seed", "stop"):
            value = value if name == "stop" else value.strip()
            changed = self.settings | {name: value or None}
            if not value:
                del changed[name]
            parse_settings(changed)
            self.settings = changed
        else:
            raise ValueError(f"There is no command /{name}. /help lists them; a prompt with a slash begins with two.")

    def _masked_command(self, name: str, value: str) -> None:
        if name == "help":
            self._say(MASKED_HELP.format(top=self.top).rstrip())
        elif name == "top":
            top = number("top", value, int)
            if top < 1:
                raise ValueError(f"top: expected a whole number, 1 or more, got {top}.")
            self.top = top
        else:
            raise ValueError(f"There is no command /{name}. /help lists them; a text with a slash begins with two.")

    def _fill(self, text: str) -> None:
        """Fill the blanks of `text`, from left to right, each with the words before it in place."""
        from modeling.infilling import insert
        from panels.tabs.fill.filling import fill

        if not text:
            return
        listed = []
        blanks = fill(self.loaded, text, self.top)
        while blanks:
            blank = blanks[0]
            words = (f"{one.text.strip() or repr(one.text)} {one.probability:.0%}" for one in blank.candidates)
            listed.append("  ".join(words))
            text = insert(text, blank, blank.candidates[0])
            blanks = fill(self.loaded, text, self.top) if len(blanks) > 1 else []
        self._say(text)
        for index, line in enumerate(listed, start=1):
            self._say(f"  {index}: {line}")

    def _write(self, prompt: str) -> None:
        """Continue `prompt` on the screen; Ctrl-C ends only this."""
        settings, stop = parse_settings(self.settings)
        drafts = generate(self.loaded, prompt, settings, stop=stop)
        draft: Draft | None = None
        shown = 0
        try:
            for draft in drafts:
                self._print(draft.text[shown:])
                shown, self.text = len(draft.text), draft.text
        except KeyboardInterrupt:
            drafts.close()
        self._print("\n")
        if draft is not None and self.sink.isatty():
            self._say(
                f"[{draft.new_tokens} tokens, {draft.tokens_per_second:.0f} tokens/s, seed {draft.seed}, "
                f"{draft.context_used} of {draft.context_length or 'unlimited'} tokens of context]"
            )

    def _say(self, line: str) -> None:
        self._print(line + "\n")

    def _print(self, text: str) -> None:
        self.sink.write(visible(text) if self.sink.isatty() else text)
        self.sink.flush()


def parse_settings(settings: dict[str, Any]) -> tuple[SamplingSettings, str]:
    """The sampling settings, and the stop text. Raises ValueError for a wrong setting."""
    chosen = {name: value for name, value in settings.items() if name != "stop"}
    return settings_from(**chosen), stop_text(settings.get("stop"))


def run_terminal(loader: ModelLoader, settings: dict[str, Any]) -> None:
    """The loop on standard input and output, with `settings` that differ from the defaults.

    Raises ValueError when the model cannot be loaded."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        Terminal(loader, settings, sys.stdin, sys.stdout).run()
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more; leave without a complaint at exit
