// The text that is written: the field, the shades behind it, its history, and the requests to the model. What the page
// shows is stored before it is shown.
const { EMPTY, History, branch, endOf, grow, lastRun, toContinue } = window.scratch.history;
const { enable, make } = window.scratch;
const NEAR = 40; // pixels from the end of the box that count as its end for who scrolls down while it grows
const OTHER_SCRIPT = /^[^\x00-\x7f\p{Script=Latin}]$/u; // what a key writes in a layout that has no Latin letters

let history = new History();
let loaded = false; // the text of this tab is there
let field = null; // the text area, its layer of tokens, its scrolling box
let layer = null;
let paper = null;
let drawn = []; // what the layer shows: {token, text, node}
let follows = true; // the box follows the writing, unless its reader has scrolled up
let seen = 0; // where the box was scrolled to after the last draft
let noteTimer = 0;
let runStart = 0; // the first token that the note is about

const find = (id) => document.getElementById(id);
const say = (state, message) => window.scratch.say("#status", state, message);
const requests = new window.scratch.Requests({
  part: "stream", stop: "stop", noun: "text", take: took, ended, hasUnsaved: () => window.scratch.texts.hasUnsaved,
});
const isWriting = () => requests.current !== null;

// The layer behind the field has the same text in the same places; what the model wrote stands there in spans.

function pieces({ text, tokens }) {
  const found = [];
  let end = 0;
  for (const token of tokens) {
    if (token.start > end) found.push({ token: null, text: text.slice(end, token.start) });
    found.push({ token, text: token.text });
    end = endOf(token);
  }
  if (end < text.length) found.push({ token: null, text: text.slice(end) });
  return found;
}

function draw() {
  const wanted = pieces(history.state);
  const isSame = (one, other) => one && one.token === other.token && one.text === other.text;
  let same = 0;
  while (same < wanted.length && isSame(drawn[same], wanted[same])) same++;
  for (const { node } of drawn.splice(same)) node.remove();
  const added = document.createDocumentFragment();
  for (const { token, text } of wanted.slice(same)) {
    const node = token ? spanOf(token) : document.createTextNode(text);
    added.append(node);
    drawn.push({ token, text, node });
  }
  // The last line of a field that ends with a line break is empty, and would be missing here.
  layer.insertBefore(added, layer.querySelector("br"));
  layer.closest(".writing").classList.toggle("has-tokens", history.state.tokens.length > 0);
}

function spanOf(token) {
  const step = window.scratch.surprise.step(token.before);
  const line = token.text.includes("\n") ? " line" : "";
  const span = make("span", `token surprise s${step}${token.isChosen ? " chosen" : ""}${line}`, token.text);
  span.setAttribute("role", "button");
  span.setAttribute("aria-label", token.piece.label);
  span.tabIndex = -1;
  span.token = token;
  return span;
}

// Show the present state; `caret` is where the caret goes.
function show(caret) {
  if (!field) return;
  const { text } = history.state;
  if (field.value !== text) {
    const from = field.selectionStart;
    field.value = text;
    field.setSelectionRange(caret ?? from, caret ?? from);
  } else if (caret !== undefined) {
    field.setSelectionRange(caret, caret);
  }
  draw();
  buttons();
  window.scratch.tokens?.changed();
}

// A step that no key made: stored, then shown.
function step(state, caret, options) {
  history.add(state);
  window.scratch.texts.save(history, options);
  show(caret);
  forgetNote();
}

function replace(text, by) {
  if (isWriting() || !loaded) return;
  if (text !== history.state.text) step({ ...EMPTY, text, by }, text.length);
}

function append(text) {
  if (isWriting() || !loaded) return;
  const longer = history.state.text + text.replaceAll("\r", "\n"); // as in `grow`
  step({ ...history.state, text: longer, by: "token" }, longer.length);
  say("idle", "One token of your choice.");
}

