// The sampling settings of a tab as they stand in Gradio's fields: read all, put all back.
window.scratch.Settings = class {
  // The sliders are the elements with the id `prefix` + name; `texts`: places of text fields by name.
  constructor({ texts, prefix = "" }) {
    Object.assign(this, { numbers: window.scratch.Settings.NUMBERS, texts, prefix });
  }

  static SHAPING = ["temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty"];
  static NUMBERS = ["max_new_tokens", ...this.SHAPING];

  static put(field, value) {
    if (!field || field.value === String(value)) return;
    field.value = value;
    for (const kind of ["input", "change", "blur"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  }

  fieldOf(name) {
    return document.querySelector(`#${this.prefix}${name} input[type="number"]`);
  }

  isReady() {
    return this.numbers.every((name) => this.fieldOf(name)) && Object.values(this.texts).every((place) => document.querySelector(place));
  }

  // Every setting as it stands in its field.
  all() {
    const numbers = this.numbers.map((name) => [name, this.fieldOf(name)?.value ?? ""]);
    const texts = Object.entries(this.texts).map(([name, place]) => [name, document.querySelector(place)?.value ?? ""]);
    return Object.fromEntries([...numbers, ...texts]);
  }

  // What is wrong with the numbers, of which the server would refuse the request; "": nothing. A number is typed without
  // leaving its field where a key sends the request.
  trouble() {
    for (const field of this.numbers.map((name) => this.fieldOf(name))) {
      if (!field || (field.value !== "" && +field.value >= +field.min && +field.value <= +field.max)) continue;
      const label = field.getAttribute("aria-label").replace(/^number input for /, "");
      return `${label}: expected a number from ${field.min} to ${field.max}, got ${field.value || "none"}.`;
    }
    return "";
  }

  // Put settings back, from the browser's storage, a file or a link: what is no setting, or none of today's, is left out.
  restore(values) {
    const { put } = window.scratch.Settings;
    for (const [name, place] of Object.entries(this.texts)) {
      if (typeof values[name] === "string") put(document.querySelector(place), values[name]);
    }
    for (const name of this.numbers) {
      const field = this.fieldOf(name);
      const value = values[name];
      if (!field || !["string", "number"].includes(typeof value) || value === "" || !Number.isFinite(+value)) continue;
      put(field, Math.min(Math.max(+value, +field.min), +field.max));
    }
  }
};
