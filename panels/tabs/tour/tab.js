// The Tour tab: shows one step after the other, by button, by arrow key, or by its number; Esc leaves the tour.
const { make } = window.scratch;
const TEAL = [13, 148, 136];
const ORANGE = [194, 120, 40];
let step = 0;
let shown = null; // the tour that is on the page: its text and its seed
let wanted = null; // how the next tour begins: "draw" at the same step, "h2" at the first one with the focus on it

const tour = () => document.querySelector("#tour-result .tour");
const steps = (section) => [...section.querySelectorAll(".step")];

function show(section, to, focus = true) {
  const all = steps(section);
  step = Math.max(0, Math.min(all.length - 1, to));
  all.forEach((each, index) => { each.hidden = index !== step; });
  const buttons = [...section.querySelectorAll("nav button")];
  buttons.forEach((button, index) => {
    if (index === step) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
  });
  const [back, on] = ["back", "on"].map((name) => section.querySelector(`[data-walk="${name}"]`));
  back.disabled = step === 0;
  on.hidden = step === all.length - 1;
  on.querySelector("span").textContent = buttons[step + 1]?.querySelector("span").textContent ?? "";
  if (!focus) return;
  all[step].querySelector("h2").focus({ preventScroll: true });
  section.scrollIntoView({ block: "nearest" });
}

// A pixel a number: teal above 0, orange below, the darker the further away.
function paint(section) {
  const table = section.querySelector(".vectors");
  const rows = JSON.parse(table.dataset.numbers);
  [...table.querySelectorAll("canvas")].forEach((canvas, row) => {
    canvas.width = rows[row].length;
    canvas.height = 1;
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, 1);
    rows[row].forEach((value, place) => {
      image.data.set([...(value < 0 ? ORANGE : TEAL), Math.round(255 * Math.sqrt(Math.abs(value) / 100))], 4 * place);
    });
    context.putImageData(image, 0, 0);
  });
}

function leave(section) {
  section.classList.add("left");
  section.querySelector(".resume")?.remove();
  const button = make("button", "resume", `Back to the tour, step ${step + 1}`, section);
  button.type = "button";
  document.querySelector("#tour-text textarea")?.focus();
}

function resume(section) {
  section.classList.remove("left");
  section.querySelector(".resume")?.remove();
  show(section, step);
}

document.addEventListener("click", (event) => {
  const section = event.target.closest?.("#tour-result .tour");
  const button = event.target.closest?.("button");
  if (!section || !button) return;
  const { step: number, walk, again } = button.dataset;
  if (number !== undefined) show(section, +number);
  else if (walk === "leave") leave(section);
  else if (walk) show(section, step + (walk === "on" ? 1 : -1));
  else if (again) wanted = again === "draw" ? "draw" : "h2";
  else resume(section);
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#tour-start, #tour-samples button")) wanted = "h2";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.closest?.("#tour-text")) wanted = null;
  const section = tour();
  if (!section?.checkVisibility() || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const inside = event.target === document.body || event.target.closest?.("#tour-result");
  const isLeft = section.classList.contains("left");
  if (event.key === "Escape" && !isLeft && !event.defaultPrevented && document.getElementById("tour-stop")?.disabled) {
    leave(section);
  } else if (inside && !isLeft) {
    const to = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: steps(section).length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(section, to);
  }
});

// A new tour begins at its first step; one that only drew again stays; one that is built again is as it was.
new MutationObserver(() => {
  const section = tour();
  if (!section) return;
  const { text, seed } = section.dataset;
  const key = `${text} ${seed}`;
  const isNew = text !== shown?.text || seed !== shown.seed;
  if (!isNew && section.dataset.drawn === key) return;
  // Two clicks on Draw again may have two answers, and both stay: so this is wanted until something else is.
  const isDrawn = isNew && wanted === "draw" && text === shown?.text;
  [shown, section.dataset.drawn] = [{ text, seed }, key];
  paint(section);
  if (isNew) section.classList.remove("left");
  show(section, isNew && !isDrawn ? 0 : step, isNew && wanted === "h2");
  // The button that was clicked has gone with the old tour, and its focus.
  if (isDrawn && document.activeElement === document.body) section.querySelector('[data-again="draw"]')?.focus();
  if (isNew && !isDrawn) wanted = null;
}).observe(document.body, { childList: true, subtree: true, attributeFilter: ["data-seed", "data-text", "data-drawn"] });
