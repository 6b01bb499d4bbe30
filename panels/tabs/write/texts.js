// The texts of Write as documents that the browser keeps: what is stored of one, and what stands in a file of it.
const { Documents } = window.scratch;
const { History, pack, unpack } = window.scratch.history;
const HISTORY_PAUSE = 400; // milliseconds after which a changed history is stored; the text itself is stored at once

class Texts extends Documents {
  historyTimer = 0;

  blank() {
    return new History();
  }

  isBlank(history) {
    return history.state.text === "" && history.states.length === 1;
  }

  check({ text }) {
    if (typeof text !== "string") throw new Error("expected text as text");
  }

  toRecord(history) {
    return { text: history.state.text };
  }

  fromRecord({ text }) {
    return this.fromText(text, "new");
  }

  fromText(text, by = "import") {
    return new History([{ ...new History().state, text, by }]);
  }

  plain(history) {
    return history.state.text;
  }

  toFile(history) {
    return { format: "scratchgpt-text", text: history.state.text, history: pack(history) };
  }

  fromFile(data) {
    const history = unpack(data.history);
    if (history.state.text !== data.text) throw new Error("expected the text that its history ends with");
    return history;
  }

  // The history that belongs to a stored text: where its last steps were not stored any more, the text is one step more.
  openRest(id, { text }) {
    let history;
    try {
      const packed = this.store.readHistory(id);
      history = packed === null ? new History() : unpack(packed);
      this.complain("history", "");
    } catch (error) {
      history = new History();
      this.complain("history", `The undo history of this text cannot be read (${error.message}) and is left out.`);
    }
    if (history.state.text === text) return history;
    if (this.isBlank(history)) return this.fromText(text, "new");
    history.type(text, "restored", 0);
    return history;
  }

  saveRest(history, now) {
    clearTimeout(this.historyTimer);
    if (now) this.saveHistory(history);
    else this.historyTimer = setTimeout(() => this.saveHistory(history), HISTORY_PAUSE);
  }

  saveHistory(history) {
    this.forgetRest();
    if (!this.current || !this.record || this.troubles.text) return;
    const trouble = this.store.writeHistory(this.current.id, pack(history));
    this.complain("history", trouble && `${trouble} The text is kept, its undo history and its tokens are not. Delete texts or export this one.`);
  }

  flush() {
    if (this.historyTimer) this.saveHistory(this.editor.content());
  }

  forgetRest() {
    clearTimeout(this.historyTimer);
    this.historyTimer = 0;
  }

  async start() {
    const link = window.scratch.link.read();
    if (!link) return super.start();
    await window.scratch.mirror.ready;
    this.sayUnreadable();
    await this.create();
    window.scratch.link.follow(link);
  }
}

const editor = {
  content: () => window.scratch.editor.history(),
  load: (history) => window.scratch.editor.load(history),
  isWriting: () => window.scratch.editor.isWriting(),
};
window.scratch.texts = new Texts({ root: "texts", area: "write", noun: "text", unnamed: "Untitled", editor, settings: window.scratch.settings });
