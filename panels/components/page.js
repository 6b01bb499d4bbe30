// Shortcuts, and what the document does while the model writes in it: it is read-only and follows its end,
// unless its reader has scrolled up.
const find = (id) => document.getElementById(id);
window.scratch = {};

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
