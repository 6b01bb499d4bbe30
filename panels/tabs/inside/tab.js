// The Inside tab: moving among tokens, cells and heads with the arrow keys, showing what is known of the one pointed at,
// and drawing attention. A box of things to choose from is one stop of the Tab key.
const ITEM = '[role="option"], [role="gridcell"]';
const INSIDE = "#inside-result";
const TEAL = [13, 148, 136];
const { make, percent } = window.scratch;

function itemsOf(box) {
  return [...box.querySelectorAll(ITEM)];
}

function chooseIn(box, item) {
  for (const other of box.querySelectorAll('[tabindex="0"]')) if (other !== item) other.tabIndex = -1;
  for (const other of box.querySelectorAll('[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
  item.tabIndex = 0;
  if (item.getAttribute("role") === "option") item.setAttribute("aria-selected", "true");
}

// How far an arrow key goes; where there are rows, up and down go to the next one.
function stepOf(key, box, item) {
  const forward = getComputedStyle(box).direction === "rtl" ? -1 : 1;
  if (key === "ArrowRight") return forward;
  if (key === "ArrowLeft") return -forward;
  const row = item.closest("tr, .layer");
  const width = row ? row.querySelectorAll(ITEM).length : 1;
  return key === "ArrowDown" ? width : key === "ArrowUp" ? -width : 0;
}

document.addEventListener("keydown", (event) => {
  const item = event.target.closest?.(`${INSIDE} :is(${ITEM})`);
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = item.closest('[role="listbox"], [role="grid"]');
  const items = itemsOf(box);
  const at = items.indexOf(item);
  const ends = { Home: 0, End: items.length - 1 };
  const next = event.key in ends ? ends[event.key] : at + stepOf(event.key, box, item);
  if (next === at || !items[next]) return;
  event.preventDefault();
  items[next].focus();
});

document.addEventListener("focusin", (event) => point(event.target, true));
document.addEventListener("click", (event) => point(event.target, true));
// Moves, since the page may also scroll under a mouse that rests while somebody uses the keyboard.
let under = null;
document.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "mouse" || event.target === under) return;
  under = event.target;
  point(under, false);
});

// Shows what is known of the item under the pointer or in focus; only the latter is chosen.
function point(target, chosen) {
  const item = target.closest?.(`${INSIDE} :is(${ITEM})`);
  if (!item) return;
  if (chosen) chooseIn(item.closest('[role="listbox"], [role="grid"]'), item);
  if (item.closest(".reading")) showToken(item);
  else if (item.closest(".lens")) showCell(item);
  else if (chosen) drawChosen(item.closest(".attention"));
}

function showToken(token) {
  const { bits, probability, rank, expected, share } = token.dataset;
  const detail = token.closest(".reading").querySelector(".detail");
  const name = make("b", "", token.textContent);
  if (bits === undefined) {
    detail.replaceChildren(name, " is first: nothing precedes it.");
  } else if (rank === "1") {
    detail.replaceChildren(name, `  ${bits} bits, probability ${probability}: the likeliest token here.`);
  } else {
    const rest = `  ${bits} bits, probability ${probability}, number ${rank} on the model's list. It expected `;
    detail.replaceChildren(name, rest, make("b", "", expected), ` (${share}).`);
  }
}

function listOf(rows) {
  const list = make("ol", "bars");
  for (const { label, share, size } of rows) {
    const row = make("li", "", undefined, list);
    make("i", "", undefined, row).style.width = `${100 * size}%`;
    make("span", "", label, row);
    make("span", "", share, row);
  }
  return list;
}

function showCell(cell) {
  const detail = cell.closest(".lens").querySelector(".detail");
  const rows = cell.dataset.top.split("\n").map((line) => {
    const [label, share, size] = line.split("\t");
    return { label, share, size };
  });
  const title = make("p", "", `${cell.dataset.layer}, after `);
  title.append(make("b", "", cell.dataset.token), cell.classList.contains("came") ? ": right, this came next" : "");
  detail.replaceChildren(title, listOf(rows));
}

// ---- attention

const seen = new WeakMap();

function attentionOf(section) {
  if (!seen.has(section)) {
    const { weights, layers, heads, causal } = section.dataset;
    const bytes = Uint8Array.from(atob(weights), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const tokens = [...section.querySelectorAll(".tokens .token")];
    const size = tokens.length;
    const each = causal === "1" ? (size * (size + 1)) / 2 : size * size;
    seen.set(section, {
      tokens,
      size,
      heads: +heads,
      layers: +layers,
      causal: causal === "1",
      labels: tokens.map((token) => token.textContent),
      ids: tokens.map((token) => token.dataset.id),
      at(head, query, key) {
        if (causal === "1" && key > query) return 0;
        const place = causal === "1" ? (query * (query + 1)) / 2 + key : query * size + key;
        return view.getUint16(2 * (head * each + place), true) / 65535;
      },
    });
  }
  return seen.get(section);
}

// One pixel a weight; its square root is what is seen, so that small ones are.
function paint(canvas, attention, head) {
  const { size } = attention;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let query = 0; query < size; query++) {
    for (let key = 0; key < size; key++) {
      image.data.set([...TEAL, Math.round(255 * Math.sqrt(attention.at(head, query, key)))], 4 * (query * size + key));
    }
  }
  context.putImageData(image, 0, 0);
}

