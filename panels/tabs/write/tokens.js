// The tokens of the text: a tip over the one that is pointed at; a panel of what else could have come for one that is
// clicked, tapped, or chosen with the keyboard. The field lies over them, so that a pointer is looked up by its place.
const { make, percent } = window.scratch;
const { bits } = window.scratch.surprise;
const HOVER = 120; // milliseconds that the pointer rests on a token before the tip comes
const DRAG = 6; // pixels that a tap may move

const editor = () => window.scratch.editor;
const spans = () => window.scratch.editor?.spans() ?? [];
const isNarrow = () => window.matchMedia("(max-width: 640px)").matches;
const inBits = (share) => {
  const value = Math.abs(bits(share));
  return Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : 1)} bits` : "∞ bits";
};

let shown = -1; // the token that the panel is about
let branched = -1; // the token that a branch was taken at with the keyboard, focused again when the writing is over
let timer = 0;

const panel = make("div");
panel.id = "token-panel";
panel.hidden = true;
panel.setAttribute("role", "dialog");
const tip = make("div");
tip.id = "token-tip";
tip.hidden = true;
tip.setAttribute("role", "tooltip");

function mount(element) {
  if (!element.isConnected) document.querySelector(".gradio-container .contain").append(element);
}

const isShown = () => !panel.hidden;

// The token at a place on the screen, or -1.
function tokenAt(x, y) {
  const found = document.elementsFromPoint(x, y).find((element) => element.matches(".layer .token"));
  return found ? spans().indexOf(found) : -1;
}

function boxOf(span, x, y) {
  const boxes = [...span.getClientRects()];
  return boxes.find((box) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom) ?? boxes[0] ?? span.getBoundingClientRect();
}

function place(element, box) {
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = box.bottom + height + 12 < window.innerHeight || box.top < height + 12;
  element.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8))}px`;
  element.style.top = `${below ? Math.min(box.bottom + 6, Math.max(8, window.innerHeight - height - 8)) : box.top - height - 6}px`;
}

// The tip

function showTip(index, x, y) {
  const span = spans()[index];
  if (!span || isShown()) return;
  mount(tip);
  const { token } = span;
  const rank = token.alternatives.findIndex(({ piece }) => piece === token.piece || piece.id === token.piece.id) + 1;
  tip.replaceChildren();
  make("b", "", token.piece.label, tip);
  make("span", "", `${inBits(token.before)}, ${percent(token.before)}`, tip);
  make("span", "quiet", rank > 0 ? `rank ${rank}` : `not among the first ${token.alternatives.length}`, tip);
  tip.hidden = false;
  place(tip, boxOf(span, x, y));
}

function hideTip() {
  clearTimeout(timer);
  tip.hidden = true;
}

// The panel

function fill(span) {
  const { token } = span;
  panel.replaceChildren();
  panel.setAttribute("aria-label", `What else could have come than ${token.piece.label}`);
  const head = make("header", "", undefined, panel);
  make("b", "label", token.piece.label, head);
  make("span", "bits", inBits(token.before), head);
  const close = make("button", "close", "×", head);
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  make("p", "kept", `The sampler drew from ${token.kept.toLocaleString("en")} token${token.kept === 1 ? "" : "s"}`, panel);
  const heads = make("p", "heads", undefined, panel);
  heads.setAttribute("aria-hidden", "true");
  make("span", "", "model", heads);
  make("span", "", "sampler", heads);
  const list = make("ul", "", undefined, panel);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Alternatives, the most likely first");
  const rows = token.alternatives.map(({ piece, before, after }, choice) =>
    ({ piece, p: before, q: after, obstacle: piece.obstacle, isWritten: piece.id === token.piece.id, choice }));
  if (!rows.some((row) => row.isWritten)) {
    const obstacle = `below the first ${token.alternatives.length}`;
    rows.push({ piece: token.piece, p: token.before, q: token.after, obstacle, isWritten: true, choice: -1 });
  }
  const most = Math.max(...rows.map((row) => Math.max(row.p, row.q)));
  for (const row of rows) {
    const item = make("li", row.q === 0 ? "cut" : "", undefined, list);
    item.setAttribute("role", "option");
    item.tabIndex = -1;
    item.setAttribute("aria-selected", row.isWritten ? "true" : "false");
    if (row.obstacle) item.setAttribute("aria-disabled", "true");
    item.dataset.choice = row.choice;
    make("i", "before", undefined, item).style.width = `${(100 * row.p) / most}%`;
    make("i", "after", undefined, item).style.width = `${(100 * row.q) / most}%`;
    const name = make("span", "name", row.piece.label, item);
    const notes = [row.isWritten && "written", row.obstacle].filter(Boolean).join(", ");
    if (notes) make("em", "", notes, name);
    make("span", "p", percent(row.p), item);
    make("span", "q", row.q === 0 ? "cut" : percent(row.q), item);
    item.setAttribute("aria-label", `${row.piece.label}, model ${percent(row.p)}, sampler ` +
      `${row.q === 0 ? "cut" : percent(row.q)}${notes && ", " + notes}`);
  }
  make("p", "hint", "Choose one and the text continues from there.", panel);
}

