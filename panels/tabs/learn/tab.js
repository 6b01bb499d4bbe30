// The Learn tab: reading a run's curves point by point, and its time-lapse. The page gets both at once, so that nothing
// here asks for anything. After a live update the reader is where he was before.
const learn = { at: null, focus: null, table: false, film: 0, frame: null, playing: null, closer: false, lapseFocus: null };
const learnPage = () => document.getElementById("learn-curves")?.querySelector(".curves");
const lapsePage = () => document.getElementById("learn-lapse")?.querySelector(".lapse");
const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const written = (value, digits = 4) =>
  value === null ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US")
    : value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(digits - 1) : String(+value.toPrecision(digits));
// Name, place in a point, digits. Masked models have no bits per byte, old runs no utilization and no gradient norm.
const COLUMNS = [
  ["Step", 0, 9], ["Tokens seen", 1, 9], ["Training loss", 2, 5], ["Validation loss", 3, 5], ["Bits per byte", 4, 5],
  ["Learning rate", 5, 3], ["Tokens per second", 6, 5], ["FLOPs utilization", 7, 3], ["Gradient norm", 8, 4],
];

// An update may keep the elements and change their attributes: what was read of them counts until they change.
function read(page, name) {
  if (page[`${name}Raw`] !== page.dataset[name]) {
    page[`${name}Raw`] = page.dataset[name];
    page[name] = JSON.parse(page.dataset[name]);
  }
  return page[name];
}
const pointsOf = (page) => read(page, "points");
const filmsOf = (page) => read(page, "films");

function sentence([step, seen, training, validation, bits, rate, speed, utilization, norm]) {
  const parts = [`Step ${written(step, 9)}`];
  if (training !== null) parts.push(`training ${written(training)}`);
  if (validation !== null) parts.push(`validation ${written(validation)}`);
  if (bits !== null) parts.push(`${written(bits)} bits per byte`);
  if (rate !== null) parts.push(`learning rate ${written(rate, 3)}`);
  if (norm !== null) parts.push(`gradient norm ${written(norm)}`);
  if (speed !== null) parts.push(`${written(speed)} tokens/s`);
  if (utilization !== null) parts.push(`${written(100 * utilization, 3)} % of the peak FLOP/s`);
  if (seen !== null) parts.push(`${written(seen, 9)} tokens seen`);
  return parts.join(" · ");
}

const acrossOf = (field, step) => (100 * (step - field.dataset.from)) / (field.dataset.to - field.dataset.from);
function placeOf(field, value) {
  const scale = field.dataset.log ? Math.log : (number) => number;
  const [low, high] = [scale(+field.dataset.low), scale(+field.dataset.high)];
  return 100 * (1 - (scale(value) - low) / (high - low));
}

function showPoint(page, index) {
  const points = pointsOf(page);
  const at = index === null ? points.length - 1 : Math.max(0, Math.min(points.length - 1, index));
  const point = points[at];
  const text = sentence(point);
  for (const field of page.querySelectorAll(".field")) {
    field.setAttribute("aria-valuenow", at);
    field.setAttribute("aria-valuetext", text);
    const cursor = field.querySelector(".cursor");
    const left = acrossOf(field, point[0]);
    cursor.hidden = index === null || left < 0;
    cursor.style.left = `${left}%`;
    for (const spot of field.querySelectorAll(".spot")) {
      const value = point[+spot.dataset.column];
      spot.hidden = index === null || value === null || left < 0;
      if (value !== null) Object.assign(spot.style, { left: `${left}%`, top: `${placeOf(field, value)}%` });
    }
  }
  for (const readout of page.querySelectorAll(".readout")) readout.textContent = text;
}

function showCloser(page) {
  const there = page.querySelector(".plot.late") !== null;
  page.classList.toggle("closer", learn.closer && there);
  for (const box of page.querySelectorAll(".closer input")) box.checked = learn.closer;
}

function buildTable(page) {
  const place = page.querySelector(".numbers .table");
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const columns = COLUMNS.filter(([, column]) => pointsOf(page).some((point) => point[column] !== null));
  for (const [name] of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const point of pointsOf(page)) {
    const row = body.insertRow();
    for (const [, column, digits] of columns) row.insertCell().textContent = written(point[column], digits);
  }
  place.tabIndex = 0;
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", "The numbers of the curves");
  place.replaceChildren(table);
}

function showFrame(page) {
  const films = filmsOf(page);
  learn.film = Math.min(learn.film, films.length - 1);
  const { frames, prompt, seed } = films[learn.film];
  const at = learn.frame === null ? frames.length - 1 : Math.min(learn.frame, frames.length - 1);
  const [step, loss, bits, text, trouble] = frames[at];
  const slider = page.querySelector("input[type=range]");
  slider.max = frames.length - 1;
  slider.value = at;
  slider.disabled = frames.length < 2;
  page.querySelector(".play").disabled = frames.length < 2;
  page.querySelector("select").value = learn.film;
  const parts = [`Step ${written(step, 9)}`];
  if (loss !== null) parts.push(`validation loss ${written(loss)}`);
  if (bits !== null) parts.push(`${written(bits)} bits per byte`);
  if (seed !== null) parts.push(`seed ${seed}`);
  parts.push(`${at + 1} of ${frames.length}`);
  page.querySelector(".where").textContent = parts.join(" · ");
  slider.setAttribute("aria-valuetext", parts.slice(0, 2).join(", "));
  const begins = !trouble && text.startsWith(prompt);
  page.querySelector(".sheet b").textContent = begins ? prompt : "";
  page.querySelector(".sheet span").textContent = trouble ?? (begins ? text.slice(prompt.length) : text);
  page.querySelector(".sheet").classList.toggle("trouble", Boolean(trouble));
}

