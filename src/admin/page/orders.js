// What an operator asks for: in a dialog that says what it does, and asks for the token if one is needed.

const WHAT = {
  pause: ["Pause", "Pausing", "It waits for what is in flight, saves its position, and relays nothing until somebody resumes it, also after a restart. The other tables go on."],
  resume: ["Resume", "Resuming", "It goes on from its saved position."],
  retry: ["Retry", "Checking", "The checks of a start are made for this table, and it goes on from its saved position. What is not cured is refused."],
};

const get = (id) => document.getElementById(id);

export class Orders {
  /** `tell` says what came of an order. */
  constructor(tell) {
    this.tell = tell;
    this.token = null;
    this.needsToken = false;
    this.dialog = get("order");
    this.form = get("order-form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    get("order-cancel").addEventListener("click", () => this.dialog.close());
    get("forget").addEventListener("click", () => this.remember(null));
  }

  /** Who may change something, as the daemon says; gives whether it could be us. */
  allow(changes) {
    // With either, a certificate may do; whether it does is known once somebody tries.
    if (changes !== "either") this.needsToken = changes === "token";
    this.either = changes === "either";
    return changes !== "nobody";
  }

  open(table, what) {
    const [name, , explained] = WHAT[what];
    this.asked = { table: table.table, what };
    get("order-title").textContent = `${name} ${table.table}`;
    get("order-what").textContent = explained;
    get("order-do").textContent = name;
    get("order-reason").hidden = what !== "pause";
    this.form.elements.reason.value = "";
    this.show(null);
    this.dialog.showModal();
  }

  remember(token) {
    this.token = token;
    get("forget").hidden = !token;
  }

  show(error) {
    const box = get("order-error");
    box.hidden = !error;
    box.textContent = error ?? "";
    get("order-token").hidden = !this.needsToken || this.token !== null;
    this.busy(false);
  }

  busy(busy) {
    const [name, doing] = WHAT[this.asked.what];
    const button = get("order-do");
    button.disabled = busy;
    button.textContent = busy ? `${doing}…` : name;
    get("order-cancel").textContent = busy ? "Close" : "Cancel";
  }

  async send() {
    const { asked, form } = this;
    const { table, what } = asked;
    const token = this.token ?? form.elements.token.value.trim();
    const body = {};
    if (form.elements.by.value.trim()) body.by = form.elements.by.value.trim();
    if (what === "pause" && form.elements.reason.value.trim()) body.reason = form.elements.reason.value.trim();
    const headers = { "content-type": "application/json" };
    if (this.needsToken) headers.authorization = `Bearer ${token}`;
    this.busy(true);
    const error = await ask(`api/v1/tables/${encodeURIComponent(table)}/${what}`, headers, body);
    const here = this.dialog.open && this.asked === asked;
    if (error?.status === 401) {
      this.needsToken = this.needsToken || this.either;
      this.remember(null);
    } else if (this.needsToken) this.remember(token);
    form.elements.token.value = "";
    if (!error) {
      if (here) this.dialog.close();
      this.tell(`${WHAT[what][0]} ${table}: done.`, false);
    } else if (here) {
      this.show(error.text);
      if (error.status === 401) form.elements.token.focus();
    } else {
      this.tell(`${WHAT[what][0]} ${table}: ${error.text}`, true);
    }
  }
}

/** Asks for a change; gives why it was not made, or null. */
async function ask(path, headers, body) {
  try {
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
    if (answer.ok) return null;
    const failure = await answer.json().catch(() => ({}));
    return { status: answer.status, text: failure.detail ? `${failure.detail} (${failure.error})` : `${answer.status} ${answer.statusText}` };
  } catch (error) {
    return { status: 0, text: `The daemon does not answer: ${error.message}` };
  }
}
