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
