"""The look of the page: colours, type, spacing, and its two shortcuts."""

from __future__ import annotations

import gradio as gr

SERIF = "'Iowan Old Style', Charter, 'Bitstream Charter', 'Palatino Linotype', 'Book Antiqua', Georgia, 'DejaVu Serif', serif"


def build_theme() -> gr.themes.Base:
    """A calm theme with system fonts: no request leaves for another host."""
    sans = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif")
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=sans,
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    ).set(
        body_background_fill="#f7f5f0",
        body_background_fill_dark="#181614",
        block_background_fill="#fffdf9",
        block_background_fill_dark="#211f1c",
        block_border_color="#e5dfd3",
        block_border_color_dark="#38342e",
        block_shadow="none",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="#fffdf9",
        input_background_fill_dark="#1c1a17",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )


CSS = f"""
.gradio-container {{ max-width: 1180px !important; margin: 0 auto; }}
.masthead h1 {{ font-family: {SERIF}; font-size: clamp(1.6rem, 4vw, 2.3rem); font-weight: 600; margin: .4rem 0 .1rem;
  letter-spacing: -.01em; overflow-wrap: anywhere; }}
.masthead p {{ color: var(--body-text-color-subdued); margin: 0 0 .3rem; line-height: 1.6; }}
.masthead p span + span::before {{ content: "·"; margin: 0 .5em; }}
#document textarea {{ font-family: {SERIF}; font-size: 1.13rem; line-height: 1.75; padding: 1.1rem 1.3rem; resize: vertical; }}
#actions {{ gap: .5rem; flex-wrap: wrap; }}
#actions button {{ min-height: 44px; }}
#generate {{ flex-grow: 3; }}
.status p {{ margin: 0; line-height: 1.7; font-variant-numeric: tabular-nums; }}
.status .figures::before, .status .context span + span::before {{ content: "·"; margin: 0 .4em; color: var(--body-text-color-subdued); }}
.status .dot {{ display: inline-block; width: .6em; height: .6em; border-radius: 50%; margin-right: .55em;
  background: var(--neutral-400); }}
.status.busy .dot {{ background: var(--primary-500); animation: breathe 1.2s ease-in-out infinite; }}
.status .context {{ color: var(--body-text-color-subdued); font-size: .92em; }}
.status .meter {{ display: inline-block; width: 7em; height: .5em; border-radius: 1em; margin-right: .7em;
  background: var(--border-color-primary); overflow: hidden; vertical-align: .05em; }}
.status .meter i {{ display: block; height: 100%; background: var(--primary-600); }}
@keyframes breathe {{ 50% {{ opacity: .25; }} }}
@media (prefers-reduced-motion: reduce) {{ .status.busy .dot {{ animation: none; }} }}
button:focus-visible, textarea:focus-visible, input:focus-visible, [role=tab]:focus-visible {{
  outline: 2px solid var(--primary-500); outline-offset: 2px; }}
#dice {{ font-size: 1.25rem; }}
#seed-row {{ align-items: end; }}
@media (max-width: 640px) {{
  .gradio-container > main {{ padding: .6rem; }}
  #document textarea {{ font-size: 1.05rem; padding: .8rem .9rem; }}
}}
"""

SHORTCUTS = """
() => {
  const press = (id) => document.getElementById(id)?.click();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); press("generate"); }
    if (event.key === "Escape") press("stop");
  });
  document.getElementById("dice")?.setAttribute("aria-label", "Draw a seed");
}
"""
