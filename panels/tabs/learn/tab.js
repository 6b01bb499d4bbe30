// The Learn tab: reading a run's curves point by point, and its time-lapse. The page gets both at once, so that nothing
// here asks for anything. After a live update the reader is where he was before.
const shown = { run: null, point: null, table: false, zoom: false, lapsesOf: null, own: null, lapse: 0, frame: null };
const focus = { plot: null, lapse: null }; // selectors of what had the focus, since an update may rebuild it
let timer = null; // of a time-lapse that plays
const { make } = window.scratch;
const curves = () => document.querySelector("#learn-curves .curves");
const timelapse = () => document.querySelector("#learn-timelapse .timelapse");

const written = (value, digits) =>
  value === null ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US")
    : value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(digits - 1) : String(+value.toPrecision(digits));
// For each number of a point (`Point` in curves.py): its name, digits in the table and in the sentence, and the words of
// the sentence. Masked models have no bits per byte, old runs no loss in evaluation mode, no utilization and no gradient norm.
const COLUMNS = [
  ["Step", 9, 9, (value) => `Step ${value}`],
  ["Training loss", 5, 4, (value) => `training ${value}`],
  ["Training loss, without dropout", 5, 4, (value) => `training without dropout ${value}`],
  ["Validation loss", 5, 4, (value) => `validation ${value}`],
  ["Bits per byte", 5, 4, (value) => `${value} bits per byte`],
  ["Learning rate", 3, 3, (value) => `learning rate ${value}`],
  ["Gradient norm", 4, 4, (value) => `gradient norm ${value}`],
  ["Tokens per second", 5, 4, (value) => `${value} tokens/s`],
  ["Model FLOPs utilization", 3, 3, (_, share) => `${written(100 * share, 3)} % of the processor's peak`],
  ["Tokens seen", 9, 9, (value) => `${value} tokens seen`],
];
const sentence = (point) => COLUMNS
  .map(([, , digits, words], column) => point[column] !== null && words(written(point[column], digits), point[column]))
  .filter(Boolean).join(" · ");

// An update may keep the elements and change their attributes: what was read of them counts until they change.
function read(element, name) {
  const [raw, key] = [element.dataset[name], `${name}Raw`];
  if (element[key] !== raw) [element[key], element[name]] = [raw, JSON.parse(raw)];
  return element[name];
}
const isNew = (element, name) => {
  const changed = element && (element[`${name}Raw`] !== element.dataset[name] || !element.dataset.read);
  if (changed) element.dataset.read = "yes";
  return changed;
};
const clamp = (index, length) => Math.max(0, Math.min(length - 1, index));
const refocus = (element, selector) => {
  if (selector && document.activeElement === document.body) {
    element.querySelector(selector)?.focus({ preventScroll: true });
  }
};

// ---- curves

function placeOf(area, step, value) {
  const { from, to, low, high, log } = area.dataset;
  const scale = (number) => (log ? Math.log(+number) : +number);
  return {
    left: `${(100 * (step - from)) / (to - from)}%`,
    top: `${100 * (1 - (scale(value) - scale(low)) / (scale(high) - scale(low)))}%`,
  };
}

function showPoint(page, index) {
  const points = read(page, "points");
  const at = clamp(index ?? points.length - 1, points.length);
  const point = points[at];
  const text = sentence(point);
  for (const area of page.querySelectorAll(".plot-area")) {
    area.setAttribute("aria-valuemax", points.length - 1);
    area.setAttribute("aria-valuenow", at);
    area.setAttribute("aria-valuetext", text);
    const isHidden = index === null || point[0] < area.dataset.from;
    const cursor = area.querySelector(".cursor");
    cursor.hidden = isHidden;
    cursor.style.left = placeOf(area, point[0], 1).left;
    for (const marker of area.querySelectorAll(".marker")) {
      const value = point[+marker.dataset.column];
      marker.hidden = isHidden || value === null;
      if (value !== null) Object.assign(marker.style, placeOf(area, point[0], value));
    }
  }
  for (const readout of page.querySelectorAll(".readout")) readout.textContent = text;
}

function showZoom(page) {
  page.classList.toggle("zoom", shown.zoom && page.querySelector(".plot.zoomed") !== null);
  for (const box of page.querySelectorAll(".zoom-choice input")) box.checked = shown.zoom;
}

function buildTable(page) {
  const points = read(page, "points");
  const columns = [...COLUMNS.keys()].filter((column) => points.some((point) => point[column] !== null));
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const column of columns) make("th", "", COLUMNS[column][0], head).scope = "col";
  const body = table.createTBody();
  for (const point of points) {
    const row = body.insertRow();
    for (const column of columns) row.insertCell().textContent = written(point[column], COLUMNS[column][1]);
  }
  page.querySelector(".numbers .table").replaceChildren(table);
}

