// Esc in a list's field takes back what was typed: Gradio only closes the list, and takes the half-typed text for a choice
// when the field is left (6.31).
const FIELD = 'input[role="combobox"]';
let before = ""; // what the field said when it got the focus

document.addEventListener("focusin", (event) => {
  if (event.target.matches(FIELD)) before = event.target.value;
});
document.addEventListener("keydown", (event) => { // before Gradio's own, which closes the list
  if (event.key !== "Escape" || !event.target.matches?.(FIELD) || event.target.value === before) return;
  event.target.value = before;
  event.target.dispatchEvent(new Event("input", { bubbles: true }));
}, true);
