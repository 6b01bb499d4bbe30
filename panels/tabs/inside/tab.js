// The Inside tab: shows what is known of the token, cell or head that is pointed at or in focus, and draws attention.
const ITEM = '#inside-result :is([role="option"], [role="gridcell"])';
const TEAL = [13, 148, 136];
const MOST_LABELS = 26; // of the rows, and of the columns, of the large map
const { choose, make, percent } = window.scratch;

document.addEventListener("focusin", (event) => point(event.target, true));
// Moves, since the page may also scroll under a mouse that rests while somebody uses the keyboard.
let under = null;
document.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "mouse" || event.target === under) return;
  under = event.target;
  point(under, false);
});

function point(target, isChosen) {
  const item = target.closest?.(ITEM);
  if (item?.closest(".surprisal")) showToken(item);
  else if (item?.closest(".lens")) showCell(item);
  else if (item && isChosen) drawChosen(item.closest(".attention"));
}

function showToken(token) {
  const { bits, probability, rank, expected, share } = token.dataset;
  const known = bits === undefined ? [" is first: nothing precedes it."]
    : rank === "1" ? [`  ${bits} bits, probability ${probability}: the most likely token here.`]
      : [`  ${bits} bits, probability ${probability}, number ${rank} by probability. The most likely token was `,
        make("b", "", expected), ` (${share}).`];
  token.closest(".surprisal").querySelector(".detail").replaceChildren(make("b", "", token.textContent), ...known);
}

// A title and bars below it, each of a label, its probability as text, and the length of the bar (0 to 1).
function showBars(section, title, bars) {
  const list = make("ol", "bars");
  for (const [label, probability, length] of bars) {
    const row = make("li", "", undefined, list);
    make("i", "", undefined, row).style.width = `${100 * length}%`;
    make("span", "", label, row);
    make("span", "", probability, row);
  }
  const heading = make("p");
  heading.append(...title);
  section.querySelector(".detail").replaceChildren(heading, list);
}

function showCell(cell) {
  const bars = cell.dataset.top.split("\n").map((line) => line.split("\t"));
  const verdict = cell.classList.contains("correct") ? ": correct, this token came next" : "";
  showBars(cell.closest(".lens"), [`${cell.dataset.layer}, after `, make("b", "", cell.dataset.token), verdict], bars);
}

// ---- attention

let attention; // of the section that is on the page
let last = null; // the head chosen last, of how many

function readAttention(section) {
  const isCausal = section.dataset.causal === "1";
  const bytes = Uint8Array.from(atob(section.dataset.weights), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const tokens = [...section.querySelectorAll(".tokens .token")];
  const size = tokens.length;
  const each = isCausal ? (size * (size + 1)) / 2 : size * size;
  return {
    isCausal,
    tokens,
    size,
    labels: tokens.map((token) => token.textContent),
    ids: tokens.map((token) => token.dataset.id),
    at(head, query, key) {
      if (isCausal && key > query) return 0;
      const place = isCausal ? (query * (query + 1)) / 2 + key : query * size + key;
      return view.getUint16(2 * (head * each + place), true) / 65535;
    },
  };
}

// One pixel a weight; its square root is what is seen, so that small ones are.
function paint(canvas, head) {
  const { size, at } = attention;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let query = 0; query < size; query++) {
    for (let key = 0; key < size; key++) {
      image.data.set([...TEAL, Math.round(255 * Math.sqrt(at(head, query, key)))], 4 * (query * size + key));
    }
  }
  context.putImageData(image, 0, 0);
}

// Where a head attends to on average, in words.
function averages(head) {
  const { size, ids, at } = attention;
  const queries = [...Array(size).keys()];
  const mean = (pairs) => pairs.reduce((sum, [query, key]) => sum + at(head, query, key), 0) / Math.max(1, pairs.length);
  const later = queries.slice(1);
  const repeats = later.map((query) => [query, ids.lastIndexOf(ids[query], query - 1) + 1])
    .filter(([query, key]) => key > 0 && key < query);
  const shares = [
    ["to the token itself", queries.map((query) => [query, query])],
    ["to the token before", later.map((query) => [query, query - 1])],
    ["to the first token", later.map((query) => [query, 0])],
    [`to what followed the same token earlier (${repeats.length} places)`, repeats],
  ];
  return shares.filter(([, pairs]) => pairs !== repeats || pairs.length)
    .map(([name, pairs]) => `${percent(mean(pairs))} ${name}`).join(", ");
}

