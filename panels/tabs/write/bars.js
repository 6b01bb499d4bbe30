// The next token's bars: drawn from logits that came once, again at every move of a slider, without asking the server.
// While the model writes they show what its last token was drawn from.
const find = (id) => document.getElementById(id);
const percent = (share) => window.scratch.percent(share).replace(/\s/g, ""); // the columns are narrow
const rowCount = () => (matchMedia("(max-width: 640px)").matches ? 8 : 10);
const FROM_SAMPLER = 4; // rows that the sampler's likeliest tokens may claim
const NEUTRAL = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, typical_p: 1, repetition_penalty: 1 };
const PAUSE = 450; // milliseconds that a text stays unchanged before the model looks at it
const SLOW = 2; // seconds: a model that takes longer looks only when asked
const PATIENCE = 30000; // milliseconds after which a look counts as lost

let next = null; // what the server sent, decoded, with the model's own probabilities and ranks
let turn = ""; // the message it came with
let lookedAt = null; // the text that the bars belong to
let pending = null; // {text, since} of a look under way
let text = { value: null, since: 0 };
let eager = false; // a bar was chosen: look as soon as the text has it
let drawn = ""; // the settings of the last drawing
let speaking = 0;
let live = null; // while the model writes, and until the numbers of the next token come: {token, tail, vocabulary, isOver}

function decode(message) {
  const bytes = Uint8Array.from(atob(message.logits), (character) => character.charCodeAt(0));
  const logits = new Float32Array(bytes.buffer);
  const { probability } = window.scratch.sampler.sample(logits, NEUTRAL, []);
  return { ...message, logits, model: probability, order: window.scratch.sampler.ranked(logits) };
}

function likeliest(probability, count) {
  const top = [];
  for (let id = 0; id < probability.length; id++) {
    if (probability[id] === 0 || (top.length === count && probability[id] <= probability[top[count - 1]])) continue;
    let place = top.length;
    while (place > 0 && probability[top[place - 1]] < probability[id]) place--;
    top.splice(place, 0, id);
    top.length = Math.min(top.length, count);
  }
  return top;
}

// The sampler's likeliest tokens, filled up with the model's, in the model's order.
function rowsOf(sample) {
  const chosen = new Set(likeliest(sample.probability, FROM_SAMPLER));
  for (const id of next.order) {
    if (chosen.size >= rowCount()) break;
    chosen.add(id);
  }
  return [...chosen].sort((one, other) => next.model[other] - next.model[one] || one - other);
}

const element = (tag, name, parent) => window.scratch.make(tag, name, undefined, parent);

function makeRow(list) {
  const button = element("button", "bar", element("li", "", list));
  button.type = "button";
  const row = { button, label: element("span", "label", button) };
  row.label.dir = "auto";
  const track = element("span", "track", button);
  row.now = element("i", "now", track);
  row.before = element("i", "before", track);
  row.was = element("span", "was", button);
  element("span", "unseen", button).textContent = " from the model, "; // for who hears the row
  row.share = element("span", "share", button);
  row.whose = element("span", "unseen", button);
  return row;
}

// `shares`: {before, after, isKept}; `closed`: why it cannot be put into the text; `isDrawn`: the sampler took it.
function drawRow(row, id, label, { before, after, isKept }, widest, closed, isDrawn = false) {
  const [was, share] = [percent(before), isKept ? percent(after) : "cut"];
  row.button.dataset.token = id;
  row.button.classList.toggle("cut", !isKept);
  row.button.classList.toggle("drawn", isDrawn);
  row.button.setAttribute("aria-disabled", closed !== undefined);
  row.button.title = closed ?? "Put it behind the text";
  row.label.textContent = label;
  row.was.textContent = was;
  row.share.textContent = share;
  row.whose.textContent = isKept ? " after the sampler" : " by the sampler";
  row.before.style.width = `${(100 * before) / widest}%`;
  row.now.style.width = `${(100 * after) / widest}%`;
}

