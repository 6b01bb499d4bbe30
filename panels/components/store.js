// What this browser keeps of one kind of document: each under keys of its own in localStorage, so that two tabs cannot
// overwrite each other's. A tab that has a document open holds a lock on it; where the browser has no locks (a page that
// is neither https nor on this computer), `writer` tells who wrote last, and who sees another's name there goes on with a
// copy.
const { mirror } = window.scratch;
const VERSION = 1;
const OURS = "scratchgpt.";
const ME = newId();
// Milliseconds after which the lock of the page before a reload is surely gone; a duplicated tab, which has another's text
// too, is no reload, and its lock stays.
const SETTLED = performance.getEntriesByType("navigation")[0]?.type === "reload" ? 10_000 : 1500;
const CLOSED = 400; // and that of a tab that was closed a moment ago

function newId() {
  return [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(36).padStart(2, "0")).join("");
}

// The browser's storage, or null and why there is none.
function open(name) {
  try {
    const storage = window[name];
    storage.setItem(`${OURS}probe`, "1"); // some browsers have one that takes nothing
    storage.removeItem(`${OURS}probe`);
    return { storage, trouble: "" };
  } catch (error) {
    // A full storage can be read, and written again when something is deleted.
    if (isFull(error) && window[name]?.length > 0) return { storage: window[name], trouble: "" };
    return { storage: null, trouble: "This browser keeps nothing for this page: its storage is switched off." };
  }
}

const isFull = (error) => error instanceof DOMException && (error.name === "QuotaExceededError" || error.code === 22 ||
  error.name === "NS_ERROR_DOM_QUOTA_REACHED");
const local = open("localStorage");
const session = open("sessionStorage").storage;

// Write a value; "" or what is in the way.
function put(key, value) {
  if (!local.storage) return local.trouble;
  try {
    local.storage.setItem(key, value);
    return "";
  } catch (error) {
    return isFull(error) ? "The browser's storage is full." : `The browser does not store it (${error.name}).`;
  }
}

const get = (key) => local.storage?.getItem(key) ?? null;

window.scratch.Store = class {
  // `area`: the part of the storage; `check`: throws an Error for a record that is none, `sizeOf`: characters of a record.
  constructor(area, check, sizeOf) {
    this.prefix = `${OURS}${area}.`;
    this.check = check;
    this.sizeOf = sizeOf;
  }

  static VERSION = VERSION;
  static newId = newId;
  trouble = local.trouble;

  key(kind, id) { // kind: text (the record), history, writer
    return `${this.prefix}${kind}.${id}`;
  }

  parse(raw) {
    let record;
    try {
      record = JSON.parse(raw);
    } catch {
      throw new Error("it is broken: expected JSON");
    }
    if (!record || typeof record !== "object") throw new Error("it is broken: expected an object");
    if (record.version !== VERSION) {
      throw new Error(`it is of version ${JSON.stringify(record.version) ?? "unknown"}, this page knows version ${VERSION}`);
    }
    try {
      if (typeof record.name !== "string") throw new Error("expected name as text");
      this.check(record);
    } catch (error) {
      throw new Error(`it is broken: ${error.message}`);
    }
    return { settings: {}, changed: 0, ...record };
  }

  // {id, name, length, changed, trouble} of each, the last changed first; `trouble`: why it cannot be read.
  list() {
    const found = [];
    for (let index = 0; index < (local.storage?.length ?? 0); index++) {
      const key = local.storage.key(index);
      if (!key.startsWith(this.key("text", ""))) continue;
      const id = key.slice(this.key("text", "").length);
      try {
        const record = this.parse(local.storage.getItem(key));
        found.push({ id, name: record.name, length: this.sizeOf(record), changed: Number(record.changed) || 0, trouble: "" });
      } catch (error) {
        found.push({ id, name: "Unreadable", length: local.storage.getItem(key).length, changed: -1, trouble: error.message });
      }
    }
    return found.sort((one, other) => other.changed - one.changed);
  }

  // The record of a document: {name, changed, settings, model} and its content; null where there is none. An Error says
  // why it cannot be read.
  read(id) {
    const raw = get(this.key("text", id));
    return raw === null ? null : this.parse(raw);
  }

  // What is stored of a document, as it stands there.
  raw(id) {
    return get(this.key("text", id));
  }

  // The packed history of a document, or null; an Error says why it cannot be read.
  readHistory(id) {
    const raw = get(this.key("history", id));
    if (raw === null) return null;
    try {
      return JSON.parse(raw);
    } catch {
      throw new Error("expected JSON");
    }
  }

  // Store a record; what is in the way, or "". `isOthers`: another tab has written it meanwhile.
  write(id, record) {
    const writer = get(this.key("writer", id));
    if (writer !== null && writer !== ME) return { isOthers: true, trouble: "" };
    if (writer === null) put(this.key("writer", id), ME);
    const value = JSON.stringify({ version: VERSION, ...record });
    let trouble = put(this.key("text", id), value);
    if (trouble && local.storage && get(this.key("history", id)) !== null) { // the text goes before its history
      local.storage.removeItem(this.key("history", id));
      trouble = put(this.key("text", id), value);
    }
    if (!trouble) mirror.put(this.key("text", id), value);
    return { isOthers: false, trouble };
  }

  writeHistory(id, packed) {
    const value = JSON.stringify(packed);
    const trouble = put(this.key("history", id), value);
    if (!trouble) mirror.put(this.key("history", id), value);
    return trouble;
  }

  remove(id) {
    for (const kind of ["text", "history", "writer"]) local.storage?.removeItem(this.key(kind, id));
    for (const kind of ["text", "history"]) mirror.remove(this.key(kind, id));
  }

  // Make a document this page's: a function that gives it back, or null where another tab has it. `isReload`: wait for
  // the page that this one replaces; `isChosen`: for a tab that was closed a moment ago.
  async claim(id, { isReload = false, isChosen = false } = {}) {
    const patience = isReload ? SETTLED : CLOSED;
    const release = await lock(this.prefix + id, isReload || isChosen ? { signal: AbortSignal.timeout(patience) } : { ifAvailable: true });
    if (release && get(this.key("text", id)) !== null) put(this.key("writer", id), ME);
    return release;
  }

  // Whether another tab has a document of this kind open.
  async hasOthers() {
    if (!local.storage || !navigator.locks) return false;
    const { held } = await navigator.locks.query();
    return held.some((each) => each.name.startsWith(this.prefix));
  }

  // The document that this tab had open before a reload.
  get last() {
    return session?.getItem(`${this.prefix}open`) ?? null;
  }

  set last(id) {
    try {
      session?.setItem(`${this.prefix}open`, id);
    } catch { /* a full one: after a reload the last changed one comes up */ }
  }
};

function lock(name, options) {
  if (!local.storage || !navigator.locks) return () => {};
  return new Promise((resolve) => {
    const hold = (found) => (found ? new Promise((release) => resolve(release)) : resolve(null));
    navigator.locks.request(name, options, hold).catch(() => resolve(null));
  });
}
