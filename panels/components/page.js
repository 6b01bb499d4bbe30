// Shortcuts, and what the document does while the model writes in it: it is read-only and follows its end,
// unless its reader has scrolled up.
const find = (id) => document.getElementById(id);
window.scratch = {
  percent(probability) { // one rule for all probabilities: only 0 is shown as 0 and only 1 as 100
    const value = 100 * probability;
    if (value > 0 && value < 0.01) return "<0.01%";
    if (value >= 99.95 && value < 100) return ">99.9%";
    return `${value.toFixed(value === 0 || value === 100 ? 0 : value >= 1 ? 1 : 2)}%`;
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
