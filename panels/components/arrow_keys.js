// Arrow keys in lists and grids (the "roving tabindex" of ARIA's patterns): a box with the class "roving" is one stop of
// the Tab key, and inside it the arrow keys, Home and End go from item to item. The tab bar has its own: tab_bar.js.
const ITEM = '[role="option"], [role="gridcell"]';
const BOX = ".roving";
const itemIn = (event) => event.target.closest?.(`:is(${BOX}) :is(${ITEM})`);
const isA = (item, role) => item.getAttribute("role") === role;

// Make an item the one that the Tab key stops at; an option is selected too.
window.scratch.choose = (item) => {
  const box = item.closest(BOX);
  for (const other of box.querySelectorAll('[tabindex="0"]')) if (other !== item) other.tabIndex = -1;
  for (const other of box.querySelectorAll('[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
  item.tabIndex = 0;
  if (isA(item, "option")) item.setAttribute("aria-selected", "true");
};

// How far an arrow key goes; where there are rows, up and down go to the next one.
function stepOf(key, box, item) {
  const forward = getComputedStyle(box).direction === "rtl" ? -1 : 1;
  if (key === "ArrowRight") return forward;
  if (key === "ArrowLeft") return -forward;
  const row = item.closest("tr, .layer");
  const width = row ? row.querySelectorAll(ITEM).length : 1;
  return key === "ArrowDown" ? width : key === "ArrowUp" ? -width : 0;
}

document.addEventListener("keydown", (event) => {
  const item = itemIn(event);
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = item.closest(BOX);
  const items = [...box.querySelectorAll(ITEM)];
  const at = items.indexOf(item);
  const ends = { Home: 0, End: items.length - 1 };
  const next = items[event.key in ends ? ends[event.key] : at + stepOf(event.key, box, item)];
  if (!next || next === item) return;
  event.preventDefault();
  next.focus();
});
document.addEventListener("focusin", (event) => {
  const item = itemIn(event);
  if (item) window.scratch.choose(item);
});
