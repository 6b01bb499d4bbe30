// The document that this tab has open, the list of all of its kind that the browser keeps, and their way into and out of
// files. A kind (the texts of Write, the chats of Chat) says in a subclass what its content is.
const { make } = window.scratch;
const EXPORT = "Export it to keep it.";
const WHILE_WRITING = ["txt", "json", "raw", "rename", "rename-save", "cancel"];
const BUSY = "The model is writing: stop it first.";

const when = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const size = (length) => `${length.toLocaleString("en")} character${length === 1 ? "" : "s"}`;
const fileName = (name) => name.replace(/[^\p{L}\p{N} ._()-]/gu, "_").trim();

function button(text, act, parent) {
  const made = make("button", "", text, parent);
  made.type = "button";
  made.dataset.act = act;
  return made;
}

function download(name, content, type) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The text of a file's bytes, and its encoding where that is a guess; an Error says why they are no text.
function textOf(bytes) {
  const marks = { "utf-16le": [0xff, 0xfe], "utf-16be": [0xfe, 0xff] };
  const marked = Object.keys(marks).find((name) => marks[name].every((byte, place) => bytes[place] === byte));
  if (!marked && bytes.includes(0)) throw new Error("expected a text, got binary data");
  for (const encoding of marked ? [marked] : ["utf-8", "windows-1252"]) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      return { text, guess: encoding === "windows-1252" ? "Windows-1252" : "" };
    } catch { /* the next one, which takes every byte */ }
  }
  throw new Error(`expected ${marked}, as its first bytes say, got bytes that are none`);
}

