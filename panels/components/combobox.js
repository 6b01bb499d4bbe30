// Esc in a list's field takes back what was typed: Gradio only closes the list, and takes the half-typed text for a choice
// when the field is left (6.31). It does nothing else on the page then: `defaultPrevented` says so to the other scripts.
const FIELD = 'input[role="combobox"]';
let before = ""; // what the field said when it got the focus

document.addEventListener("focusin", (event) => {
  if (event.target.matches(FIELD)) before = event.target.value;
});
document.addEventListener("keydown", (event) => { // before Gradio's own, which closes the list
  if (event.key !== "Escape" || !event.target.matches?.(FIELD)) return;
  const isChanged = event.target.value !== before;
  if (isChanged || event.target.getAttribute("aria-expanded") === "true") event.preventDefault();
  if (!isChanged) return;
  event.target.value = before;
  event.target.dispatchEvent(new Event("input", { bubbles: true }));
}, true);
