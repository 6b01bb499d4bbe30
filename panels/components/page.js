// Shortcuts, and what the document does while the model writes in it: it is read-only and follows its end,
// unless its reader has scrolled up.
const find = (id) => document.getElementById(id);
window.scratch = {
  make(name, className, text, parent) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  },
  percent(share) { // as panels.formats.percent
    if (share > 0 && share < 0.0001) return "< 0.01\u00a0%";
    if (share >= 0.9995 && share < 1) return "> 99.9\u00a0%";
    return `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : share >= 0.01 ? 1 : 2)}\u00a0%`;
  },
};

document.addEventListener("keydown", (event) => {
  const press = (...names) => names.map(find).find((button) => button?.checkVisibility())?.click();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    press("generate", "fill-in", "look-inside");
  } else if (event.key === "Escape") {
    press("stop", "fill-stop", "inside-stop");
  }
});

let follow = true;
setInterval(() => {
  const area = document.querySelector("#document textarea");
  const writing = find("stop") && !find("stop").disabled;
  if (!area) return;
  if (writing && !area.readOnly) {
    follow = true;
    area.onwheel = area.ontouchmove = () => {
      follow = area.scrollTop + area.clientHeight > area.scrollHeight - 30;
    };
  }
  area.readOnly = writing;
  if (writing && follow) area.scrollTop = area.scrollHeight;
}, 50);
