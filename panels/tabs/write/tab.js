// The token view: a token that is pointed at, tapped or focused shows what could have come in its place, and an
// alternative that is chosen is sent to the page as the event `branch`.
const tokenView = () => document.getElementById("token-view");
const tokens = () => [...(tokenView()?.querySelectorAll(".token") ?? [])];
const { make, percent } = window.scratch;
let data = null; // of the tokens, as panels/tabs/write/view.py describes it; null while the model writes
let shown = -1; // the token that the popover is about
let branched = -1; // the token that a branch was taken at with the keyboard, focused again when the writing is over
let timer = 0;

const popover = make("div");
popover.id = "token-popover";
popover.hidden = true;
popover.setAttribute("role", "dialog");

const bits = (share) => (share > 0 ? -Math.log2(share) : Infinity);
const inBits = (share) => {
  const value = Math.abs(bits(share));
  return Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : 1)} bits` : "∞ bits";
};
const isShown = () => !popover.hidden;

function fill(index) {
  const [, label, before, after, kept, alternatives] = data.tokens[index];
  popover.replaceChildren();
  popover.setAttribute("aria-label", `What else could have come than ${data.labels[label]}`);
  const head = make("header", "", undefined, popover);
  make("b", "label", data.labels[label], head);
  make("span", "bits", inBits(before), head);
  const close = make("button", "close", "×", head);
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  make("p", "kept", `${kept.toLocaleString("en")} of ${data.vocabulary.toLocaleString("en")} tokens kept by the sampler`,
    popover);
  const heads = make("p", "heads", undefined, popover);
  heads.setAttribute("aria-hidden", "true");
  make("span", "", "model", heads);
  make("span", "", "sampler", heads);
  const list = make("ul", "", undefined, popover);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Alternatives, the likeliest first");
  const rows = alternatives.map(([name, p, q, obstacle, isWritten], choice) =>
    ({ name, p, q, obstacle: data.obstacles[obstacle], isWritten, choice }));
  if (!rows.some((row) => row.isWritten)) {
    rows.push({ name: label, p: before, q: after, obstacle: "below the ten", isWritten: 1, choice: -1 });
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
    const name = make("span", "name", data.labels[row.name], item);
    const notes = [row.isWritten && "written", row.obstacle].filter(Boolean).join(", ");
    if (notes) make("em", "", notes, name);
    make("span", "p", percent(row.p), item);
    make("span", "q", row.q === 0 ? "cut" : percent(row.q), item);
    item.setAttribute("aria-label", `${data.labels[row.name]}, model ${percent(row.p)}, sampler ` +
      `${row.q === 0 ? "cut" : percent(row.q)}${notes && ", " + notes}`);
  }
  make("p", "hint", "Choose one and the text continues from there.", popover);
}

const isNarrow = () => window.matchMedia("(max-width: 640px)").matches;

function place(token) {
  if (isNarrow()) {
    popover.removeAttribute("style"); // the style sheet puts it at the foot of the screen
    const hidden = token.getBoundingClientRect().bottom - popover.getBoundingClientRect().top + 12;
    if (hidden > 0) window.scrollBy(0, hidden);
    return;
  }
  const box = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = popover;
  const below = box.bottom + height + 12 < window.innerHeight || box.top < height + 12;
  popover.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8))}px`;
  popover.style.top = `${below ? Math.min(box.bottom + 6, Math.max(8, window.innerHeight - height - 8)) : box.top - height - 6}px`;
}

function show(index) {
  clearTimeout(timer);
  const token = tokens()[index];
  if (!data?.tokens[index] || !token || token.classList.contains("gone")) return;
  if (!popover.isConnected) document.querySelector(".gradio-container .contain").append(popover);
  if (shown !== index || popover.hidden) {
    tokens()[shown]?.classList.remove("shown");
    shown = index;
    token.classList.add("shown");
    fill(index);
  }
  popover.hidden = false;
  place(token);
}

function hide() {
  clearTimeout(timer);
  popover.hidden = true;
  for (const token of tokens()) token.classList.remove("shown");
  shown = -1;
}

const isHeld = () => popover.contains(document.activeElement) || document.activeElement?.matches?.("#token-view .token");
const hideSoon = () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (!isHeld()) hide();
    else if (document.activeElement.matches("#token-view .token")) show(tokens().indexOf(document.activeElement));
  }, 220);
};

function focusToken(index) {
  const all = tokens();
  const token = all[Math.max(0, Math.min(index, all.length - 1))];
  if (!token || token.classList.contains("gone")) return;
  for (const each of all) if (each.tabIndex === 0) each.tabIndex = -1;
  token.tabIndex = 0;
  token.focus({ preventScroll: true });
  token.scrollIntoView({ block: "nearest" });
}

function focusOption(list, index) {
  const items = [...list.children];
  items[Math.max(0, Math.min(index, items.length - 1))]?.focus({ preventScroll: false });
}

function byLine(index, direction) {
  const all = tokens();
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
  if (item.getAttribute("aria-disabled") === "true") return;
  const token = tokens()[shown];
  if (!token) return;
  branched = byKeyboard ? shown : -1;
  const detail = { token: shown, choice: +item.dataset.choice };
  hide();
  token.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail }));
}

