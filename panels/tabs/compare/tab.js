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
  } else if (event.key === "Escape" && !stop.disabled) {
    stop.click();
  }
});
