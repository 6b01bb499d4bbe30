// The tab bar by keyboard (ARIA's tabs pattern): one stop of the Tab key, in which the arrow keys, Home and End open the
// tabs, those too that a narrow screen has put into a menu; and links that open a tab, wherever they are.
const TAB = '[role="tablist"] [role="tab"]';
const textOf = (element) => element.textContent.trim();
const tabs = () => [...document.querySelectorAll(TAB)];
const inMenu = () => [...document.querySelectorAll(".overflow-dropdown button")];
const names = () => [...document.querySelectorAll('.tab-container[aria-hidden="true"] button')].map(textOf);
const selected = () => tabs().find((tab) => tab.getAttribute("aria-selected") === "true");

function open(name) {
  [...tabs(), ...inMenu()].find((each) => textOf(each) === name)?.click();
}

// Call `act` with what `find` returns, as soon as it returns something: an opened tab is built again.
function whenThere(find, act, patience = 400) {
  const found = find();
  if (found) act(found);
  else if (patience) setTimeout(() => whenThere(find, act, patience - 1), 50);
}

new MutationObserver(() => {
  const chosen = selected() ?? tabs()[0];
  for (const tab of tabs()) {
    const index = tab === chosen ? "0" : "-1";
    if (tab.getAttribute("tabindex") !== index) tab.setAttribute("tabindex", index);
  }
  const [more, menu] = [".overflow-menu > button", ".overflow-dropdown"].map((name) => document.querySelector(name));
  const isOpen = String(Boolean(menu && !menu.classList.contains("hide")));
  if (more && more.getAttribute("aria-expanded") !== isOpen) more.setAttribute("aria-expanded", isOpen);
}).observe(document.body, { childList: true, subtree: true, attributeFilter: ["aria-selected", "class"] });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tab = event.target.closest?.(TAB);
  const menu = event.target.closest?.(".overflow-menu");
  if (!tab && !menu) return;
  const items = tab ? names() : inMenu();
  const at = tab ? items.indexOf(textOf(tab)) : items.indexOf(event.target);
  const [on, back] = tab ? ["ArrowRight", "ArrowLeft"] : ["ArrowDown", "ArrowUp"];
  const to = { [on]: (at + 1) % items.length, [back]: (Math.max(at, 0) + items.length - 1) % items.length, Home: 0,
    End: items.length - 1 }[event.key];
  const button = menu?.querySelector("button");
  const isOpen = button?.getAttribute("aria-expanded") === "true";
  if (menu && event.key === "Escape" && isOpen) {
    button.click();
    button.focus();
  } else if (to !== undefined && tab) {
    open(items[to]);
    whenThere(() => (selected() && textOf(selected()) === items[to] ? selected() : null), (there) => there.focus());
  } else if (to !== undefined) {
    if (!isOpen) button.click();
    setTimeout(() => inMenu()[to]?.focus());
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}, true);

// Who chose a tab in the menu by keyboard goes on from the tab.
document.addEventListener("click", (event) => {
  const item = event.target.closest?.(".overflow-dropdown button");
  if (!item || event.detail) return;
  const name = textOf(item);
  whenThere(() => (selected() && textOf(selected()) === name ? selected() : null), (there) => there.focus());
}, true);

// <a data-opens="Inside" data-text="…" data-into="#field" data-choose="Attention" data-press="#button">: open a tab, put a
// text into a field of it, choose a radio button, press a button. With data-if-empty a field that has a text keeps it; with
// data-unless="selector" the button is pressed only where nothing matches that.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-opens]");
  if (!link) return;
  event.preventDefault();
  const { opens, text, into, ifEmpty, choose, press, unless } = link.dataset;
  open(opens);
  const area = () => document.querySelector(into ? `${into} :is(textarea, input)` : press ?? "body");
  whenThere(() => (area()?.checkVisibility() ? area() : null), (field) => {
    if (into && !(ifEmpty !== undefined && field.value)) {
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const radios = choose ? [...document.querySelectorAll('input[type="radio"]')] : [];
    radios.find((radio) => radio.checkVisibility() && textOf(radio.closest("label")) === choose)?.click();
    window.scrollTo({ top: 0 });
    if (press && !(unless && document.querySelector(unless))) setTimeout(() => document.querySelector(press)?.click(), 120); // when the field has told its new text
    else selected()?.focus({ preventScroll: true });
  });
});

// Who takes a trained model writes with it next: its button opens the first tab, which is Write, or Fill in for a model of
// blanks. The head, which says what becomes of the choice, is in sight there.
document.addEventListener("click", (event) => {
  if (!event.target.closest?.("#learn-use, #strip-use")) return;
  const [name] = names();
  open(name);
  whenThere(() => (selected() && textOf(selected()) === name ? selected() : null), (there) => there.focus({ preventScroll: true }));
  window.scrollTo({ top: 0 });
});
