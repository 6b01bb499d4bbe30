"""The addresses that the page has. Gradio has more of them (a proxy, an editor of code, recordings, deep links): none
is needed, and each is one more way in."""

from __future__ import annotations

from panels.guard.refusal import RefusedError, shown

API = "/gradio_api"
PAGES = frozenset(
    {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/robots.txt",
        "/manifest.json",
        "/pwa_icon",
        "/login_check",
        "/training/state",
    }
)
API_PAGES = frozenset(
    f"{API}/{name}"
    for name in ("info", "openapi.json", "startup-events", "app_id", "theme.css", "login_check", "user", "token",
                 "queue/join", "queue/data", "queue/status", "cancel", "reset", "upload", "upload_progress")
)  # fmt: skip
FOLDERS = ("/static/", "/assets/", "/svelte/", "/pwa_icon/", "/v1/")
API_FOLDERS = tuple(f"{API}/{name}" for name in ("heartbeat/", "run/", "api/", "call/", "file=", "mcp/"))
UPLOADS = frozenset({f"{API}/upload", f"{API}/upload_progress"})


def check_place(path: str, query: str, *, takes_files: bool) -> None:
    """Raise RefusedError (404) for a path that the page does not have.

    Args:
        takes_files: whether there is a field for files; else nothing can be uploaded.
    """
    place = path.rstrip("/") or "/"
    is_here = place in PAGES | API_PAGES or path.startswith((*FOLDERS, *API_FOLDERS)) or place in ("/v1", f"{API}/mcp")
    if not is_here or (place in UPLOADS and not takes_files):
        raise RefusedError(404, f"{shown(path)}: there is no such place here.")
    if "deep_link" in query:
        raise RefusedError(
            404, "deep_link: this page makes no deep links; the field Link of the tab Write makes links."
        )