window.scratch.tokens = (value) => {
  hide();
  data = value ? JSON.parse(value) : null;
  typed = null;
  if (!data) return;
  setTimeout(() => {
    const all = tokens();
    tokenView()?.setAttribute("role", "group");
    tokenView()?.setAttribute("aria-label", "Token canvas");
    if (!all.some((token) => token.tabIndex === 0) && all.length) all[0].tabIndex = 0;
    const lost = [null, document.body].includes(document.activeElement) || document.activeElement.disabled;
    if (branched >= 0 && lost) focusToken(branched);
    branched = -1;
  }, 60);
};

document.addEventListener("mouseover", (event) => {
  const token = event.target.closest?.("#token-view .token");
  if (token && data) {
    clearTimeout(timer);
    if (!popover.contains(document.activeElement)) timer = setTimeout(() => show(tokens().indexOf(token)), isShown() ? 60 : 130);
  } else if (popover.contains(event.target)) {
    clearTimeout(timer);
  } else if (isShown()) {
    hideSoon();
  }
});
let pressed = false; // a press focuses at once, but what it means is known at its click
document.addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel"]) {
  document.addEventListener(end, () => setTimeout(() => { pressed = false; }, 0), true);
}
document.addEventListener("focusin", (event) => {
  if (pressed) return;
  if (event.target.matches("#token-view .token")) show(tokens().indexOf(event.target));
  else if (isShown() && !popover.contains(event.target)) hideSoon();
});
document.addEventListener("click", (event) => {
  const token = event.target.closest?.("#token-view .token");
  const item = event.target.closest?.("#token-popover [role=option]");
  const passage = event.target.closest?.("#memorization button");
  if (token) {
    focusToken(tokens().indexOf(token));
    show(tokens().indexOf(token));
  } else if (item) {
    choose(item, false);
  } else if (event.target.closest?.("#token-popover .close")) {
    const back = tokens()[shown];
    hide();
    if (back && document.activeElement !== back && isHeld()) back.blur();
  } else if (passage) {
    const on = passage.getAttribute("aria-pressed") !== "true";
    passage.setAttribute("aria-pressed", String(on));
    const [start, length] = [+passage.dataset.start, +passage.dataset.length];
    tokens().forEach((each, index) => each.classList.toggle("passage", on && index >= start && index < start + length));
    if (on) tokens()[start]?.scrollIntoView({ block: "nearest" });
  } else if (event.isTrusted && isShown() && !popover.contains(event.target)) {
    hide();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const token = event.target.closest?.("#token-view .token");
  const item = event.target.closest?.("#token-popover [role=option]");
  const index = token ? tokens().indexOf(token) : shown;
  const moves = { ArrowLeft: index - 1, ArrowRight: index + 1 };
  if (token && data) {
    Object.assign(moves, { Home: 0, End: tokens().length - 1 });
    if (event.key === "ArrowUp" || event.key === "ArrowDown") moves[event.key] = byLine(index, event.key === "ArrowUp" ? -1 : 1);
    if (event.key in moves) focusToken(moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") {
      show(index);
      focusOption(popover.querySelector("ul"), 0);
    } else if (event.key === "Escape" && isShown()) hide();
    else return;
  } else if (item) {
    const items = [...item.parentElement.children];
    const at = items.indexOf(item);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
    if (event.key in steps) focusOption(item.parentElement, steps[event.key]);
    else if (event.key in moves) {
      focusToken(moves[event.key]);
      focusOption(popover.querySelector("ul"), 0);
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
window.addEventListener("resize", () => {
  if (isShown() && tokens()[shown]) place(tokens()[shown]);
});
window.addEventListener("scroll", () => {
  if (isShown() && tokens()[shown] && !isNarrow()) place(tokens()[shown]);
}, { passive: true, capture: true });

// Tokens stay in the token view as far as the text in front of them is still the one they were written in.
let typed = null;
document.addEventListener("beforeinput", (event) => {
  if (event.target.matches?.("#document textarea") && data) typed ??= event.target.value;
});
document.addEventListener("input", (event) => {
  if (!event.target.matches?.("#document textarea") || !data || typed === null) return;
  const now = event.target.value;
  let same = 0;
  while (same < now.length && same < typed.length && now[same] === typed[same]) same += 1;
  let end = data.start;
  tokens().forEach((token, index) => {
    end += data.tokens[index]?.[0].length ?? 0;
    token.classList.toggle("gone", end > same);
  });
});

// The token view follows the writing, unless its reader has scrolled up.
let follows = true;
document.addEventListener("wheel", (event) => {
  const box = event.target.closest?.("#token-view");
  if (box) follows = box.scrollTop + box.clientHeight > box.scrollHeight - 40;
}, { passive: true });
setInterval(() => {
  const box = tokenView();
  const writing = document.getElementById("stop") && !document.getElementById("stop").disabled;
  if (!writing) follows = true;
  else if (box && follows) box.scrollTop = box.scrollHeight;
}, 100);
