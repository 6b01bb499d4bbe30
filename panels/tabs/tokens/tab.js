// The Tokens tab: draws the tokens and their ids, marks those that belong together, and replays the merges. All that it
// needs is in #tokens-data; nothing here asks the server.
const COLOURS = 5;
const PACE_MS = 450;
const number = (value) => value.toLocaleString("en");
const counted = (count, unit) => `${number(count)} ${unit}${count === 1 ? "" : "s"}`;
const { make } = window.scratch;

let drawnData = null;
let drawnView = null;
let columns = [];
let marked = [];
let replay = null;
let timer = null;

// A label with its signs for white space set apart, and a line break behind a token that holds one.
const writeLabel = (node, label) => {
  for (const part of label.split(/([␣↵⇥]+)/)) {
    if (/^[␣↵⇥]/.test(part)) make("i", "", part, node);
    else if (part) node.append(part);
  }
};
const isBreak = (label) => label.includes("↵");

// One list of a column: the labels of its tokens, or their ids.
const makeList = (data, place, className, name, write) => {
  const list = make("div", `token-list roving ${className}`);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", `${name} of ${data.name}`);
  list.dataset.column = place;
  const nodes = data.tokens.map((token, index) => {
    const node = make("span", `token hue-${index % COLOURS}`, undefined, list);
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", "false");
    node.tabIndex = index ? -1 : 0;
    node.dataset.index = index;
    write(node, token);
    return node;
  });
  return [list, nodes];
};

const drawColumn = (data, place) => {
  const box = make("section", "tokenizer");
  box.setAttribute("aria-label", `Tokens of ${data.name}`);
  make("h2", "", data.name, box);
  const counts = make("p", "counts", undefined, box);
  const facts = [counted(data.count, "token"), counted(data.characters, "character"), counted(data.bytes, "byte")];
  if (data.count) facts.push(`${(data.bytes / data.count).toFixed(2)} bytes per token`);
  for (const fact of facts) {
    const [value, ...unit] = fact.split(" ");
    const node = make("span", "", undefined, counts);
    make("b", "", value, node);
    node.append(` ${unit.join(" ")}`);
  }
  if (data.count > data.tokens.length) {
    make("p", "quiet", `The first ${number(data.tokens.length)} of ${number(data.count)} tokens are shown.`, box);
  }
  const hint = data.count ? "Point at a token, or go through them with the arrow keys." : "No text, no tokens.";
  const detail = make("p", "token-detail quiet", hint, box);
  detail.setAttribute("role", "status");
  const byId = new Map();
  data.tokens.forEach(([id], index) => byId.set(id, [...(byId.get(id) ?? []), index]));
  const [text, texts] = makeList(data, place, "token-text", "Tokens", (node, token) => writeLabel(node, token[1] || "∅"));
  const [ids, numbers] = makeList(data, place, "token-ids", "Ids of the tokens", (node, token) => node.append(token[0]));
  texts.forEach((node, index) => { if (isBreak(data.tokens[index][1])) node.after(make("br")); });
  if (data.count) box.append(text, make("h3", "", "Token ids"), ids);
  columns.push({ data, detail, byId, lists: [texts, numbers] });
  return box;
};

const addMark = (node, className) => {
  node.classList.add(className);
  if (className === "here") node.setAttribute("aria-selected", "true");
  marked.push(node);
};
const clearMarks = () => {
  for (const node of marked.splice(0)) {
    node.classList.remove("here", "same");
    node.setAttribute("aria-selected", "false");
  }
};
const mark = (place, index) => {
  const column = columns[place];
  const token = column?.data.tokens[index];
  if (!token) return;
  clearMarks();
  const [id, label, start, end, bytes] = token;
  const same = column.byId.get(id);
  for (const nodes of column.lists) {
    for (const other of same) addMark(nodes[other], other === index ? "here" : "same");
  }
  columns.forEach((other, otherPlace) => {
    if (otherPlace === place) return;
    other.data.tokens.forEach(([, , from, to], otherIndex) => {
      if (from < end && to > start) for (const nodes of other.lists) addMark(nodes[otherIndex], "same");
    });
  });
  const times = same.length > 1 ? `, ${number(same.length)} times here` : "";
  const where = end - start > 1 ? `characters ${number(start + 1)} to ${number(end)}` : `character ${number(start + 1)}`;
  column.detail.replaceChildren(
    `Token ${number(index + 1)}: `, make("code", "", label || "∅"),
    ` is id ${id}, ${counted(bytes, "byte")}, ${where}${times}.`,
  );
};

