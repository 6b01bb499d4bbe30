// A document: a text and its history, apart from the page. Typing and the model's continuations are steps of one history.
//
// state: {text, tokens, origin, by}, never changed. What the model wrote lies in `tokens`; what is between them was typed.
//   `origin`: how long the text was that the last request continued; null where nothing in it is the model's.
//   `by`: what made it: "new", "typing", "model", or another word.
// token: {start, text, piece, before, after, kept, isInside, isChosen, alternatives: [{piece, before, after}]}, never
//   changed. `before` and `after` are its probabilities before and after the sampler. It stays as long as the text up to
//   its end is unchanged, so that `start` stays right.
// piece: {id, label, text, obstacle, model}: an entry of a model's vocabulary, as panels/tabs/write/token_rows.py has it.
const VERSION = 1;
const STEPS = 100; // states that are kept
const STORED_TOKENS = 2000; // tokens that are stored with them, those of the states around the present one first
const CONTINUED_TOKENS = 1000; // tokens that stay when a text is continued
const PAUSE = 1000; // milliseconds without typing after which a new step begins
const EMPTY = Object.freeze({ text: "", tokens: Object.freeze([]), origin: null, by: "new" });

const endOf = (token) => token.start + token.text.length;

function commonLength(one, other) {
  const most = Math.min(one.length, other.length);
  let length = 0;
  while (length < most && one.charCodeAt(length) === other.charCodeAt(length)) length++;
  return length;
}

// What turns `one` into `other`: at, how many characters go, what comes.
function changeOf(one, other) {
  const at = commonLength(one, other);
  let tail = 0;
  while (tail < Math.min(one.length, other.length) - at &&
    one.charCodeAt(one.length - 1 - tail) === other.charCodeAt(other.length - 1 - tail)) tail++;
  return [at, one.length - at - tail, other.slice(at, other.length - tail)];
}

// The first `count` tokens, without those that would end inside a character.
function firstTokens(tokens, count) {
  while (count > 0 && count < tokens.length && tokens[count].isInside) count--;
  return count === tokens.length ? tokens : tokens.slice(0, count);
}

// The state with another text, and the tokens that it still holds.
function cut(state, text, by) {
  const same = commonLength(state.text, text);
  let count = state.tokens.length;
  while (count > 0 && endOf(state.tokens[count - 1]) > same) count--;
  const origin = state.origin !== null && same >= state.origin ? state.origin : null;
  return { text, tokens: firstTokens(state.tokens, count), origin, by };
}

class History {
  constructor(states = [EMPTY], at = states.length - 1) {
    this.states = states;
    this.at = at;
    this.typed = null; // {kind, from, edge, time} of the last key; `from`: where its step began
  }

