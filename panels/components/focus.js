// A button that can no longer be pressed loses the focus, and who uses the keyboard would begin again at the top of the
// page: the focus goes to the nearest button of its row that can be pressed, as from Generate to Stop and back.
let last = null; // the button that has the focus, or had it when it was disabled

document.addEventListener("focusin", (event) => {
  last = event.target.closest("button");
});
document.addEventListener("focusout", (event) => {
  if (event.target === last && !last.disabled) last = null;
});

function nearest(button) {
  const all = [...button.parentElement.querySelectorAll(":scope > button")];
  const distance = (other) => Math.abs(all.indexOf(other) - all.indexOf(button));
  const free = all.filter((other) => !other.disabled && other.checkVisibility());
  return free.sort((one, other) => distance(one) - distance(other))[0];
}

new MutationObserver(() => {
  if (last?.disabled && [document.body, last].includes(document.activeElement)) nearest(last)?.focus({ preventScroll: true });
}).observe(document.body, { subtree: true, attributeFilter: ["disabled"] });
