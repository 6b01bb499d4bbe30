// A second copy of what the browser keeps, in IndexedDB. Chromium writes localStorage to the disk some seconds later, so a
// browser that is killed loses them; what IndexedDB has committed is with the system at once. localStorage stays the one
// that is read, because it answers before the page goes on; here only what is newer is taken over, when the page is loaded.
const [NAME, TABLE] = ["scratchgpt", "documents"];
const PATIENCE = 2000; // milliseconds that the page waits for it before it begins without
const KEPT = 86_400_000; // milliseconds that the removal of a document is remembered

const due = new Map(); // key to value: what the next transaction writes
let isWriting = false;

const answer = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const database = (async () => {
  try {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE);
    return await answer(request);
  } catch {
    return null; // switched off: then a killed browser loses some seconds
  }
})();

async function write() {
  const base = await database;
  if (!base || isWriting || due.size === 0) return;
  isWriting = true;
  try {
    const table = base.transaction(TABLE, "readwrite").objectStore(TABLE);
    for (const [key, value] of due) table.put(value, key);
    due.clear();
    await new Promise((resolve) => {
      for (const kind of ["oncomplete", "onabort", "onerror"]) table.transaction[kind] = resolve;
      table.transaction.commit?.();
    });
  } catch { /* its storage is full, or gone: localStorage has it, and says so where it has not */ }
  isWriting = false;
  write();
}

function changedOf(raw) { // -1: there is none; Infinity: one that cannot be read, which stays as it is
  if (raw === null) return -1;
  try {
    return Number(JSON.parse(raw).changed) || 0;
  } catch {
    return Infinity;
  }
}

// Take over what localStorage lost: documents that are newer here, and removals.
async function restore() {
  const base = await database;
  if (!base) return;
  const table = base.transaction(TABLE, "readwrite").objectStore(TABLE);
  const [keys, values] = await Promise.all([answer(table.getAllKeys()), answer(table.getAll())]);
  const kept = new Map(keys.map((key, index) => [key, values[index]]));
  for (const [key, value] of kept) {
    if (!key.includes(".text.")) continue;
    const others = key.replace(".text.", ".history.");
    const here = changedOf(localStorage.getItem(key));
    if (typeof value === "string" && changedOf(value) > here && changedOf(value) !== Infinity) {
      localStorage.setItem(key, value);
      if (typeof kept.get(others) === "string") localStorage.setItem(others, kept.get(others));
    } else if (value?.removed >= here && here >= 0) {
      for (const each of [key, others]) localStorage.removeItem(each);
    }
    if (value?.removed < Date.now() - KEPT) for (const each of [key, others]) table.delete(each);
  }
}

window.scratch.mirror = {
  put(key, value) {
    due.set(key, value);
    write();
  },
  remove(key) {
    due.set(key, { removed: Date.now() });
    write();
  },
  // Over when localStorage has what was lost, or soon without.
  ready: Promise.race([restore().catch(() => {}), new Promise((resolve) => setTimeout(resolve, PATIENCE))]),
};