function placePanel(span, x, y) {
  if (!isNarrow()) return place(panel, boxOf(span, x, y));
  panel.removeAttribute("style"); // the style sheet puts it at the foot of the screen
  const hidden = span.getBoundingClientRect().bottom - panel.getBoundingClientRect().top + 12;
  if (hidden > 0) window.scrollBy(0, hidden);
}

function show(index, x, y) {
  const span = spans()[index];
  if (!span || editor().isWriting()) return;
  hideTip();
  mount(panel);
  if (shown !== index || panel.hidden) {
    spans()[shown]?.classList.remove("shown");
    shown = index;
    span.classList.add("shown");
    fill(span);
  }
  panel.hidden = false;
  placePanel(span, x, y);
}

function hide() {
  hideTip();
  panel.hidden = true;
  if (shown >= 0) for (const span of spans()) span.classList.remove("shown");
  shown = -1;
}

const isHeld = () => panel.contains(document.activeElement) || document.activeElement?.matches?.(".layer .token");

function focusToken(index) {
  const all = spans();
  const span = all[Math.max(0, Math.min(index, all.length - 1))];
  if (!span) return;
  for (const each of all) if (each.tabIndex === 0) each.tabIndex = -1;
  span.tabIndex = 0;
  span.focus({ preventScroll: true });
  span.scrollIntoView({ block: "nearest" });
}

function focusOption(list, index) {
  const items = [...list.children];
  items[Math.max(0, Math.min(index, items.length - 1))]?.focus({ preventScroll: false });
}

function byLine(index, direction) {
  const all = spans();
  const box = all[index].getBoundingClientRect();
  let best = index;
  let nearest = Infinity;
  for (let other = index + direction; all[other]; other += direction) {
    const { left, top } = all[other].getBoundingClientRect();
    const lines = Math.round(((top - box.top) * direction) / (box.height || 1));
    if (lines >= 1 && Math.abs(left - box.left) + 1e4 * lines < nearest) {
      nearest = Math.abs(left - box.left) + 1e4 * lines;
      best = other;
    }
    if (lines > 2) break;
  }
  return best;
}

function choose(item, byKeyboard) {
  if (item.getAttribute("aria-disabled") === "true" || shown < 0) return;
  const index = shown;
  branched = byKeyboard ? index : -1;
  hide();
  editor().branch(index, +item.dataset.choice);
}

// The token before the caret, or around it.
function tokenAtCaret() {
  const caret = editor().field().selectionStart;
  let found = -1;
  spans().forEach(({ token }, index) => {
    if (token.start < caret || (token.start === 0 && caret === 0)) found = index;
  });
  return found;
}

// The text has changed.
window.scratch.tokens = {
  changed() {
    if (editor().isWriting()) return hide();
    const all = spans();
    if (isShown() && !all[shown]?.classList.contains("shown")) hide();
    if (all.length > 0 && !all.some((span) => span.tabIndex === 0)) all[0].tabIndex = 0;
    const isLost = [null, document.body].includes(document.activeElement) || document.activeElement.disabled;
    if (branched >= 0 && isLost) focusToken(branched);
    branched = -1;
  },
};

// Pointers

let pressed = null; // where a press began: {x, y, index, wasFocused}
const isInField = (target) => target === editor()?.field();