function drawChosen(section) {
  const heads = [...section.querySelectorAll(".head")];
  const isChosen = (item) => item.getAttribute("aria-selected") === "true";
  const head = heads.findIndex(isChosen);
  const { size, labels, tokens } = attention;
  const query = tokens.findIndex(isChosen);
  last = { head, count: heads.length };
  const name = heads[head].getAttribute("aria-label");
  const canvas = section.querySelector(".map canvas");
  paint(canvas, head);
  canvas.setAttribute("aria-label", `${name}: weights of ${size} by ${size} tokens`);
  const mark = section.querySelector(".map i");
  mark.style.top = `${(100 * query) / size}%`;
  mark.style.height = `${100 / size}%`;
  section.querySelector("figcaption").replaceChildren(
    make("b", "", name), `. On average ${averages(head)}. The darker, the larger the weight (its square root is shown).`,
  );
  const row = tokens.map((_, key) => attention.at(head, query, key));
  tokens.forEach((token, key) => {
    token.style.setProperty("--share", Math.sqrt(row[key]).toFixed(2));
    if (row[key] >= 0.045) token.dataset.note = Math.round(100 * row[key]);
    else delete token.dataset.note;
    token.classList.toggle("unseen", attention.isCausal && key > query);
  });
  const strongest = row.map((share, key) => [`${key + 1}. ${labels[key]}`, percent(share), share, key])
    .filter(([, , share]) => share > 0).sort((one, other) => other[2] - one[2] || one[3] - other[3]);
  showBars(section, [`${name}, from `, make("b", "", `${query + 1}. ${labels[query]}`), " to:"], strongest.slice(0, 8));
}

// The labels of the large map's rows and columns, as many as have room.
function labelMap(section) {
  const { labels, size } = attention;
  const every = Math.ceil(size / MOST_LABELS);
  for (const [name, side] of [["queries", "top"], ["keys", "left"]]) {
    section.querySelector(`.${name}`).replaceChildren(...labels.map((label, index) => {
      const node = make("span", "", label);
      node.style[side] = `${(100 * (index + 0.5)) / size}%`;
      return node;
    }).filter((_, index) => index % every === 0));
  }
}

// The large map: pointing at a weight names it, and a click chooses its row; the tokens beside it do that for the keyboard.
for (const type of ["pointermove", "click"]) {
  document.addEventListener(type, (event) => {
    const map = event.target.closest?.("#inside-result .map");
    if (!map) return;
    const { labels, tokens, size, at } = attention;
    const area = map.querySelector("canvas").getBoundingClientRect();
    const index = (share) => Math.min(size - 1, Math.max(0, Math.floor(size * share)));
    const query = index((event.clientY - area.top) / area.height);
    const key = index((event.clientX - area.left) / area.width);
    map.title = `${query + 1}. ${labels[query]} to ${key + 1}. ${labels[key]}: ${percent(at(last.head, query, key))}`;
    if (type !== "click") return;
    choose(tokens[query]);
    drawChosen(map.closest(".attention"));
  });
}

// Gradio writes a new result into the elements of the one before.
new MutationObserver(() => {
  const section = document.querySelector("#inside-result .attention:not([data-drawn])");
  if (!section) return;
  section.dataset.drawn = "";
  attention = readAttention(section);
  labelMap(section);
  const heads = [...section.querySelectorAll(".head")];
  heads.forEach((item, head) => paint(item.querySelector("canvas"), head));
  choose(heads[last?.count === heads.length ? last.head : 0]);
  choose(attention.tokens.at(-1));
  drawChosen(section);
}).observe(document.body, { childList: true, subtree: true, attributeFilter: ["data-weights"] });
