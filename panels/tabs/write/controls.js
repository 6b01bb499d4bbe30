// The sampling controls: reading and moving the sliders, presets, the link that brings text and settings back, copying.
const find = (id) => document.getElementById(id);
const { NUMBERS, SHAPING } = window.scratch.Settings;
const FIELDS = { seed: "#seed input, #seed textarea", stop: "#stop-text input, #stop-text textarea" };
const LINK_LIMIT = 8000;

class WriteSettings extends window.scratch.Settings {
  // What shapes the distribution, by name; null while a field is empty or a control is not there.
  read() {
    const settings = {};
    for (const name of SHAPING) {
      const text = this.fieldOf(name)?.value;
      if (!text || !Number.isFinite(+text)) return null;
      settings[name] = +text;
    }
    return settings;
  }

  put(values) {
    for (const [name, value] of Object.entries(values)) window.scratch.Settings.put(this.fieldOf(name), value);
    markPreset();
  }

  restore(values) {
    super.restore(values);
    markPreset();
  }
}
window.scratch.settings = new WriteSettings({ texts: FIELDS });
window.scratch.model = () => document.querySelector("#next-numbers [data-model]")?.dataset.model ?? "";

function markPreset() {
  const settings = window.scratch.settings.read();
  for (const button of document.querySelectorAll("button[data-preset]")) {
    const values = Object.entries(JSON.parse(button.dataset.preset));
    const equal = settings !== null && values.every(([name, value]) => settings[name] === value);
    if (button.getAttribute("aria-pressed") !== String(equal)) button.setAttribute("aria-pressed", equal);
  }
}
setInterval(markPreset, 150);

function say(message) {
  const said = document.querySelector("#take-said p");
  if (said) said.textContent = message;
}

window.scratch.link = {
  write() {
    const parts = new URLSearchParams({ text: window.scratch.editor.text(), ...window.scratch.settings.all() });
    const link = location.href.split("#")[0] + "#" + parts;
    if (link.length > LINK_LIMIT) {
      const [length, limit] = [link.length, LINK_LIMIT].map((count) => count.toLocaleString("en"));
      say(`The text is too long for a link: it would have ${length} characters of at most ${limit}. Copy the text itself.`);
      return "";
    }
    say("A link that brings text and settings back.");
    return link;
  },
  // What the address of the page brings along, by name; null where it is nothing of ours.
  read() {
    const parts = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const known = ["text", ...Object.keys(FIELDS), ...NUMBERS];
    return Object.keys(parts).some((name) => known.includes(name)) ? parts : null;
  },
  // Take it over, once: a reload shows what became of the text, not the link again.
  follow(parts) {
    if (parts.text !== undefined) window.scratch.editor.replace(parts.text.replace(/\r\n?/g, "\n"), "link");
    window.scratch.settings.restore(parts);
    history.replaceState(history.state, "", location.href.split("#")[0]);
  },
};
addEventListener("hashchange", () => {
  const parts = window.scratch.link.read();
  if (parts) window.scratch.link.follow(parts);
});

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    find("copy")?.focus();
    if (!copied) return say("The browser does not let the page copy. Select the text and press Ctrl+C.");
  }
  say("Copied.");
}

document.addEventListener("click", (event) => {
  const preset = event.target.closest?.("button[data-preset]");
  if (preset) window.scratch.settings.put(JSON.parse(preset.dataset.preset));
  if (event.target.closest?.("#copy")) {
    const text = document.querySelector("#taken textarea")?.value;
    if (text) copy(text);
    else say("Nothing to copy yet: choose Python, curl or Link.");
  }
});

// On a narrow screen the controls begin folded, so that the text and its buttons are what one sees.
const folding = setInterval(() => {
  if (!window.scratch.settings.isReady()) return;
  clearInterval(folding);
  if (!matchMedia("(max-width: 640px)").matches) return;
  for (const header of document.querySelectorAll(".fold > button.label-wrap.open")) header.click();
}, 50);