window.scratch.Documents = class {
  // `root`: the id of the element with the list (panels/components/documents.py); `area`: of the storage; `noun`: what a
  // document is called; `unnamed`: a name of one without, before its number; `editor`: {content(), load(content), isWriting()};
  // `settings`: a window.scratch.Settings that is kept with each document.
  constructor({ root, area, noun, unnamed, editor, settings }) {
    Object.assign(this, { root, noun, unnamed, editor, settings });
    this.store = new window.scratch.Store(area, (record) => this.check(record), (record) => this.plain(this.fromRecord(record)).length);
    this.current = null; // {id, name, release}
    this.record = null; // what was stored last, or would be
    this.lastSettings = ""; // as the settings were when they were last looked at; "": not yet
    this.troubles = {}; // what the line under the list says, by what it is about
    this.listen();
  }

  // What a kind says of its content.
  blank() {} // an empty one
  isBlank(content) {} // nothing was ever in it
  check(record) {} // an Error says what is wrong with the fields of a stored one
  toRecord(content) {} // its fields of a record
  fromRecord(record) {}
  plain(content) {} // as .txt
  toFile(content) {} // its fields of a .json, with `format`
  fromFile(data) {} // the content; an Error says what is wrong
  fromText(text) { // of a file that is no .json
    throw new Error("expected a .json file");
  }

  // What is stored besides the record.
  openRest(id, record) {
    return this.fromRecord(record);
  }

  saveRest(content, now) {}

  flush() {}

  forgetRest() {} // the document is deleted

  find(selector) {
    return document.querySelector(`#${this.root} ${selector}`);
  }

  complain(about, message) {
    this.troubles = { ...this.troubles, [about]: message };
    const line = this.find(".trouble");
    if (!line) return;
    const all = Object.values(this.troubles).filter(Boolean).join(" ");
    line.hidden = all === "";
    if (line.textContent !== all) line.textContent = all;
  }

  get hasUnsaved() {
    return Boolean(this.troubles.text) && this.record !== null;
  }

  // The first name of those that `nameOf` gives the numbers from 1 on which no document has.
  free(nameOf) {
    const names = new Set(this.store.list().map((each) => each.name));
    let number = 1;
    while (names.has(nameOf(number))) number++;
    return nameOf(number);
  }

  untitled() {
    return this.free((number) => `${this.unnamed} ${number}`);
  }

  copyName(name) {
    return this.free((number) => `${name} (copy${number > 1 ? ` ${number}` : ""})`);
  }

  // Store the open document as it is now; what is stored besides follows soon, or at once.
  save(content, { now = false, evenEmpty = false } = {}) {
    if (!this.current) return;
    if (this.record === null && this.isBlank(content) && !evenEmpty) return;
    const { current } = this;
    if (!this.record && this.store.list().some((each) => each.name === current.name && each.id !== current.id)) current.name = this.untitled();
    const isNew = this.record === null;
    this.record = { name: current.name, ...this.toRecord(content), changed: Date.now(), settings: this.settings.all(), model: window.scratch.model() };
    const { isOthers, trouble } = this.store.write(current.id, this.record);
    if (isOthers) return this.goOnWithCopy(content);
    this.complain("text", trouble && `${trouble} The ${this.noun} is not kept over a reload. ${EXPORT}`);
    this.saveRest(content, now);
    this.showName();
    if (isNew) this.drawList();
  }

  goOnWithCopy(content) {
    const name = this.copyName(this.current.name);
    this.complain("copy", `“${this.current.name}” is open in another tab. What you write here is kept as “${name}”.`);
    this.current = { id: window.scratch.Store.newId(), name, release: () => {} };
    this.record = null;
    this.store.last = this.current.id;
    this.save(content, { now: true });
  }

  show(id, name, release, content, values) {
    this.current?.release();
    this.current = { id, name, release };
    this.store.last = id;
    this.complain("copy", "");
    this.complain("text", this.store.trouble && `${this.store.trouble} A reload loses the ${this.noun}. ${EXPORT}`);
    if (values) this.settings.restore(values);
    this.lastSettings = "";
    this.editor.load(content);
    this.showName();
  }

  // A document of its own for this tab; `content` is what is in it.
  async create({ name = this.untitled(), content = this.blank(), values = null } = {}) {
    const id = window.scratch.Store.newId();
    const release = (await this.store.claim(id)) ?? (() => {});
    if (this.editor.isWriting()) { // a request has begun meanwhile, and its text would come here
      release();
      return this.complain("list", BUSY);
    }
    this.flush();
    this.record = null;
    this.complain("history", "");
    this.show(id, name, release, content, values);
    if (!this.isBlank(content)) this.save(content, { now: true });
  }

  // Open a stored document; false where another tab has it, or it cannot be read.
  async open(id, options) {
    let found;
    try {
      found = this.store.read(id);
    } catch (error) {
      this.complain("list", `A stored ${this.noun} cannot be read and is left out: ${error.message}.`);
      return false;
    }
    if (found === null) return false;
    const release = await this.store.claim(id, options);
    if (!release) return false;
    if (this.editor.isWriting()) { // since another tab was waited for
      release();
      return false;
    }
    this.flush();
    this.record = this.store.read(id) ?? found; // another tab may have written until the lock was free
    this.show(id, this.record.name, release, this.openRest(id, this.record), this.record.settings);
    return true;
  }

  // What this tab begins with: what it had open before a reload; else, where no other tab is open, what was changed last;
  // else a new one. A second tab with the same document, as "Duplicate tab" makes it, begins with a copy.
  async start() {
    await window.scratch.mirror.ready;
    this.sayUnreadable();
    const { last } = this.store;
    if (last !== null && (await this.open(last, { isReload: true }))) return;
    if (last !== null && this.isReadable(last)) {
      const record = this.store.read(last);
      await this.create({ name: this.copyName(record.name), content: this.openRest(last, record), values: record.settings });
      return;
    }
    const others = await this.store.hasOthers();
    for (const { id, trouble } of others ? [] : this.store.list()) {
      if (!trouble && (await this.open(id))) return;
    }
    await this.create();
  }

  sayUnreadable() {
    const unreadable = this.store.list().filter((each) => each.trouble);
    if (unreadable.length === 0) return;
    this.complain("list", `${unreadable.length === 1 ? `A stored ${this.noun}` : `${unreadable.length} stored ${this.noun}s`} cannot be read ` +
      `and ${unreadable.length === 1 ? "is" : "are"} left out: ${unreadable[0].trouble}.`);
  }

  isReadable(id) {
    try {
      return this.store.read(id) !== null;
    } catch {
      return false;
    }
  }

  // The list

  showName() {
    const name = this.find("summary .name");
    if (!name) return;
    if (name.textContent !== this.current.name) name.textContent = this.current.name;
    const kept = this.troubles.text ? "not kept" : this.record ? "kept in this browser" : "empty";
    const stored = this.find("summary .stored");
    if (stored.textContent !== kept) stored.textContent = kept;
  }

  drawList() {
    const list = this.find("ul");
    if (!list || !this.find("details").open) return;
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const [row, act] = [focused?.closest("li").dataset.id, focused?.dataset.act]; // the focus stays where it is
    list.replaceChildren();
    for (const { id, name, length, changed, trouble } of this.store.list()) {
      const isCurrent = id === this.current?.id;
      const item = make("li", isCurrent ? "current" : "", undefined, list);
      item.dataset.id = id;
      const open = button("", "open", item);
      make("b", "", name, open);
      make("span", "quiet", trouble ? `${trouble}; ${size(length)} stored` : `${size(length)}, ${when(changed)}`, open);
      open.disabled = trouble !== "";
      if (isCurrent) open.setAttribute("aria-current", "true");
      if (trouble) button("Save as file", "raw", item);
      else button("Rename", "rename", item).setAttribute("aria-label", `Rename ${name}`);
      button("Delete", "delete", item).setAttribute("aria-label", `Delete ${name}`);
    }
    if (list.children.length === 0) make("li", "quiet", "Nothing is stored yet.", list);
    if (act) this.rowOf(row)?.querySelector(`[data-act="${act}"]`)?.focus();
  }

  // The page was laid out again.
  redraw() {
    if (!this.current) return;
    this.complain("copy", this.troubles.copy ?? "");
    this.showName();
    this.drawList();
  }

  rename(item) {
    const field = make("input");
    field.value = item.querySelector("b").textContent;
    field.setAttribute("aria-label", "New name");
    item.replaceChildren(field);
    button("Save", "rename-save", item);
    button("Cancel", "cancel", item);
    field.select();
    field.focus();
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return; // Enter takes what an input method offers
      if (event.key === "Enter") this.finishRename(item);
      if (event.key === "Escape") this.leave(item.dataset.id);
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation(); // Escape stops the model elsewhere on the page
      }
    });
  }

  async finishRename(item) {
    const { id } = item.dataset;
    const name = item.querySelector("input").value.trim();
    if (name !== "" && id === this.current.id) {
      this.current.name = name;
      this.save(this.editor.content());
    } else if (name !== "") {
      const release = await this.store.claim(id);
      if (release) this.renameStored(id, name);
      else this.complain("list", `That ${this.noun} is open in another tab: rename it there.`);
      release?.();
    }
    this.leave(id);
  }

  renameStored(id, name) {
    if (!this.isReadable(id)) return this.complain("list", `That ${this.noun} is not stored any more: another tab deleted it.`);
    const { trouble } = this.store.write(id, { ...this.store.read(id), name });
    this.complain("list", trouble ?? "");
  }

  rowOf(id) {
    return [...this.find("ul").children].find((item) => item.dataset.id === id);
  }

  // Draw the list again, and go back to the row that was at work, or to where the list is opened.
  leave(id) {
    this.drawList();
    (this.rowOf(id)?.querySelector("[data-act='open']:enabled") ?? this.find("summary")).focus();
  }

  askToDelete(item) {
    const length = this.store.raw(item.dataset.id)?.length ?? 0;
    const name = item.querySelector("b").textContent;
    item.replaceChildren(make("span", "question", `Delete “${name}” for good?${length ? "" : " It is empty."}`));
    button("Delete", "delete-now", item).focus();
    button("Keep", "cancel", item);
  }

  async remove(id) {
    if (id === this.current.id) {
      this.forgetRest();
      this.store.remove(id);
      await this.create();
    } else {
      const release = await this.store.claim(id);
      if (release) this.store.remove(id);
      else this.complain("list", `That ${this.noun} is open in another tab: delete it there.`);
      release?.();
    }
    if (this.troubles.text || this.troubles.history) this.save(this.editor.content(), { now: true }); // there may be room now
    this.leave(id);
  }

  // Files

  toExport() {
    const content = this.editor.content();
    return { ...this.toFile(content), version: window.scratch.Store.VERSION, name: this.current.name, model: window.scratch.model(),
      settings: this.settings.all(), saved: new Date().toISOString() };
  }

  // What a file holds: {name, content, values}; an Error says what is wrong with it.
  parseFile(name, raw) {
    if (!name.toLowerCase().endsWith(".json")) return { content: this.fromText(raw.replace(/\r\n?/g, "\n")), values: null };
    let data;
    try {
      data = JSON.parse(raw);
    } catch {
      throw new Error("expected JSON");
    }
    const { format } = this.toFile(this.blank());
    if (data?.format !== format) throw new Error(`expected a file that this page exported, with "format": "${format}"`);
    if (data.version !== window.scratch.Store.VERSION) throw new Error(`expected version ${window.scratch.Store.VERSION}, got ${JSON.stringify(data.version) ?? "none"}`);
    return { name: typeof data.name === "string" ? data.name : undefined, content: this.fromFile(data), values: data.settings ?? null };
  }

  async importFile(file) {
    if (this.editor.isWriting()) return this.complain("import", "Stop the model first, then import.");
    try {
      const { text, guess } = textOf(new Uint8Array(await file.arrayBuffer()));
      const { name = file.name.replace(/\.[^.]*$/, ""), content, values } = this.parseFile(file.name, text);
      this.complain("import", guess && `${file.name} is not UTF-8: it was read as ${guess}. Where letters are wrong, save it as UTF-8 and import it again.`);
      const taken = this.store.list().some((each) => each.name === name);
      await this.create({ name: taken ? this.copyName(name) : name, content, values });
    } catch (error) {
      this.complain("import", `${file.name} was not imported: ${error.message}.`);
    }
    this.drawList();
  }

  async act(name, item) {
    const named = fileName(this.current.name) || this.noun;
    if (name === "new") await this.create();
    else if (name === "txt") download(`${named}.txt`, this.plain(this.editor.content()), "text/plain;charset=utf-8");
    else if (name === "json") download(`${named}.json`, JSON.stringify(this.toExport()), "application/json");
    else if (name === "import") this.find("input[type=file]").click();
    else if (name === "raw") download(`${this.noun}.json`, this.store.raw(item.dataset.id) ?? "", "application/json");
    else if (name === "rename") this.rename(item);
    else if (name === "rename-save") await this.finishRename(item);
    else if (name === "delete") this.askToDelete(item);
    else if (name === "delete-now") await this.remove(item.dataset.id);
    else if (name === "cancel") this.leave(item.dataset.id);
    else if (name === "open" && item.dataset.id !== this.current.id) {
      const isOpen = await this.open(item.dataset.id, { isChosen: true });
      this.complain("list", isOpen ? "" : this.editor.isWriting() ? BUSY : `That ${this.noun} is open in another tab.`);
    }
    if (["new", "open"].includes(name)) this.drawList();
    if (name === "open") this.leave(item.dataset.id);
  }

  listen() {
    document.addEventListener("click", async (event) => {
      const name = event.target.closest?.(`#${this.root} [data-act]`)?.dataset.act;
      if (!name || !this.current) return;
      if (this.editor.isWriting() && !WHILE_WRITING.includes(name)) return this.complain("list", BUSY);
      if (this.troubles.list === BUSY) this.complain("list", "");
      await this.act(name, event.target.closest("li"));
    });
    document.addEventListener("change", (event) => {
      const [file] = (event.target.matches?.(`#${this.root} input[type=file]`) && event.target.files) || [];
      if (file) this.importFile(file);
      if (file) event.target.value = "";
    });
    document.addEventListener("toggle", (event) => {
      if (event.target.matches?.(`#${this.root} details`)) this.drawList();
    }, true);
    let isDue = false; // the list shows what other tabs write, too
    addEventListener("storage", () => {
      if (isDue) return;
      isDue = true;
      setTimeout(() => {
        isDue = false;
        if (this.current && !this.find("li input") && !this.find("li .question")) this.drawList();
      }, 500);
    });
    for (const leaving of ["pagehide", "visibilitychange"]) addEventListener(leaving, () => this.flush(), true);
    // Settings have no event of their own where a script or the server moves them.
    setInterval(() => {
      if (!this.current || !this.settings.isReady()) return;
      const now = JSON.stringify(this.settings.all());
      if (this.lastSettings !== "" && now !== this.lastSettings) this.save(this.editor.content(), { evenEmpty: true });
      this.lastSettings = now;
    }, 200);
  }
};
