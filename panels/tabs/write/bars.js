// The next token's bars: drawn from logits that came once, again at every move of a slider, without asking the server.
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
  row.share = element("span", "share", button);
  return row;
}

function drawRow(row, id, sample, widest) {
  const isKept = sample.isKept[id] === 1;
  const label = next.labels[id] ?? `token ${id}`;
  const closed = next.closed[id];
  const [was, share] = [percent(next.model[id]), isKept ? percent(sample.probability[id]) : "cut"];
  const said = isKept ? `${share} after the sampler` : "cut by the sampler";
  row.button.dataset.token = id;
  row.button.classList.toggle("cut", !isKept);
  row.button.setAttribute("aria-disabled", closed !== undefined);
  row.button.setAttribute("aria-label", `${label}: ${was} from the model, ${said}${closed ? `. ${closed}` : ""}`);
  row.button.title = closed ?? "Put it behind the text";
  row.label.textContent = label;
  row.was.textContent = was;
  row.share.textContent = share;
  row.before.style.width = `${(100 * next.model[id]) / widest}%`;
  row.now.style.width = `${(100 * sample.probability[id]) / widest}%`;
}

const sum = (ids, shares) => ids.reduce((total, id) => total + shares[id], 0);

// As many equally likely tokens would be as hard to guess.
function openness(shares) {
  let entropy = 0;
  for (const share of shares) if (share > 0) entropy -= share * Math.log(share);
  const count = Math.exp(entropy);
  return count < 10 ? count.toFixed(1).replace(/\.0$/, "") : Math.round(count).toLocaleString("en");
}

function draw(view, settings) {
  const sample = window.scratch.sampler.sample(next.logits, settings, next.seen);
  const ids = rowsOf(sample);
  const list = view.querySelector("ol");
  while (list.children.length > ids.length) list.lastChild.remove();
  if (!view.rows) list.replaceChildren();
  view.rows = (view.rows ?? []).slice(0, ids.length);
  while (view.rows.length < ids.length) view.rows.push(makeRow(list));
  const widest = Math.max(...ids.flatMap((id) => [next.model[id], sample.probability[id]]));
  ids.forEach((id, place) => drawRow(view.rows[place], id, sample, widest));

  const size = next.logits.length;
  let held = 0;
  for (let id = 0; id < size; id++) if (sample.isKept[id]) held += next.model[id];
  const counts = `${sample.kept.toLocaleString("en")} of ${size.toLocaleString("en")} kept`;
  const kept = view.querySelector(".kept");
  kept.replaceChildren();
  element("b", "", kept).textContent = counts;
  element("span", "quiet", kept).textContent =
    sample.kept === size ? "all that the model holds possible" : `${percent(held)} of what the model holds possible`;
  const [wasOpen, isOpen] = [openness(next.model), openness(sample.probability)];
  view.querySelector(".rest").textContent =
    `The others: ${percent(Math.max(0, 1 - sum(ids, next.model)))} → ` +
    `${percent(Math.max(0, 1 - sum(ids, sample.probability)))}. ` +
    `As open as a choice among ${wasOpen}${isOpen === wasOpen ? "" : ` → ${isOpen}`}.`;
  const top = likeliest(sample.probability, 1)[0];
  return `${counts}. Likeliest: ${next.labels[top] ?? `token ${top}`}, ${percent(sample.probability[top])}.`;
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
  if (!view || !next || !settings) return;
  const key = `${turn} ${rowCount()} ${JSON.stringify(settings)}`;
  if (view.dataset.drawn === key) return;
  const isMoved = drawn !== "" && drawn !== key && view.dataset.drawn !== undefined;
  view.dataset.drawn = drawn = key;
  if (next.trouble) return tell(view, next.trouble);
  view.querySelector(".tail").textContent = next.tail ? `after ${next.tail.length > 24 ? "…" : ""}${next.tail.slice(-24)}` : "at the beginning";
  const sentence = draw(view, settings);
  if (isMoved) speakLater(view, sentence);
}

function receive(data) {
  turn = data.dataset.turn;
  const message = JSON.parse(data.dataset.next);
  if (!message && !data.dataset.trouble) return;
  next = message ? decode(message) : { trouble: data.dataset.trouble, seconds: 0 };
  lookedAt = pending ? pending.text : document.querySelector("#document textarea")?.value;
  pending = null;
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
  view?.classList.toggle("stale", next !== null && text.value !== lookedAt);
  refresh();
}, 100);

document.addEventListener("input", (event) => {
  if (event.target.closest?.("#sliders")) requestAnimationFrame(refresh);
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#look")) {
    const area = document.querySelector("#document textarea");
    pending = { text: area?.value, since: performance.now() };
  }
  if (event.target.closest?.("#bars button[data-token]")) eager = true;
});
document.addEventListener("keydown", (event) => {
  const bar = event.target.closest?.("#bars button[data-token]");
  const steps = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!bar || !steps) return;
  event.preventDefault();
  bar.parentElement[steps]?.querySelector("button").focus();
});
