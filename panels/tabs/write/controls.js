// The sampling controls: reading and moving the sliders, presets, the link that brings text and settings back, copying.
const find = (id) => document.getElementById(id);
const SHAPING = ["temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty"];
const NUMBERS = ["max_new_tokens", ...SHAPING];
const TEXTS = { text: "#document textarea", seed: "#seed input, #seed textarea", stop: "#stop-text input, #stop-text textarea" };
const LINK_LIMIT = 8000;

const fieldOf = (name) => document.querySelector(`#${name} input[type="number"]`);

function put(field, value) {
  if (!field || field.value === String(value)) return;
  field.value = value;
  for (const kind of ["input", "change", "blur"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
}

window.scratch.settings = {
  // What shapes the distribution, by name; null while a field is empty or a control is not there.
  read() {
    const settings = {};
    for (const name of SHAPING) {
      const text = fieldOf(name)?.value;
      if (!text || !Number.isFinite(+text)) return null;
      settings[name] = +text;
    }
    return settings;
  },
  put(values) {
    for (const [name, value] of Object.entries(values)) put(fieldOf(name), value);
    markPreset();
  },
};

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

window.scratch.link = () => {
  const parts = new URLSearchParams();
  for (const [name, place] of Object.entries(TEXTS)) parts.set(name, document.querySelector(place)?.value ?? "");
  for (const name of NUMBERS) parts.set(name, fieldOf(name)?.value ?? "");
  const link = location.href.split("#")[0] + "#" + parts;
  if (link.length > LINK_LIMIT) {
    const [length, limit] = [link.length, LINK_LIMIT].map((count) => count.toLocaleString("en"));
    say(`The text is too long for a link: it would have ${length} characters of at most ${limit}. Copy the text itself.`);
    return "";
  }
  say("A link that brings text and settings back.");
  return link;
};

function restore() {
  const parts = new URLSearchParams(location.hash.slice(1));
  if (![...parts.keys()].some((name) => name in TEXTS || NUMBERS.includes(name))) return;
  for (const [name, place] of Object.entries(TEXTS)) {
    if (parts.has(name)) put(document.querySelector(place), parts.get(name));
  }
  for (const name of NUMBERS) {
    const field = fieldOf(name);
    const value = parts.get(name);
    if (!field || !value || !Number.isFinite(+value)) continue;
    put(field, Math.min(Math.max(+value, +field.min), +field.max));
  }
}
addEventListener("hashchange", restore);
const waiting = setInterval(() => {
  if (!find("document") || !NUMBERS.every(fieldOf)) return;
  clearInterval(waiting);
  restore();
}, 50);

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
