// One table's row: what it does, and below it what it waits for or why it has stopped.

import { Spark, POINTS } from "./spark.js";
import * as words from "./words.js";

/** An element with a class and children; text is always text. */
export function make(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Sets what is written, and leaves alone what is the same: nothing flickers, and nothing is read out twice. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function cell(label, className, ...children) {
  const td = make("td", className, ...children);
  td.setAttribute("role", "cell");
  td.dataset.label = label;
  return td;
}

const ORDERS = { paused: "resume", halted: "retry", stopped: null, draining: null };

export class Row {
  constructor(table, order) {
    this.points = [];
    this.element = make("tbody");
    this.element.setAttribute("role", "rowgroup");
    this.name = make("button", "name");
    this.name.type = "button";
    this.name.setAttribute("aria-expanded", "false");
    this.name.addEventListener("click", () => this.open(!this.opened));
    this.pill = make("span", "pill");
    this.rate = make("span", "value");
    this.lag = make("span", "value");
    this.rates = new Spark("rate", 1);
    this.lags = new Spark("lag", 1000);
    this.flight = make("span", "value");
    this.parked = make("span", "value");
    this.position = make("code");
    this.saved = make("span", "sub");
    this.button = make("button", "order");
    this.button.type = "button";
    this.button.addEventListener("click", () => order(this.table, this.what));
    const head = make("th", "", this.name);
    head.scope = "row";
    head.setAttribute("role", "rowheader");
    this.main = make(
      "tr", "main", head,
      cell("State", "", this.pill),
      cell("Events/s", "number", this.rates.element, this.rate),
      cell("Lag", "number", this.lags.element, this.lag),
      cell("In flight", "number", this.flight),
      cell("Parked", "number", this.parked),
      cell("Position", "place", this.position, this.saved),
      cell("", "orders", this.button),
    );
    this.main.setAttribute("role", "row");
    this.reason = make("p", "reason");
    this.cure = make("p", "cure");
    this.facts = make("dl", "facts");
    const wide = make("td", "", this.reason, this.cure, this.facts);
    wide.colSpan = 8;
    wide.setAttribute("role", "cell");
    this.below = make("tr", "below", wide);
    this.below.setAttribute("role", "row");
    this.below.id = `below-${(Row.made += 1)}`;
    this.name.setAttribute("aria-controls", this.below.id);
    this.element.append(this.main, this.below);
    this.opened = false;
    this.tell(table);
  }

  static made = 0;

  open(opened) {
    this.opened = opened;
    attribute(this.name, "aria-expanded", String(opened));
    this.show(this.seen.now, this.seen.allowed);
  }

  tell(table) {
    this.table = table;
    this.words = `${table.table} ${words.state(table.state)} ${table.reason ?? ""}`.toLowerCase();
    this.urgency = words.urgency(table);
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > POINTS) this.points.shift();
  }

  /** Of the latest five seconds: a single one jumps. */
  get perSecond() {
    const latest = this.points.slice(-5);
    return latest.length ? latest.reduce((sum, [events]) => sum + events, 0) / latest.length : 0;
  }

  show(now, allowed) {
    const { table } = this;
    this.seen = { now, allowed };
    write(this.name, table.table);
    write(this.pill, words.state(table.state));
    attribute(this.pill, "data-tone", words.tone(table));
    attribute(this.element, "data-tone", words.tone(table));
    write(this.rate, words.rate(this.perSecond));
    const rests = words.rests(table);
    write(this.lag, rests ? "unknown" : table.lag_seconds > 0 ? words.span(table.lag_seconds) : "0");
    attribute(this.lag, "title", rests ? "Nothing is read for this table, so what waits for it is not known" : "");
    this.rates.draw(this.points.map(([events]) => events));
    this.lags.draw(this.points.map(([, lag]) => lag));
    write(this.flight, words.count(table.in_flight));
    write(this.parked, words.count(table.parked));
    attribute(this.parked, "data-tone", table.parked ? "warn" : "");
    write(this.position, table.position ? words.place(table.position) : "not known yet");
    attribute(this.position, "title", table.position ?? "");
    write(this.saved, table.saved_micros ? `saved ${words.ago(table.saved_micros, now)}` : "");
    write(this.reason, table.reason ?? "");
    this.reason.hidden = !table.reason;
    write(this.cure, table.cure ?? "");
    // What some reasons say already, and better.
    this.cure.hidden = !table.cure || table.reason.endsWith(table.cure) || table.reason.includes("cure: ");
    this.showOrder(allowed);
    this.facts.hidden = !this.opened;
    if (this.opened) this.showFacts(now);
    this.below.hidden = !this.opened && !table.reason;
  }

  showOrder(allowed) {
    const { state } = this.table;
    this.what = allowed ? (state in ORDERS ? ORDERS[state] : "pause") : null;
    this.button.hidden = !this.what;
    if (!this.what) return;
    write(this.button, this.what[0].toUpperCase() + this.what.slice(1));
    attribute(this.button, "aria-label", `${this.button.textContent} ${this.table.table}`);
  }

  showFacts(now) {
    const { table } = this;
    const facts = [
      ["Saved position", table.position ?? "not known yet"],
      ["Saved", table.saved_micros ? words.moment(table.saved_micros) : "not yet"],
      ["Events acknowledged", `${words.count(table.events)} since ${words.moment(table.started_micros)}`],
      ["In the queue", words.bytes(table.queue_bytes)],
      ["Parked aggregates", table.parked ? `${words.count(table.parked)}; outboxd parked list ${table.table}` : "none"],
    ];
    if (table.detached_micros) facts.push(["Away from the shared reader", `for ${words.span(Math.max(0, now - table.detached_micros) / 1e6)}`]);
    while (this.facts.children.length > facts.length) this.facts.lastChild.remove();
    facts.forEach(([name, value], place) => {
      const fact = this.facts.children[place] ?? this.facts.appendChild(make("div", "", make("dt"), make("dd")));
      write(fact.firstChild, name);
      write(fact.lastChild, value);
    });
  }
}