// The replay: states[k] holds the tokens of each word after k merges.
const join = (word, [, first, second, whole]) => {
  const joined = [];
  for (let at = 0; at < word.length; at++) {
    if (word[at] === first && word[at + 1] === second) {
      joined.push(whole);
      at++;
    } else {
      joined.push(word[at]);
    }
  }
  return joined;
};
const stateAfter = (step) => {
  while (replay.states.length <= step) {
    const merge = replay.merges[replay.states.length - 1];
    replay.states.push(replay.states.at(-1).map((word) => join(word, merge)));
  }
  return replay.states[step];
};
const stop = () => {
  clearInterval(timer);
  timer = null;
  const button = drawnView?.querySelector('[data-replay="play"]');
  if (!button) return;
  button.textContent = "Play";
  button.setAttribute("aria-pressed", "false");
};
const drawStep = () => {
  const slider = drawnView.querySelector(".replay input");
  const step = Number(slider.value);
  const merge = step ? replay.merges[step - 1] : null;
  const line = drawnView.querySelector(".replay-step");
  const state = stateAfter(step);
  const left = number(state.reduce((sum, word) => sum + word.length, 0));
  const position = `${step} of ${replay.merges.length}`;
  slider.setAttribute("aria-valuetext", merge
    ? `${position}: ${replay.labels[merge[1]]} and ${replay.labels[merge[2]]} become ${replay.labels[merge[3]]}`
    : `${position}: before the first merge`);
  if (merge) {
    const [rank, first, second, whole, count, places] = merge;
    const pair = make("span", "pair");
    [[first, " + "], [second, " → "], [whole, ""]].forEach(([id, sign]) => {
      writeLabel(make("code", "", undefined, pair), replay.labels[id]);
      pair.append(sign);
    });
    const known = count === null ? "its count in the training text was not recorded"
      : `${counted(count, "time")} in the training text`;
    line.replaceChildren(
      make("b", "", `Merge ${number(rank)} of ${number(replay.learnt)}`), pair, make("span", "", known),
      make("span", "", `${counted(places, "time")} in this text`), make("span", "", `${left} tokens now`),
    );
  } else {
    line.replaceChildren(make("b", "", "Before the first merge"), make("span", "", `${left} tokens`));
  }
  const words = drawnView.querySelector(".replay-words");
  words.replaceChildren(...state.flatMap((word) => {
    const box = make("span", "word");
    word.forEach((id, index) => {
      const here = merge && id === merge[3] ? " here" : "";
      writeLabel(make("span", `token hue-${index % COLOURS}${here}`, undefined, box), replay.labels[id]);
    });
    return word.some((id) => isBreak(replay.labels[id])) ? [box, make("br")] : [box];
  }));
  drawnView.querySelector('[data-replay="back"]').disabled = step === 0;
  drawnView.querySelector('[data-replay="on"]').disabled = step === replay.merges.length;
};
const drawReplay = (data) => {
  stop();
  const slider = drawnView.querySelector(".replay input");
  replay = { ...data, states: [data.words] };
  slider.max = data.merges.length;
  if (Number(slider.value) > data.merges.length) slider.value = data.merges.length;
  const all = drawnView.querySelector(".replay-all");
  all.hidden = Boolean(data.message) || !data.merges.length;
  drawnView.querySelector(".replay-note").textContent = data.message ?? (!data.merges.length
    ? "No merge applies to this text."
    : "Byte-pair encoding starts from single bytes (or characters) and applies its merges in the order in which it learned"
      + " them"
      + (data.cut ? `; only the first ${number(data.cut)} characters are replayed.` : "."));
  if (!all.hidden) drawStep();
};
const moveBy = (difference) => {
  const slider = drawnView.querySelector(".replay input");
  slider.value = Number(slider.value) + difference;
  drawStep();
  return Number(slider.value) < replay.merges.length;
};

const draw = () => {
  const data = document.querySelector("#tokens-data [data-tokens]");
  const view = document.getElementById("tokens-view");
  const place = view?.querySelector(".tokenizers");
  if (!data || !place || (data.dataset.tokens === drawnData && place.dataset.drawn)) return;
  drawnData = data.dataset.tokens;
  drawnView = view;
  columns = [];
  marked = [];
  const parsed = JSON.parse(drawnData);
  place.replaceChildren(...parsed.columns.map(drawColumn));
  place.classList.toggle("two", parsed.columns.length > 1);
  place.dataset.drawn = "yes";
  drawReplay(parsed.replay);
};
// Gradio changes the element's attribute in place, and builds a tab's elements again when it is opened.
new MutationObserver(draw).observe(document.body, { childList: true, subtree: true, attributeFilter: ["data-tokens"] });
draw();

for (const type of ["pointerover", "focusin"]) {
  document.addEventListener(type, (event) => {
    const node = event.target.closest?.("#tokens-view .token-list .token");
    if (node) mark(Number(node.parentElement.dataset.column), Number(node.dataset.index));
  });
}
document.addEventListener("input", (event) => {
  if (!event.target.closest?.("#tokens-view .replay input")) return;
  stop();
  drawStep();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("#tokens-view [data-replay]");
  if (!button) return;
  if (button.dataset.replay !== "play" || timer) {
    stop();
    if (button.dataset.replay !== "play") moveBy(button.dataset.replay === "on" ? 1 : -1);
    return;
  }
  const slider = drawnView.querySelector(".replay input");
  if (Number(slider.value) === replay.merges.length) slider.value = 0;
  button.textContent = "Pause";
  button.setAttribute("aria-pressed", "true");
  drawStep();
  timer = setInterval(() => {
    if (!drawnView.isConnected || !moveBy(1)) stop();
  }, PACE_MS);
});
