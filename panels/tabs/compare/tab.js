// The prompt and the choices that the server suggests for a model, which comes later than the page: what the visitor has typed
// or chosen by then stays.
let isTouched = false;
for (const kind of ["click", "input", "keydown"]) {
  document.addEventListener(kind, (event) => {
    if (event.key !== "Tab" && event.target.closest?.("#compare-sides, #compare-ideas")) isTouched ||= event.isTrusted;
  });
}
window.scratch.compare = {
  suggest(suggested, prompt, ...chosen) {
    const found = JSON.parse(suggested);
    const [a, b, same, ...values] = isTouched ? chosen : found.choices;
    return [prompt || found.prompt, a, b, same, { __type__: "update", visible: !same }, ...values];
  },
};

// On a narrow screen the settings of B begin folded: six sliders would stand between the models and the button.
const seen = new WeakSet();
setInterval(() => {
  if (!matchMedia("(max-width: 640px)").matches) return;
  const header = document.querySelector("#compare-side-b .label-wrap.open");
  if (!header?.checkVisibility() || seen.has(header)) return;
  seen.add(header);
  header.click();
}, 100);

// Ctrl+Enter compares, Esc stops; the mark where the texts diverge comes into sight when it is found below the screen.
document.addEventListener("keydown", (event) => {
  const [go, stop] = ["compare-go", "compare-stop"].map((id) => document.getElementById(id));
  if (!go?.checkVisibility()) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !go.disabled) {
    event.preventDefault();
    go.click();
  } else if (event.key === "Escape" && !stop.disabled && !event.defaultPrevented) {
    stop.click();
  }
});
