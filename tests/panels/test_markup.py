from panels.components.status import render_status
from panels.models import ModelSource
from panels.page import render_head
from panels.templates import render


def test_what_is_put_in_cannot_become_markup():
    assert render("<p>{{ text }}</p>", text="<img onerror=x>") == "<p>&lt;img onerror=x&gt;</p>"
    assert "<script" not in render_head(ModelSource(given="x", name="</script><script>", trained_on="<b>"))
    assert "<b>" not in render_status("idle", "<b>")
