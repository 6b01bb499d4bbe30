// A tab's requests to the model, one at a time, whose answers are lines of JSON that get longer: {"number"} first, then
// {"text"} for each draft, {"end"} last (panels/tabs/write/request.py, panels/tabs/chat/request.py).
const STALE = 1000; // milliseconds without news after which the page asks whether the server is there
const GRACE = 500; // milliseconds that the last lines of a request may come later than its end
const BROKEN = "That went wrong; the page's log says why.";

window.scratch.Requests = class {
  // `part`: the name in window.scratchParts of what carries the request; `stop`: the id of the Stop button; `noun`: what is
  // written; `take(drafts, request)`: the new drafts came; `ended(request, reason, state, message)`: it is over, with the
  // reason of its last line or a message.
  constructor({ part, stop, noun, take, ended, hasUnsaved }) {
    Object.assign(this, { part, stop, noun, take, ended });
    this.current = null; // {number, read, news, …}
    setInterval(() => this.lookAfterServer(), STALE);
    document.addEventListener("click", (event) => {
      if (this.current && event.target.closest?.("button")?.id === stop) this.current.isStopped = true;
    });
    addEventListener("beforeunload", (event) => {
      if (!this.current && !hasUnsaved()) return;
      event.preventDefault();
      if (this.current) this.current.isLeft = true; // Gradio ends its connection before anybody can say that they stay
    });
  }

  // Begin a request with `own` data, which the page keeps; null where none can begin now.
  begin(own) {
    if (this.current || !window.scratchParts?.[this.part]) return null;
    this.current = { number: Date.now(), read: 0, news: performance.now(), ...own };
    return this.current;
  }

  // Send it, with what the server is to know.
  send(fields) {
    window.scratchParts[this.part].trigger("select", { number: this.current.number, ...fields });
  }

  // The lines of the present request so far.
  receive(lines) {
    const request = this.current;
    if (!request || typeof lines !== "string" || !lines.startsWith(`{"number":${request.number}}\n`)) return;
    request.news = performance.now();
    // A Stop that reached the server before the request did has stopped nothing: it is said again.
    if (request.read === 0 && request.isStopped) document.getElementById(this.stop)?.click();
    const end = lines.lastIndexOf("\n") + 1;
    const fresh = lines.slice(request.read, end).split("\n").filter(Boolean).map((line) => JSON.parse(line));
    request.read = end;
    const drafts = fresh.filter((line) => "text" in line);
    if (drafts.length > 0) this.take(drafts, request);
    const last = fresh.find((line) => "end" in line);
    if (last) this.finish(last.end);
  }

  finish(reason, state, message) {
    const request = this.current;
    if (!request) return;
    this.current = null;
    this.ended(request, reason, state, message);
  }

  // Gradio's event is over; its last lines may be on their way.
  over() {
    const ended = this.current;
    if (ended) setTimeout(() => this.current === ended && this.finish("broken", "trouble", BROKEN), GRACE);
  }

  async lookAfterServer() {
    const asked = this.current;
    if (!asked || performance.now() - asked.news < STALE) return;
    const left = `The attempt to leave ended the connection, and with it the writing. The ${this.noun} is kept.`;
    if (asked.isLeft) return this.finish("left", "trouble", left);
    try {
      const answer = await fetch("gradio_api/app_id", { cache: "no-store" });
      const { app_id: id } = await answer.json();
      if (id === window.gradio_config?.app_id || window.gradio_config === undefined) {
        asked.news = performance.now(); // it is there, and busy
        return;
      }
    } catch { /* it is not there */ }
    const lost = `The connection to the server is lost. The ${this.noun} is kept; the page loads again when the server is back.`;
    if (this.current === asked) this.finish("lost", "trouble", lost);
  }
};

// Say something in a tab's status line (panels/components/status.py).
window.scratch.say = (place, state, message) => {
  const status = document.querySelector(`${place} .status`);
  if (!status) return;
  status.className = `status ${state}`;
  status.setAttribute("aria-live", state === "busy" ? "off" : "polite");
  const [first, ...others] = status.querySelectorAll("p");
  const dot = first.querySelector(".dot");
  first.replaceChildren(window.scratch.make("span"));
  if (dot) first.firstChild.append(dot);
  first.firstChild.append(message);
  for (const each of others) each.remove();
};
