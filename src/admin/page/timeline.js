// What has happened lately, the newest first.

import { make, write, attribute } from "./row.js";
import * as words from "./words.js";

const get = (id) => document.getElementById(id);

/** How many are shown before somebody asks for more. */
const FIRST = 25;
const KEPT = 200;

const MARKS = { error: ["bad", "Error"], warn: ["warn", "Warning"], info: ["info", ""] };

/** What says most comes first, and what repeats the table or is for machines is left out. */
const FIRST_FIELDS = ["reason", "detail", "paused", "error"];

function sentence({ event, fields }) {
  if (event === "audit") {
    const outcome = fields.refused ? `refused: ${fields.detail ?? fields.refused}` : `${fields.before} → ${fields.after}`;
    return `by ${(fields.by ?? "somebody").replace(/^"|"$/g, "")}: ${outcome}`;
  }
  const rest = Object.entries(fields).filter(([name]) => !FIRST_FIELDS.includes(name));
  const first = FIRST_FIELDS.filter((name) => fields[name]).map((name) => fields[name]);
  const short = (value) => (/^(gtid|domains|file)=/.test(value) ? words.place(value) : value);
  return [...first.slice(0, 2), ...rest.map(([name, value]) => `${words.state(name)} ${short(value)}`)].join(" · ");
}

export class Timeline {
  constructor() {
    this.all = new Map();
    this.list = get("timeline");
    this.more = get("more");
    this.shown = FIRST;
    this.more.addEventListener("click", () => {
      this.shown = this.shown === FIRST ? KEPT : FIRST;
      this.show();
    });
  }

  clear() {
    for (const { element } of this.all.values()) element.remove();
    this.all.clear();
  }

  add(happenings) {
    for (const happening of happenings) {
      const known = this.all.get(happening.id);
      this.all.set(happening.id, { happening, element: known?.element ?? this.make() });
    }
    if (happenings.length) this.show();
  }

  make() {
    const element = make("li", "", make("span", "mark"), make("time"), make("span", "what"), make("span", "times"), make("span", "who"), make("span", "detail"));
    element.firstChild.append(make("span", "unseen"));
    return element;
  }

  show() {
    const newest = [...this.all.values()].sort((one, other) => other.happening.at_micros - one.happening.at_micros || other.happening.id - one.happening.id);
    for (const { happening, element } of newest.splice(KEPT)) {
      this.all.delete(happening.id);
      element.remove();
    }
    newest.forEach((one, place) => {
      this.fill(one);
      if (place >= this.shown) one.element.remove();
      else if (this.list.children[place] !== one.element) this.list.insertBefore(one.element, this.list.children[place] ?? null);
    });
    get("quiet").hidden = newest.length > 0;
    this.more.hidden = newest.length <= FIRST;
    write(this.more, this.shown === FIRST ? `Show all ${newest.length}` : "Show fewer");
  }

  fill({ happening, element }) {
    const [mark, time, what, times, who, detail] = element.children;
    const [tone, level] = MARKS[happening.level] ?? MARKS.info;
    attribute(element, "data-tone", tone);
    write(mark.firstChild, level);
    write(time, words.clock(happening.at_micros));
    attribute(time, "datetime", new Date(happening.at_micros / 1000).toISOString());
    attribute(time, "title", words.moment(happening.at_micros));
    write(what, words.state(happening.event === "audit" ? happening.fields.action ?? "change" : happening.event));
    write(times, happening.times > 1 ? `×${words.count(happening.times)}` : "");
    write(who, happening.table ?? "");
    write(detail, sentence(happening));
  }
}