function rowsFor(view, count) {
  const list = view.querySelector("ol");
  while (list.children.length > count) list.lastChild.remove();
  if (!view.rows) list.replaceChildren();
  view.rows = (view.rows ?? []).slice(0, count);
  while (view.rows.length < count) view.rows.push(makeRow(list));
  return view.rows;
}

const sum = (ids, shares) => ids.reduce((total, id) => total + shares[id], 0);

// The perplexity: as many equally likely tokens would be as uncertain.
function perplexity(shares) {
  let entropy = 0;
  for (const share of shares) if (share > 0) entropy -= share * Math.log(share);
  const count = Math.exp(entropy);
  return count < 10 ? count.toFixed(1).replace(/\.0$/, "") : Math.round(count).toLocaleString("en");
}

function draw(view, settings) {
  const sample = window.scratch.sampler.sample(next.logits, settings, next.seen);
  const ids = rowsOf(sample);
  const rows = rowsFor(view, ids.length);
  const widest = Math.max(...ids.flatMap((id) => [next.model[id], sample.probability[id]]));
  ids.forEach((id, place) => {
    const shares = { before: next.model[id], after: sample.probability[id], isKept: sample.isKept[id] === 1 };
    drawRow(rows[place], id, next.labels[id] ?? `token ${id}`, shares, widest, closedOf(id));
  });

  const size = next.logits.length;
  let held = 0;
  for (let id = 0; id < size; id++) if (sample.isKept[id]) held += next.model[id];
  const counts = `${sample.kept.toLocaleString("en")} of ${size.toLocaleString("en")} tokens kept`;
  const kept = view.querySelector(".kept");
  kept.replaceChildren();
  element("b", "", kept).textContent = counts;
  element("span", "quiet", kept).textContent =
    sample.kept === size ? "with all of the probability" : `with ${percent(held)} of the probability`;
  const [was, is] = [perplexity(next.model), perplexity(sample.probability)];
  view.querySelector(".rest").textContent =
    `All other tokens: ${percent(Math.max(0, 1 - sum(ids, next.model)))} → ` +
    `${percent(Math.max(0, 1 - sum(ids, sample.probability)))}. ` +
    `Perplexity of this choice: ${was} → ${is}, as uncertain as ${is} equally likely tokens.`;
  const top = likeliest(sample.probability, 1)[0];
  return `${counts}. Most likely: ${next.labels[top] ?? `token ${top}`}, ${percent(sample.probability[top])}.`;
}

// Why a token cannot be put behind the text; undefined where it can.
const closedOf = (id) => next.closed[id] ?? (id in next.texts ? undefined : "its text is not known to the page");

// What the last token was drawn from.
function drawLive(view) {
  const { token, tail, vocabulary } = live;
  const rows = token.alternatives.map((each) => ({ ...each, isDrawn: each.piece.id === token.piece.id }));
  if (!rows.some((row) => row.isDrawn)) rows.push({ piece: token.piece, before: token.before, after: token.after, isDrawn: true });
  const shown = rows.slice(0, rowCount());
  const drawn = rows.find((row) => row.isDrawn);
  if (!shown.includes(drawn)) shown[shown.length - 1] = drawn;
  const widest = Math.max(...shown.flatMap((row) => [row.before, row.after]));
  rowsFor(view, shown.length).forEach((row, place) => {
    const { piece, before, after, isDrawn } = shown[place];
    drawRow(row, piece.id, piece.label, { before, after, isKept: after > 0 }, widest, "the model is writing", isDrawn);
  });
  showTail(view, tail);
  const kept = view.querySelector(".kept");
  kept.replaceChildren();
  element("b", "", kept).textContent = `${token.kept.toLocaleString("en")} of ${vocabulary.toLocaleString("en")} tokens kept`;
  element("span", "quiet", kept).textContent = `drawn: ${token.piece.label}`;
  view.querySelector(".rest").textContent = "";
  view.dataset.drawn = "";
}

const showTail = (view, tail) => {
  view.querySelector(".tail").textContent = tail ? `after ${tail.length > 24 ? "…" : ""}${tail.slice(-24)}` : "at the beginning";
};