  get state() {
    return this.states[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.states.length - 1;
  }

  // A new step; what was undone goes.
  add(state) {
    this.states = [...this.states.slice(0, this.at + 1), state].slice(-STEPS);
    this.at = this.states.length - 1;
    this.typed = null;
  }

  // The present step again, as the model's text grows.
  replace(state) {
    this.states[this.at] = state;
  }

  undo() {
    this.at -= this.canUndo ? 1 : 0;
    this.typed = null;
    return this.state;
  }

  redo() {
    this.at += this.canRedo ? 1 : 0;
    this.typed = null;
    return this.state;
  }

  // The text as the user changed it. Keys of one kind that follow each other in time and place are one step; one that takes
  // away what it has not just written, as a key over a selection does, begins another. Tokens come
  // back where their text does: a letter typed and deleted again costs none.
  type(text, kind, now) {
    const [at, removed, inserted] = changeOf(this.state.text, text);
    const { typed } = this;
    const isOwn = removed === 0 || kind === "delete" || (kind === "insertCompositionText" && at >= typed?.from);
    const follows = typed !== null && isOwn && kind === typed.kind && now - typed.time < PAUSE && this.at > 0 &&
      this.at === this.states.length - 1 && (at === typed.edge || at + removed === typed.edge) && !inserted.includes("\n");
    const recent = this.states.slice(Math.max(0, this.at - 3), this.at + 1).reverse();
    const found = recent.map((state) => cut(state, text, "typing"));
    const state = found.reduce((best, each) => (each.tokens.length > best.tokens.length ? each : best));
    if (follows) this.replace(state);
    else this.add(state);
    this.typed = { kind, from: follows ? typed.from : at, edge: at + inserted.length, time: now };
    return state;
  }
}

// The state that a request continues.
function toContinue(state, text = state.text, by = "model") {
  const base = cut(state, text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd"), by);
  let first = Math.max(0, base.tokens.length - CONTINUED_TOKENS);
  while (first > 0 && first < base.tokens.length && base.tokens[first].isInside) first++;
  return { ...base, tokens: base.tokens.slice(first), origin: base.text.length };
}

// The state that a request continues where the user chose an alternative: the text up to the token at `index`, then it.
function branch(state, index, choice) {
  const token = state.tokens[index];
  const { piece, before, after } = token.alternatives[choice];
  const chosen = { ...token, text: piece.text.replaceAll("\r", "\n"), piece, before, after, isInside: false, isChosen: true };
  const base = toContinue(state, state.text.slice(0, token.start));
  const text = base.text + piece.text.replaceAll("\r", "\n");
  return { ...base, text, tokens: [...base.tokens, chosen], origin: text.length };
}

// The state after the next draft of the model, as panels/tabs/write/request.py sends it; `pieces` are those it sent so far.
// A carriage return becomes a line feed: a text area knows no other end of a line, and tokens keep their length.
function grow(state, draft, pieces) {
  const tokens = [...state.tokens];
  let start = tokens.length > 0 && endOf(tokens.at(-1)) >= state.origin ? endOf(tokens.at(-1)) : state.origin;
  for (const [raw, piece, before, after, kept, isInside, flat] of draft.tokens) {
    const text = raw.replaceAll("\r", "\n");
    const alternatives = [];
    for (let at = 0; at < flat.length; at += 3) {
      alternatives.push({ piece: pieces[flat[at]], before: flat[at + 1], after: flat[at + 2] });
    }
    const token = { start, text, piece: pieces[piece], before, after, kept, isInside: isInside === 1, isChosen: false, alternatives };
    tokens.push(token);
    start += text.length;
  }
  if (draft.rest && tokens.length > 0) { // what the last one adds at the end
    const last = tokens.pop();
    tokens.push({ ...last, text: last.text + draft.rest });
  }
  return { ...state, text: state.text + draft.text.replaceAll("\r", "\n"), tokens };
}

// A table of values, each once; `of` gives a value's place in it.
class Table {
  constructor() {
    this.places = new Map();
  }

  get values() {
    return [...this.places.keys()];
  }

  of(value) {
    if (!this.places.has(value)) this.places.set(value, this.places.size);
    return this.places.get(value);
  }
}

// The states whose tokens are stored: from the present one outwards, as long as there is room.
function withTokens({ states, at }) {
  const chosen = new Set();
  const tokens = new Set();
  const order = states.map((_, index) => index).sort((one, other) => Math.abs(one - at) - Math.abs(other - at) || one - other);
  for (const index of order) {
    const more = states[index].tokens.filter((token) => !tokens.has(token));
    if (index !== at && tokens.size + more.length > STORED_TOKENS) break;
    for (const token of more) tokens.add(token);
    chosen.add(index);
  }
  return chosen;
}

// A history as JSON can hold it. Texts are stored as changes, tokens and pieces once.
function pack(history) {
  const [models, pieces, tokens] = [new Table(), new Table(), new Table()];
  const chosen = withTokens(history);
  const states = history.states.map((state, index) => {
    const ranges = []; // of numbers of tokens that follow each other: first, end
    for (const token of chosen.has(index) ? state.tokens : []) {
      const place = tokens.of(token);
      if (ranges.at(-1) === place) ranges[ranges.length - 1]++;
      else ranges.push(place, place + 1);
    }
    const change = index === 0 ? [0, 0, state.text] : changeOf(history.states[index - 1].text, state.text);
    return { change, tokens: ranges, origin: state.origin, by: state.by };
  });
  const rows = tokens.values.map((token) => [
    token.start, token.text, pieces.of(token.piece), token.before, token.after, token.kept,
    (token.isInside ? 1 : 0) + (token.isChosen ? 2 : 0),
    token.alternatives.flatMap(({ piece, before, after }) => [pieces.of(piece), before, after]),
  ]);
  const entries = pieces.values.map(({ id, label, text, obstacle, model }) => [id, label, text, obstacle, models.of(model)]);
  return { version: VERSION, at: history.at, states, tokens: rows, pieces: entries, models: models.values };
}

function need(condition, what) {
  if (!condition) throw new Error(`expected ${what}`);
}
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isShare = (value) => typeof value === "number" && value >= 0 && value <= 1;
const isText = (value) => typeof value === "string";

// The history that was packed; an Error says what is wrong with one that was not.
function unpack(packed) {
  need(packed && typeof packed === "object", "an object as history");
  need(packed.version === VERSION, `a history of version ${VERSION}, got ${JSON.stringify(packed.version) ?? "none"}`);
  for (const name of ["states", "tokens", "pieces", "models"]) need(Array.isArray(packed[name]), `a list of ${name}`);
  need(packed.states.length > 0 && isCount(packed.at) && packed.at < packed.states.length, "a present state");
  need(packed.models.every(isText), "names of models");
  const pieces = packed.pieces.map((entry) => {
    need(Array.isArray(entry) && Number.isInteger(entry[0]) && entry.slice(1, 4).every(isText) && isCount(entry[4]) &&
      entry[4] < packed.models.length, "pieces with id, label, text, obstacle and model");
    const [id, label, text, obstacle, model] = entry;
    return { id, label, text, obstacle, model: packed.models[model] };
  });
  const isPiece = (number) => isCount(number) && number < pieces.length;
  const tokens = packed.tokens.map((row) => {
    need(Array.isArray(row) && row.length === 8, "tokens of eight values");
    const [start, text, piece, before, after, kept, flags, flat] = row;
    need(isCount(start) && isText(text) && isPiece(piece) && isShare(before) && isShare(after) &&
      isCount(kept) && isCount(flags) && Array.isArray(flat) && flat.length % 3 === 0, "tokens with probabilities");
    const alternatives = [];
    for (let at = 0; at < flat.length; at += 3) {
      need(isPiece(flat[at]) && isShare(flat[at + 1]) && isShare(flat[at + 2]), "alternatives");
      alternatives.push({ piece: pieces[flat[at]], before: flat[at + 1], after: flat[at + 2] });
    }
    return { start, text, piece: pieces[piece], before, after, kept, isInside: flags % 2 === 1, isChosen: flags > 1, alternatives };
  });
  let text = "";
  const states = packed.states.map((state) => {
    need(Array.isArray(state?.change), "changes of the text");
    const [at, removed, inserted] = state.change;
    need(isCount(at) && isCount(removed) && isText(inserted) && at + removed <= text.length, "changes of the text");
    text = text.slice(0, at) + inserted + text.slice(at + removed);
    need(state.origin === null || (isCount(state.origin) && state.origin <= text.length), "an origin within the text");
    need(Array.isArray(state.tokens) && state.tokens.length % 2 === 0 &&
      state.tokens.every((place) => isCount(place) && place <= tokens.length), "ranges of tokens");
    const own = [];
    for (let place = 0; place < state.tokens.length; place += 2) {
      own.push(...tokens.slice(state.tokens[place], state.tokens[place + 1]));
    }
    let end = 0;
    for (const token of own) {
      need(token.start >= end && text.startsWith(token.text, token.start), "tokens that lie in the text");
      end = endOf(token);
    }
    return { text, tokens: own, origin: state.origin, by: isText(state.by) ? state.by : "typing" };
  });
  return new History(states, packed.at);
}

// The number of the first token of the last ones that follow each other without a gap and come from one model.
function lastRun(tokens) {
  let first = tokens.length - 1;
  while (first > 0 && endOf(tokens[first - 1]) === tokens[first].start &&
    tokens[first - 1].piece.model === tokens[first].piece.model) first--;
  return Math.max(0, first);
}

window.scratch.history = { VERSION, EMPTY, History, branch, changeOf, cut, endOf, grow, lastRun, pack, toContinue, unpack };