function moveTo(page, frame) {
  const last = filmsOf(page)[learn.film].frames.length - 1;
  const to = Math.max(0, Math.min(last, frame));
  learn.frame = to === last ? null : to;
  showFrame(page);
}

function play(page, on) {
  clearInterval(learn.playing);
  learn.playing = null;
  if (on) {
    if (learn.frame === null) moveTo(page, 0);
    learn.playing = setInterval(() => {
      const there = lapsePage();
      if (there && learn.frame !== null) moveTo(there, learn.frame + 1);
      if (!there || learn.frame === null) play(there, false);
    }, still() ? 2000 : 900);
  }
  if (page) labelPlay(page);
}

function labelPlay(page) {
  const on = learn.playing !== null;
  const button = page.querySelector(".play");
  button.textContent = on ? "Pause" : "Play";
  button.setAttribute("aria-label", on ? "Pause the time-lapse" : "Play the time-lapse");
}

new MutationObserver(() => {
  const page = learnPage();
  if (page && (page.pointsRaw !== page.dataset.points || !page.dataset.read)) {
    page.dataset.read = "yes";
    if (learn.run !== page.dataset.run) [learn.run, learn.at] = [page.dataset.run, null];
    const details = page.querySelector(".numbers");
    if (details.open !== learn.table) details.open = learn.table;
    if (learn.table) buildTable(page);
    showPoint(page, learn.at);
    showCloser(page);
    if (learn.focus && document.activeElement === document.body) {
      page.querySelector(`[data-plot="${learn.focus}"]`)?.focus({ preventScroll: true });
    }
  }
  const lapse = lapsePage();
  if (lapse && (lapse.filmsRaw !== lapse.dataset.films || !lapse.dataset.read)) {
    lapse.dataset.read = "yes";
    if (learn.filmed !== lapse.dataset.run) [learn.filmed, learn.film, learn.frame] = [lapse.dataset.run, 0, null];
    const yours = filmsOf(lapse).filter((film) => film.own).length;
    const first = JSON.stringify(filmsOf(lapse).find((film) => film.own)?.frames[0]);
    if (yours && first !== learn.yours) [learn.film, learn.frame] = [0, null];
    learn.yours = first;
    showFrame(lapse);
    labelPlay(lapse);
    if (learn.lapseFocus && document.activeElement === document.body) {
      lapse.querySelector(learn.lapseFocus)?.focus({ preventScroll: true });
    }
  }
}).observe(document.body, {
  childList: true, subtree: true, attributes: true, attributeFilter: ["data-points", "data-films", "data-read"],
});

const pointAt = (event) => {
  const field = event.target.closest?.("#learn-curves .field");
  if (!field) return;
  const page = learnPage();
  const box = field.getBoundingClientRect();
  const [from, to] = [+field.dataset.from, +field.dataset.to];
  const step = from + ((to - from) * (event.clientX - box.left)) / box.width;
  const points = pointsOf(page);
  let best = 0;
  points.forEach((point, index) => {
    if (Math.abs(point[0] - step) < Math.abs(points[best][0] - step)) best = index;
  });
  learn.at = best;
  showPoint(page, best);
};
document.addEventListener("pointermove", pointAt);
document.addEventListener("pointerdown", pointAt);
document.addEventListener("pointerout", (event) => {
  const field = event.target.closest?.("#learn-curves .field");
  if (!field || field.contains(event.relatedTarget) || field === document.activeElement) return;
  if (event.pointerType === "mouse") showPoint(learnPage(), (learn.at = null));
});
document.addEventListener("keydown", (event) => {
  const field = event.target.closest?.("#learn-curves .field");
  if (!field) return;
  const page = learnPage();
  const last = pointsOf(page).length - 1;
  const at = learn.at ?? last;
  const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last,
    PageDown: at - 10, PageUp: at + 10 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  learn.at = Math.max(0, Math.min(last, to));
  showPoint(page, learn.at);
});
document.addEventListener("focusin", (event) => {
  learn.focus = event.target.closest?.("#learn-curves .field")?.dataset.plot ?? null;
  const reel = event.target.closest?.("#learn-lapse .lapse") && event.target;
  learn.lapseFocus = reel ? (reel.type === "range" ? "input" : reel.tagName === "SELECT" ? "select" : ".play") : null;
});
document.addEventListener("toggle", (event) => {
  if (!event.target.matches?.("#learn-curves .numbers")) return;
  learn.table = event.target.open;
  if (learn.table) buildTable(learnPage());
}, true);
document.addEventListener("input", (event) => {
  if (!event.target.matches?.("#learn-lapse input[type=range]")) return;
  play(lapsePage(), false);
  moveTo(lapsePage(), +event.target.value);
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("#learn-curves .closer input")) {
    const page = learnPage();
    learn.closer = event.target.checked;
    showCloser(page);
    page.querySelector(`.${learn.closer ? "late" : "loss"} .closer input`).focus();
  }
  if (!event.target.matches?.("#learn-lapse select")) return;
  learn.film = +event.target.value;
  showFrame(lapsePage());
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#learn-lapse .play")) play(lapsePage(), learn.playing === null);
});