function mean(count, value) {
  let sum = 0;
  for (let index = 0; index < count; index++) sum += value(index);
  return count ? sum / count : 0;
}

// What a head does on average, in words.
function habits(attention, head) {
  const { size, ids, at } = attention;
  const repeats = [];
  for (let query = 1; query < size; query++) {
    const earlier = ids.lastIndexOf(ids[query], query - 1);
    if (earlier >= 0 && earlier + 1 < query) repeats.push([query, earlier + 1]);
  }
  const shares = [
    ["to the token itself", mean(size, (query) => at(head, query, query))],
    ["to the one before", mean(size - 1, (index) => at(head, index + 1, index))],
    ["to the first", mean(size - 1, (index) => at(head, index + 1, 0))],
  ];
  if (repeats.length) {
    shares.push([
      `to what followed the same token earlier (${repeats.length} places)`,
      mean(repeats.length, (index) => at(head, ...repeats[index])),
    ]);
  }
  return shares.map(([name, share]) => `${percent(share)} ${name}`).join(", ");
}

function drawChosen(section) {
  const attention = attentionOf(section);
  const heads = itemsOf(section.querySelector(".heads"));
  const head = heads.findIndex((item) => item.getAttribute("aria-selected") === "true");
  const query = attention.tokens.findIndex((item) => item.getAttribute("aria-selected") === "true");
  window.scratch.inside = { head, heads: heads.length };
  const { size, labels, tokens } = attention;
  const name = heads[head].getAttribute("aria-label");
  const canvas = section.querySelector(".map canvas");
  paint(canvas, attention, head);
  canvas.setAttribute("aria-label", `${name}: weights of ${size} by ${size} tokens`);
  const mark = section.querySelector(".map i");
  mark.style.top = `${(100 * query) / size}%`;
  mark.style.height = `${100 / size}%`;
  section.querySelector("figcaption").replaceChildren(
    make("b", "", name),
    `. On average ${habits(attention, head)}. Shades show the square root of a weight.`,
  );
  const row = tokens.map((_, key) => attention.at(head, query, key));
  tokens.forEach((token, key) => {
    token.style.setProperty("--share", Math.sqrt(row[key]).toFixed(2));
    if (row[key] >= 0.045) token.dataset.note = Math.round(100 * row[key]);
    else delete token.dataset.note;
    token.classList.toggle("unseen", attention.causal && key > query);
  });
  const strongest = row.map((share, key) => ({ label: labels[key], share: percent(share), size: share, key }));
  strongest.sort((one, other) => other.size - one.size || one.key - other.key);
  const rows = strongest.filter(({ size }) => size > 0).slice(0, 8);
  for (const entry of rows) entry.label = `${entry.key + 1}. ${entry.label}`;
  const title = make("p", "", `${name}, from `);
  title.append(make("b", "", `${query + 1}. ${labels[query]}`), " to:");
  section.querySelector(".detail").replaceChildren(title, listOf(rows));
}

// Clicking into the large map chooses the row; the tokens beside it do the same for the keyboard.
document.addEventListener("click", (event) => {
  const map = event.target.closest?.(`${INSIDE} .map`);
  if (!map) return;
  const section = map.closest(".attention");
  const { tokens, size } = attentionOf(section);
  const area = map.querySelector("canvas").getBoundingClientRect();
  const query = Math.min(size - 1, Math.max(0, Math.floor((size * (event.clientY - area.top)) / area.height)));
  chooseIn(section.querySelector(".tokens"), tokens[query]);
  drawChosen(section);
});

function begin(section) {
  section.dataset.drawn = "";
  seen.delete(section);
  const attention = attentionOf(section);
  const box = section.querySelector(".heads");
  const heads = itemsOf(box);
  heads.forEach((item, head) => paint(item.querySelector("canvas"), attention, head));
  const before = window.scratch.inside;
  chooseIn(box, heads[before?.heads === heads.length ? before.head : 0]);
  chooseIn(section.querySelector(".tokens"), attention.tokens[attention.size - 1]);
  drawChosen(section);
}

// Gradio writes a new result into the elements of the one before.
new MutationObserver(() => {
  for (const section of document.querySelectorAll(`${INSIDE} .attention:not([data-drawn])`)) begin(section);
}).observe(document.body, { childList: true, subtree: true, attributeFilter: ["data-weights"] });
