// What every script of the page shares, and the shortcuts.
const find = (id) => document.getElementById(id);
window.scratch = {
  make(name, className, text, parent) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  },
  // Let a button be pressed, or not.
  enable(id, isFree) {
    const element = find(id);
    if (element && element.disabled === isFree) element.disabled = !isFree;
  },
  percent(share) { // as panels.formats.percent
    if (share > 0 && share < 0.0001) return "< 0.01\u00a0%";
    if (share >= 0.9995 && share < 1) return "> 99.9\u00a0%";
    return `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : share >= 0.01 ? 1 : 2)}\u00a0%`;
  },
};

document.addEventListener("keydown", (event) => {
  if (event.isComposing) return; // Enter takes what an input method offers, Escape leaves it
  const press = (...names) => names.map(find).find((button) => button?.checkVisibility())?.click();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    press("generate", "fill-in", "chat-send", "tour-start", "look-inside");
  } else if (event.key === "Escape" && !event.defaultPrevented) {
    press("stop", "chat-stop", "fill-stop", "tour-stop", "inside-stop");
  }
});