window.scratch.bars = {
  // The state of the text while the model writes; null: it is over.
  live(state, vocabulary) {
    const token = state?.tokens.at(-1);
    const view = document.querySelector("#bars .next-token");
    if (token) live = { token, tail: state.text.slice(0, token.start), vocabulary, isOver: false };
    else if (live) live.isOver = true;
    if (!token || !view) return;
    age(view);
    drawLive(view);
  },
};

// Whether the bars belong to the text as it is.
function age(view) {
  view.classList.toggle("live", live !== null && !live.isOver);
  view.classList.toggle("stale", (!live || live.isOver) && next !== null && text.value !== lookedAt);
}

function speakLater(view, sentence) {
  clearTimeout(speaking);
  speaking = setTimeout(() => (view.querySelector(".spoken").textContent = sentence), 800);
}

function tell(view, message) {
  view.querySelector("ol").replaceChildren();
  view.querySelector(".rest").textContent = "";
  view.querySelector(".kept").textContent = message;
  view.rows = null;
}

function refresh() {
  const view = document.querySelector("#bars .next-token");
  const settings = window.scratch.settings.read();
  if (!view || !next || !settings || live) return;
  const key = `${turn} ${rowCount()} ${JSON.stringify(settings)}`;
  if (view.dataset.drawn === key) return;
  const isMoved = drawn !== "" && drawn !== key && view.dataset.drawn !== undefined;
  view.dataset.drawn = drawn = key;
  if (next.trouble) return tell(view, next.trouble);
  showTail(view, next.tail);
  const sentence = draw(view, settings);
  if (isMoved) speakLater(view, sentence);
}

function receive(data) {
  turn = data.dataset.turn;
  const message = JSON.parse(data.dataset.next);
  if (!message && !data.dataset.trouble) { // a model has come: it has not looked yet
    [lookedAt, pending] = [null, null];
    if (next) next.seconds = 0; // the time that the other one took says nothing of it
    return;
  }
  next = message ? decode(message) : { trouble: data.dataset.trouble, seconds: 0 };
  lookedAt = pending ? pending.text : document.querySelector("#document textarea")?.value;
  pending = null;
  if (live?.isOver) live = null;
}

// Whether the model should look at the text by itself now.
function isDue(data, now) {
  if (pending && now - pending.since > PATIENCE) [lookedAt, pending] = [pending.text, null];
  if (data.dataset.ready !== "yes" || data.dataset.live !== "yes" || pending || document.hidden) return false;
  if (!find("stop")?.disabled || text.value === lookedAt || (next?.seconds ?? 0) > SLOW) return false;
  return eager || lookedAt === null || now - text.since > Math.max(PAUSE, 2000 * (next?.seconds ?? 0));
}

setInterval(() => {
  const data = document.querySelector("#next-numbers [data-turn]");
  const area = document.querySelector("#document textarea");
  if (!data || !area) return;
  const now = performance.now();
  if (text.value !== area.value) text = { value: area.value, since: now };
  if (data.dataset.turn !== turn) receive(data);
  if (isDue(data, now)) {
    eager = false;
    find("look")?.click();
  }
  const view = document.querySelector("#bars .next-token");
  if (view) age(view);
  refresh();
}, 100);

document.addEventListener("input", (event) => {
  if (event.target.closest?.("#sliders")) requestAnimationFrame(refresh);
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#look") && !pending) { // while one is under way, Gradio drops another
    const area = document.querySelector("#document textarea");
    pending = { text: area?.value, since: performance.now() };
  }
  const bar = event.target.closest?.("#bars button[data-token]");
  if (!bar || bar.getAttribute("aria-disabled") === "true" || !next?.texts) return;
  if (document.querySelector("#document textarea")?.value !== lookedAt) return; // not `text`, which is up to 100 ms old
  eager = true;
  window.scratch.editor.append(next.texts[bar.dataset.token]);
});
document.addEventListener("keydown", (event) => {
  const bar = event.target.closest?.("#bars button[data-token]");
  const steps = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!bar || !steps) return;
  event.preventDefault();
  bar.parentElement[steps]?.querySelector("button").focus();
});
