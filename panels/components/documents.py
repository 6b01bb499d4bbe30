"""The list of the documents of one kind that the browser keeps, which `documents.js` fills."""

from __future__ import annotations

from panels.templates import render

DOCUMENTS = """
<section class="documents" aria-label="Stored {{ noun }}s">
  <details>
    <summary><b class="name">{{ unnamed }}</b> <span class="quiet stored"></span></summary>
    <ul></ul>
    <div class="actions">
      {% if has_new %}<button type="button" data-act="new">New {{ noun }}</button>{% endif %}
      <button type="button" data-act="txt">Export .txt</button>
      <button type="button" data-act="json">Export .json</button>
      <button type="button" data-act="import">Import {{ files | join(" or ") }}</button>
      <input type="file" accept="{{ files | join(",") }}" aria-label="A file to import" hidden>
    </div>
    <p class="quiet">{{ noun | capitalize }}s are kept in this browser, on this computer, and nowhere else.</p>
  </details>
  <p class="trouble" role="alert" hidden></p>
</section>
"""


def render_documents(*, noun: str, unnamed: str, files: tuple[str, ...] = (".json",), has_new: bool = True) -> str:
    """The list, folded.

    Args:
        noun: what one of them is called.
        unnamed: what stands there until the browser has looked.
        files: what can be imported, by the ends of the names.
        has_new: whether the list has the button for a new one; False: it stands elsewhere in the tab.
    """
    return render(DOCUMENTS, noun=noun, unnamed=unnamed, files=files, has_new=has_new)