function move(direction) {
  if (isWriting() || !loaded || !(direction === "undo" ? history.canUndo : history.canRedo)) return;
  const before = history.state.text;
  const { text } = history[direction]();
  window.scratch.texts.save(history);
  const [at, , inserted] = window.scratch.history.changeOf(before, text);
  show(at + inserted.length);
  say("idle", direction === "undo" ? "Undone." : "Done again.");
  note();
}

// Requests

// Have the model continue `base`; `rejected` is the text that it replaces.
function ask(base, rejected = null) {
  const trouble = window.scratch.settings.trouble();
  if (trouble && loaded && !isWriting()) return say("trouble", trouble);
  if (!loaded || !requests.begin({ base, rejected, pieces: [], started: false })) return;
  [follows, seen] = [true, paper?.scrollTop ?? 0];
  window.scratch.texts.save(history, { now: true }); // what a retry or a branch replaces can be undone, whatever happens
  say("busy", "Writing …");
  buttons();
  requests.send({ text: base.text, rejected });
}

function generate() {
  ask(toContinue(history.state));
}

function retry() {
  const { text, origin } = history.state;
  if (origin !== null) ask(toContinue(history.state, text.slice(0, origin)), text);
}

function branchAt(index, choice) {
  ask(branch(history.state, index, choice));
}

function took(drafts, request) {
  for (const draft of drafts) take(draft, request);
  window.scratch.texts.save(history);
  lookWhereTheReaderIs();
  show(history.state.text.length);
  if (follows) paper.scrollTop = paper.scrollHeight;
  seen = paper.scrollTop;
  window.scratch.bars?.live(history.state, request.vocabulary);
}

// Whether the box follows, before the text gets longer. It is scrolled in many ways (wheel, finger, scrollbar, keys),
// and the events of some come late: so where it is counts.
function lookWhereTheReaderIs() {
  const [top, end] = [paper.scrollTop, paper.scrollHeight - paper.clientHeight];
  if (paper.clientHeight === 0) seen = 0; // another tab is open: nobody scrolls, and the place may be lost
  else if (top > end - 2) follows = true; // also where the window became wider, and the text shorter
  else if (top < seen - 1) follows = false;
  else if (top > seen + 1 && top > end - NEAR) follows = true;
}

function take(draft, request) {
  request.model = draft.model ?? request.model;
  request.vocabulary = draft.vocabulary ?? request.vocabulary;
  for (const [id, label, text, obstacle] of draft.pieces) {
    request.pieces.push({ id, label, text, obstacle, model: request.model });
  }
  const state = grow(request.started ? history.state : request.base, draft, request.pieces);
  if (!request.started && state.text === history.state.text && draft.tokens.length === 0) return; // nothing yet
  if (request.started) history.replace(state);
  else history.add(state);
  request.started = true;
}

function ended(request, reason, state, message) {
  window.scratch.texts.save(history, { now: true });
  if (message) say(state, message);
  show();
  window.scratch.bars?.live(null);
  note();
}

// The note on memorised passages

function forgetNote() {
  clearTimeout(noteTimer);
  if (find("memorization")) find("memorization").dataset.outdated = "yes";
  for (const { node } of drawn) node.classList?.remove("passage");
}

function note() {
  forgetNote();
  const { tokens } = history.state;
  const first = lastRun(tokens);
  const run = tokens.slice(first);
  if (run.length === 0 || run[0].piece.model !== window.scratch.model()) return;
  noteTimer = setTimeout(() => {
    runStart = first;
    window.scratchParts?.note?.trigger("select", { tokens: run.map((token) => [token.piece.id, token.text]) });
  }, 300);
}

function noted() {
  delete find("memorization")?.dataset.outdated;
}

function showPassage(button) {
  const isOn = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(isOn));
  const [start, length] = [runStart + +button.dataset.start, +button.dataset.length];
  const spans = window.scratch.editor.spans();
  spans.forEach((each, index) => each.classList.toggle("passage", isOn && index >= start && index < start + length));
  if (isOn) spans[start]?.scrollIntoView({ block: "nearest" });
}

