// The chat that this tab has open: its log, the field of the next message, its storage, and the requests to the model. What
// the page shows is stored before it is shown.
//
// chat: {messages, question}, never changed. message: {role, content, earlier}; `earlier`: the answers that *Answer again*
//   replaced. `question`: what stands in the field.
const { enable, make, say } = window.scratch;
const BLANK = Object.freeze({ messages: Object.freeze([]), question: "" });
const LABELS = { user: "You", assistant: "Model" };
const TITLE = 40; // characters of a question that name its chat
const find = (selector) => document.querySelector(selector);
const isText = (value) => typeof value === "string";

let chat = BLANK;
let loaded = false; // the chat of this tab is there
let started = false;
let field = null;
let log = null;
let drawn = []; // what the log shows: {message, node, words}

class Chats extends window.scratch.Documents {
  blank() {
    return BLANK;
  }

  isBlank({ messages, question }) {
    return messages.length === 0 && question === "";
  }

  check({ messages, question }) {
    if (!Array.isArray(messages)) throw new Error("expected a list of messages");
    for (const message of messages) {
      if (!message || !Object.hasOwn(LABELS, message.role)) throw new Error("expected messages of user and assistant");
      if (!isText(message.content)) throw new Error("expected messages with content as text");
      const { earlier } = message;
      if (earlier !== undefined && !(Array.isArray(earlier) && earlier.every(isText))) throw new Error("expected earlier answers as texts");
    }
    if (question !== undefined && !isText(question)) throw new Error("expected question as text");
  }

  toRecord({ messages, question }) {
    return { messages, question };
  }

  fromRecord({ messages, question = "" }) {
    return { messages: messages.map(({ role, content, earlier }) => ({ role, content, ...(earlier && { earlier }) })), question };
  }

  plain({ messages, question }) {
    const lines = messages.map(({ role, content }) => `${LABELS[role]}: ${content}`);
    return [...lines, ...(question ? [question] : [])].join("\n\n");
  }

  toFile(content) {
    return { format: "scratchgpt-chat", ...content };
  }

  fromFile(data) {
    this.check(data);
    return this.fromRecord(data);
  }

  // Name a chat by its first question.
  nameBy(question) {
    if (!/^Chat \d+$/.test(this.current.name)) return;
    const [line] = question.trim().split("\n");
    const title = line.length > TITLE ? `${line.slice(0, TITLE).trimEnd()} …` : line;
    this.current.name = this.free((number) => (number > 1 ? `${title} (${number})` : title));
    this.drawList();
  }
}

const requests = new window.scratch.Requests({
  part: "chat", stop: "chat-stop", noun: "chat", take: took, ended, hasUnsaved: () => chats.hasUnsaved,
});
const isWriting = () => requests.current !== null;
const settings = new window.scratch.Settings({
  texts: { system: "#chat-system :is(input, textarea)", seed: "#chat-seed :is(input, textarea)" }, prefix: "chat-",
});
const chats = new Chats({ root: "chats", area: "chat", noun: "chat", unnamed: "Chat", editor: { content: toKeep, load, isWriting }, settings });

function nodeOf(message) {
  const node = make("div", `turn ${message.role}`);
  make("span", "who", LABELS[message.role], node);
  const words = make("p", "words", message.content, node);
  words.dir = "auto";
  if (message.earlier) {
    const { length } = message.earlier;
    const details = make("details", "", undefined, node);
    make("summary", "", `${length} earlier answer${length === 1 ? "" : "s"}`, details);
    for (const text of message.earlier) make("p", "words", text, details).dir = "auto";
  }
  return { message, node, words };
}

