"""The look of the page: a calm theme, its style sheets and its scripts."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, LocalFont

PANELS = Path(__file__).parents[1]


def styles() -> list[Path]:
    """The style sheets: that of the page, then those of the components and of the tabs."""
    return _assets("css")


def script() -> str:
    """What the browser runs once: the statements of every script, each in a block of its own, the page's first."""
    files = _assets("js")
    return "() => {\n" + "\n".join(f"{{\n{path.read_text(encoding='utf-8')}\n}}" for path in files) + "\n}"


def _assets(kind: str) -> list[Path]:
    return sorted(PANELS.rglob(f"*.{kind}"), key=lambda path: (path.stem != "page", path))


def build_theme() -> Base:
    """Paper and ink, light and dark; the fonts are files that Gradio itself serves, or the system's."""
    return Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=(LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="#f7f5f0",
        body_background_fill_dark="#181614",
        block_background_fill="#fffdf9",
        block_background_fill_dark="#211f1c",
        block_border_color="#e2dbce",
        block_border_color_dark="#3a362f",
        border_color_primary="#e2dbce",
        border_color_primary_dark="#3a362f",
        block_shadow="none",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        input_background_fill="#fffdf9",
        input_background_fill_dark="#191715",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="#0e7f76",
        button_primary_text_color="white",
        button_secondary_background_fill="#ece7db",
        button_secondary_background_fill_hover="#e2dbcb",
        button_secondary_background_fill_dark="#322e29",
        button_secondary_background_fill_hover_dark="#3e3932",
        button_cancel_background_fill="#9f2f2f",
        button_cancel_background_fill_hover="#862525",
        button_cancel_background_fill_dark="#9f2f2f",
        button_cancel_background_fill_hover_dark="#b23a3a",
        button_cancel_text_color="white",
        button_cancel_text_color_dark="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )
