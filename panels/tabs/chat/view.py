"""HTML of the Chat tab: the log of a chat and the field of the next message, and what the chips show."""

from __future__ import annotations

from panels.components.beginnings import excerpt
from panels.models import ModelSource
from panels.templates import render

LOG = """
<div class="chat">
  <div class="log" role="log" aria-label="Chat" tabindex="0"></div>
  <p class="empty">What you ask and what the model answers stands here. Chats are kept in this browser.</p>
</div>
"""
QUESTION = """
<div class="question">
  <div class="heading">
    <label for="chat-question">Your message</label>
    <p id="chat-hint">Enter sends it, Shift+Enter begins a new line, Esc stops the answer.</p>
  </div>
  <textarea id="chat-question" rows="2" spellcheck="false" dir="auto" aria-describedby="chat-hint"></textarea>
</div>
"""


def render_log() -> str:
    """The log, which `chat.js` fills."""
    return render(LOG)


def render_question() -> str:
    """The field."""
    return render(QUESTION)


def examples(source: ModelSource) -> list[tuple[str, str]]:
    """First messages of held-out chats, each with what its chip shows."""
    return [(text, excerpt(text)) for text in source.prompts] if source.chat else []