document.addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch" || event.buttons) return;
  if (!isInField(event.target)) return hideTip();
  const { clientX: x, clientY: y } = event;
  clearTimeout(timer);
  const index = tokenAt(x, y);
  if (index < 0) return hideTip();
  timer = setTimeout(() => showTip(index, x, y), tip.hidden ? HOVER : 30);
}, { passive: true });
document.addEventListener("pointerdown", (event) => {
  const { clientX: x, clientY: y } = event;
  pressed = isInField(event.target)
    ? { x, y, index: tokenAt(x, y), wasFocused: document.activeElement === editor().field() } : { index: -1 };
}, true);
// A tap on a token opens the panel; the field gets the focus, and its keyboard, from a tap elsewhere.
document.addEventListener("touchend", (event) => {
  if (!pressed || pressed.index < 0 || pressed.wasFocused || event.changedTouches.length !== 1) return;
  const [{ clientX: x, clientY: y }] = event.changedTouches;
  if (Math.hypot(x - pressed.x, y - pressed.y) > DRAG) return;
  event.preventDefault();
  show(pressed.index, x, y);
}, { capture: true, passive: false });
document.addEventListener("click", (event) => {
  const item = event.target.closest?.("#token-panel [role=option]");
  if (isInField(event.target)) {
    const { selectionStart, selectionEnd } = editor().field();
    const isClick = pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) <= DRAG;
    const byTouch = event.pointerType === "touch"; // the field was in use: the tap moves its caret
    if (isClick && pressed.index >= 0 && selectionStart === selectionEnd && !byTouch) show(pressed.index, event.clientX, event.clientY);
    else hide();
  } else if (item) {
    choose(item, false);
  } else if (event.target.closest?.("#token-panel .close")) {
    const back = spans()[shown];
    hide();
    if (back && document.activeElement === back) back.blur();
  } else if (event.isTrusted && isShown() && !panel.contains(event.target)) {
    hide();
  }
});

// The keyboard: the tokens are one stop of the Tab key behind the field; Alt and the down arrow go there from the caret.

document.addEventListener("focusin", (event) => {
  if (event.target.matches(".layer .token")) show(spans().indexOf(event.target));
  else if (isShown() && !panel.contains(event.target) && !isInField(event.target)) hide();
});
document.addEventListener("focusout", (event) => {
  if (event.target.matches(".layer .token") && event.relatedTarget === null) setTimeout(() => isHeld() || hide(), 0);
});
document.addEventListener("keydown", (event) => {
  if (isInField(event.target) && event.altKey && event.key === "ArrowDown" && !event.ctrlKey && !event.metaKey) {
    const index = tokenAtCaret();
    if (index < 0) return;
    event.preventDefault();
    return focusToken(index);
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const span = event.target.closest?.(".layer .token");
  const item = event.target.closest?.("#token-panel [role=option]");
  const index = span ? spans().indexOf(span) : shown;
  const moves = { ArrowLeft: index - 1, ArrowRight: index + 1 };
  if (span) {
    Object.assign(moves, { Home: 0, End: spans().length - 1 });
    if (event.key === "ArrowUp" || event.key === "ArrowDown") moves[event.key] = byLine(index, event.key === "ArrowUp" ? -1 : 1);
    if (event.key in moves) focusToken(moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") {
      show(index);
      focusOption(panel.querySelector("ul"), 0);
    } else if (event.key === "Escape" && isShown()) hide();
    else if (event.key === "Escape") backToField(span);
    else return;
  } else if (item) {
    const items = [...item.parentElement.children];
    const at = items.indexOf(item);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
    if (event.key in steps) focusOption(item.parentElement, steps[event.key]);
    else if (event.key in moves) {
      focusToken(moves[event.key]);
      focusOption(panel.querySelector("ul"), 0);
    } else if (event.key === "Enter" || event.key === " ") choose(item, true);
    else if (event.key === "Escape") focusToken(shown);
    else return;
  } else if (event.key === "Escape" && isShown()) {
    hide();
  } else {
    return;
  }
  event.preventDefault();
});

function backToField(span) {
  const field = editor().field();
  const end = span.token.start + span.token.text.length;
  field.focus();
  field.setSelectionRange(end, end);
}

addEventListener("resize", () => {
  if (isShown() && spans()[shown]) placePanel(spans()[shown]);
});
addEventListener("scroll", () => {
  hideTip();
  if (isShown() && spans()[shown] && !isNarrow()) placePanel(spans()[shown]);
}, { passive: true, capture: true });