function draw() {
  const { messages } = chat;
  const isAtEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 40;
  let same = 0;
  while (same < messages.length && drawn[same]?.message === messages[same]) same++;
  const last = drawn[same];
  const grows = last && same === messages.length - 1 && same === drawn.length - 1 && last.message.role === messages[same].role &&
    last.message.earlier?.length === messages[same].earlier?.length;
  if (grows) { // the same node, so that what is selected in it stays selected
    last.words.textContent = messages[same].content;
    last.message = messages[same];
  } else {
    for (const { node } of drawn.splice(same)) node.remove();
    for (const message of messages.slice(same)) {
      drawn.push(nodeOf(message));
      log.append(drawn.at(-1).node);
    }
  }
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function show() {
  if (!field) return;
  if (field.value !== chat.question) field.value = chat.question;
  draw();
  buttons();
}

function buttons() {
  const isFree = loaded && !isWriting();
  enable("chat-send", isFree);
  enable("chat-stop", isWriting());
  enable("chat-retry", isFree && chat.messages.some(({ role }) => role === "user"));
  enable("chat-new", isFree);
  log?.setAttribute("aria-busy", String(isWriting())); // a screen reader waits until the answer is there
}

// Requests

function ask(asked, own) {
  const trouble = settings.trouble();
  if (trouble && loaded && !isWriting()) say("#chat-status", "trouble", trouble);
  if (trouble || !loaded || !requests.begin({ before: chat, asked, text: "", ...own })) return false;
  chat = asked;
  say("#chat-status", "busy", "Answering …");
  return true;
}

function sendMessages() {
  show();
  log.scrollTop = log.scrollHeight;
  requests.send({ messages: chat.messages.map(({ role, content }) => ({ role, content })) });
}

function send() {
  const { messages, question } = chat;
  if (question.trim() === "") {
    say("#chat-status", "idle", "Write a message first.");
    field.focus();
  } else if (ask({ messages: [...messages, { role: "user", content: question }], question: "" })) {
    if (messages.length === 0) chats.nameBy(question);
    chats.save(chat, { now: true });
    sendMessages();
  }
}

// The chat to store: until the first words of an answer come, with what *Answer again* is to replace.
function toKeep() {
  const request = requests.current;
  const isReplacing = request?.replaced && request.text === "";
  return isReplacing ? { messages: request.before.messages, question: chat.question } : chat;
}

// Ask the last question again.
function again() {
  const { messages, question } = chat;
  const last = messages.findLastIndex(({ role }) => role === "user");
  if (last >= 0 && ask({ messages: messages.slice(0, last + 1), question }, { replaced: messages[last + 1] })) sendMessages();
}

function took(drafts, request) {
  request.text += drafts.map(({ text }) => text).join("");
  if (request.text === "") return;
  const { replaced } = request;
  const earlier = replaced ? { earlier: [...(replaced.earlier ?? []), replaced.content] } : {};
  const answer = { role: "assistant", content: request.text, ...earlier };
  chat = { messages: [...request.asked.messages, answer], question: chat.question };
  chats.save(chat);
  show();
}

function ended(request, reason, state, message) {
  if (message) say("#chat-status", state, message);
  if (request.text === "") { // the chat as it was; what was typed meanwhile stays
    const { before, asked } = request;
    const typed = chat.question;
    const question = asked.question === before.question ? typed : [before.question, typed].filter(Boolean).join("\n");
    chat = { messages: before.messages, question };
  }
  chats.save(chat, { now: true });
  show();
}

// The page

function load(other) {
  chat = other;
  loaded = true;
  drawn.splice(0).forEach(({ node }) => node.remove());
  show();
  if (log) log.scrollTop = log.scrollHeight;
}

function typed() {
  if (!loaded) return;
  chat = { ...chat, question: field.value };
  chats.save(toKeep());
}

// An example takes the place of what stands in the field, as if it were typed, so that the browser can undo it.
function take(text) {
  field.focus();
  field.select();
  document.execCommand("insertText", false, text);
}

function attach() {
  const found = find("textarea#chat-question");
  if (!found || found === field || !settings.isReady()) return;
  field = found;
  log = find("#chat-log .log");
  log.replaceChildren();
  drawn = [];
  field.addEventListener("input", typed);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.isComposing || event.keyCode === 229) return; // 229: Safari, whose composition is over by then
    event.preventDefault();
    send();
  });
  find("#chat-settings > button.label-wrap.open")?.click();
  if (loaded) {
    show();
    chats.redraw();
  }
}

document.addEventListener("click", (event) => {
  const id = event.target.closest?.("#chat-actions button")?.id;
  const example = event.target.closest?.("#chat-samples [data-beginning]");
  if (id === "chat-send") send();
  else if (id === "chat-retry") again();
  else if (id === "chat-new" && loaded && !isWriting()) {
    if (!chats.isBlank(chat)) chats.create();
    say("#chat-status", "idle", "A new chat.");
    field.focus();
  } else if (example && loaded) take(example.dataset.beginning);
});
setInterval(() => { // Gradio lays the tab out when it is opened, and may do so again
  attach();
  if (!field) return;
  buttons();
  if (!started && window.scratchParts?.chat) {
    started = true;
    chats.start();
  }
}, 100);

window.scratch.chat = { over: () => requests.over(), receive: (lines) => requests.receive(lines), chats };