// The page

function buttons() {
  const isFree = loaded && !isWriting();
  enable("generate", isFree);
  enable("stop", isWriting());
  enable("retry", isFree && history.state.origin !== null);
  enable("undo", isFree && history.canUndo);
  enable("redo", isFree && history.canRedo);
  enable("clear", isFree);
  const label = isFree && history.state.origin !== null ? "Continue" : "Generate";
  const text = [...(find("generate")?.childNodes ?? [])].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (text && text.data.trim() !== label) text.data = label;
  if (field) field.readOnly = !isFree;
}

function attach() {
  const found = document.querySelector("#document textarea");
  if (!found || found === field) return;
  field = found;
  layer = found.parentElement.querySelector(".layer");
  paper = found.parentElement;
  seen = 0;
  layer.replaceChildren(make("br"));
  drawn = [];
  field.addEventListener("input", typed);
  field.addEventListener("beforeinput", (event) => {
    const direction = { historyUndo: "undo", historyRedo: "redo" }[event.inputType];
    if (!direction) return;
    event.preventDefault();
    move(direction);
  });
  if (!loaded) return;
  show();
  window.scratch.texts.redraw();
}

function typed(event) {
  if (isWriting() || !loaded) return;
  const kind = event.inputType?.startsWith("delete") ? "delete" : event.inputType === "insertText" ? "insert" : event.inputType;
  history.type(field.value, kind, performance.now());
  window.scratch.texts.save(history);
  draw();
  buttons();
  forgetNote();
  window.scratch.tokens?.changed();
}

function load(other) {
  history = other;
  loaded = true;
  drawn.splice(0).forEach(({ node }) => node.remove());
  show(history.state.text.length);
  if (!matchMedia("(pointer: coarse)").matches && [null, document.body].includes(document.activeElement)) field?.focus();
  note();
}

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  // A layout with Latin letters says where its own Z is; in one without, the place of the key counts.
  const key = OTHER_SCRIPT.test(event.key) ? event.code.slice("Key".length).toLowerCase() : event.key.toLowerCase();
  const direction = key === "z" ? (event.shiftKey ? "redo" : "undo") : key === "y" && !event.shiftKey ? "redo" : null;
  const place = event.target.closest?.("input, textarea, [contenteditable]");
  const isHere = place === field || (place === null && field?.checkVisibility());
  if (!direction || !isHere) return;
  event.preventDefault();
  move(direction);
});
document.addEventListener("click", (event) => {
  const id = event.target.closest?.("#actions button")?.id;
  const beginning = event.target.closest?.("#beginnings [data-beginning]");
  const passage = event.target.closest?.("#memorization button");
  if (id === "generate") generate();
  else if (id === "retry") retry();
  else if (id === "undo" || id === "redo") move(id);
  else if (id === "clear" && loaded && !isWriting()) {
    replace("", "clear");
    say("idle", "A new page.");
  } else if (beginning && loaded && !isWriting()) {
    replace(beginning.dataset.beginning, "beginning");
    say("idle", "A beginning: Generate continues from here.");
  } else if (passage) {
    showPassage(passage);
  }
});
setInterval(() => { // Gradio may lay out a tab again
  attach();
  buttons();
}, 250);

const editor = {
  text: () => history.state.text,
  state: () => history.state,
  history: () => history,
  spans: () => drawn.filter(({ token }) => token).map(({ node }) => node),
  field: () => field,
  isWriting,
  append,
  branch: branchAt,
  load,
  over: () => requests.over(),
  receive: (lines) => requests.receive(lines),
  replace,
  noted,
};
window.scratch.editor = editor;
const waiting = setInterval(() => {
  attach();
  if (!field || !window.scratch.texts || !window.scratch.settings?.isReady() || !window.scratchParts?.stream) return;
  clearInterval(waiting);
  window.scratch.texts.start();
}, 50);