const pointAt = (event) => {
  const area = event.target.closest?.("#learn-curves .plot-area");
  if (!area) return;
  const box = area.getBoundingClientRect();
  const [from, to] = [+area.dataset.from, +area.dataset.to];
  const step = from + ((to - from) * (event.clientX - box.left)) / box.width;
  const distances = read(curves(), "points").map((point) => Math.abs(point[0] - step));
  showPoint(curves(), (shown.point = distances.indexOf(Math.min(...distances))));
};
document.addEventListener("pointermove", pointAt);
document.addEventListener("pointerdown", pointAt);
document.addEventListener("pointerout", (event) => {
  const area = event.target.closest?.("#learn-curves .plot-area");
  if (!area || area.contains(event.relatedTarget) || area === document.activeElement) return;
  if (event.pointerType === "mouse") showPoint(curves(), (shown.point = null));
});
document.addEventListener("keydown", (event) => {
  if (!event.target.closest?.("#learn-curves .plot-area")) return;
  const count = read(curves(), "points").length;
  const at = shown.point ?? count - 1;
  const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: count - 1,
    PageDown: at - 10, PageUp: at + 10 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  showPoint(curves(), (shown.point = clamp(to, count)));
});
document.addEventListener("toggle", (event) => {
  if (!event.target.matches?.("#learn-curves .numbers")) return;
  shown.table = event.target.open;
  if (shown.table) buildTable(curves());
}, true);

// ---- time-lapse

function showFrame(page) {
  const lapses = read(page, "timelapses");
  shown.lapse = Math.min(shown.lapse, lapses.length - 1);
  const { frames, prompt, seed } = lapses[shown.lapse];
  const at = clamp(shown.frame ?? frames.length - 1, frames.length);
  const [step, loss, text, trouble] = frames[at];
  const [slider, button, box] = ["input", ".play", ".text"].map((name) => page.querySelector(name));
  Object.assign(slider, { max: frames.length - 1, value: at, disabled: frames.length < 2 });
  button.disabled = frames.length < 2;
  button.textContent = timer ? "Pause" : "Play";
  button.setAttribute("aria-label", `${button.textContent} the time-lapse`);
  page.querySelector("select").value = shown.lapse;
  const parts = [`Step ${written(step, 9)}`];
  if (loss) parts.push(loss);
  if (seed !== null) parts.push(`seed ${seed}`);
  page.querySelector(".position").textContent = [...parts, `sample ${at + 1} of ${frames.length}`].join(" · ");
  slider.setAttribute("aria-valuetext", parts.slice(0, 2).join(", "));
  const begins = !trouble && text.startsWith(prompt);
  box.querySelector("b").textContent = begins ? prompt : "";
  box.querySelector("span").textContent = trouble ?? (begins ? text.slice(prompt.length) : text);
  box.classList.toggle("trouble", Boolean(trouble));
}

function moveTo(frame) {
  const count = read(timelapse(), "timelapses")[shown.lapse].frames.length;
  shown.frame = frame >= count - 1 ? null : frame; // null: the last one, whatever is added
  showFrame(timelapse());
}

function pause() {
  clearInterval(timer);
  timer = null;
  if (timelapse()) showFrame(timelapse());
}

function play() {
  const interval = matchMedia("(prefers-reduced-motion: reduce)").matches ? 2000 : 900;
  timer = setInterval(() => {
    if (timelapse() && shown.frame !== null) moveTo(shown.frame + 1);
    if (!timelapse() || shown.frame === null) pause();
  }, interval);
  moveTo(shown.frame ?? 0);
}

document.addEventListener("click", (event) => {
  if (event.target.closest?.("#learn-timelapse .play")) (timer ? pause : play)();
});
document.addEventListener("input", (event) => {
  if (!event.target.matches?.("#learn-timelapse input[type=range]")) return;
  const frame = +event.target.value; // pausing draws the present frame, and with it the slider
  pause();
  moveTo(frame);
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("#learn-curves .zoom-choice input")) {
    shown.zoom = event.target.checked;
    showZoom(curves());
    curves().querySelector(`${shown.zoom ? ".zoomed" : ".loss"} .zoom-choice input`).focus();
  } else if (event.target.matches?.("#learn-timelapse select")) {
    shown.lapse = +event.target.value;
    showFrame(timelapse());
  }
});

// ---- both

document.addEventListener("focusin", (event) => {
  const plot = event.target.closest?.("#learn-curves .plot-area")?.dataset.plot;
  focus.plot = plot ? `[data-plot="${plot}"]` : null;
  const names = ["input", "select", ".play"];
  focus.lapse = names.find((name) => event.target.matches?.(`#learn-timelapse .timelapse ${name}`)) ?? null;
});
new MutationObserver(() => {
  const page = curves();
  if (isNew(page, "points")) {
    if (shown.run !== page.dataset.run) [shown.run, shown.point] = [page.dataset.run, null];
    const details = page.querySelector(".numbers");
    if (details.open !== shown.table) details.open = shown.table;
    if (shown.table) buildTable(page);
    showPoint(page, shown.point);
    showZoom(page);
    refocus(page, focus.plot);
  }
  const lapse = timelapse();
  if (isNew(lapse, "timelapses")) {
    if (shown.lapsesOf !== lapse.dataset.run) [shown.lapsesOf, shown.lapse, shown.frame] = [lapse.dataset.run, 0, null];
    const own = JSON.stringify(read(lapse, "timelapses").find((each) => each.own)?.frames[0]);
    if (own && own !== shown.own) [shown.lapse, shown.frame] = [0, null];
    shown.own = own;
    showFrame(lapse);
    refocus(lapse, focus.lapse);
  }
}).observe(document.body, {
  childList: true, subtree: true, attributes: true, attributeFilter: ["data-points", "data-timelapses", "data-read"],
});
