// The status page: takes the daemon's news, and keeps what is shown in step with it.

import { Row, write, attribute } from "./row.js";
import { Orders } from "./orders.js";
import { Timeline } from "./timeline.js";
import * as words from "./words.js";

const get = (id) => document.getElementById(id);

/** After how long without news they count as old, and after how long a refused page asks again. */
const SILENT_MILLIS = 4000;
const AGAIN_MILLIS = 5000;

const rows = new Map();
const timeline = new Timeline();
const orders = new Orders(notice);
let process = null;
/** The daemon's clock, and when it was read. */
let clock = { micros: Date.now() * 1000, at: performance.now() };
let heard = null;
let order = "";

const now = () => clock.micros + (performance.now() - clock.at) * 1000;

function notice(text, bad) {
  const box = get("notice");
  write(box, text);
  box.classList.toggle("bad", bad);
  box.hidden = !text;
}

function hear(news) {
  clock = { micros: news.now_micros, at: performance.now() };
  heard = performance.now();
  process = news.process;
  for (const table of news.tables) {
    const row = rows.get(table.table);
    if (row) row.tell(table);
    else rows.set(table.table, new Row(table, (...asked) => orders.open(...asked)));
  }
  timeline.add(news.happenings);
  pulse();
}

function overview(news) {
  const there = new Set(news.tables.map(({ table }) => table));
  for (const name of rows.keys()) if (!there.has(name)) drop(name);
  timeline.clear();
  hear(news);
  for (const [name, row] of rows) row.points = news.history[name] ?? [];
  show();
}

function tick(news) {
  news.gone.forEach(drop);
  hear(news);
  for (const [name, row] of rows) row.add(news.points[name] ?? [0, 0]);
  show();
}

function drop(name) {
  rows.get(name)?.element.remove();
  rows.delete(name);
}

function show() {
  // What nobody sees need not be drawn; it is all there when somebody looks again.
  if (document.hidden || !process) return;
  const allowed = orders.allow(process.changes);
  const wanted = get("filter").value.trim().toLowerCase();
  let seen = 0;
  for (const row of rows.values()) {
    const found = !wanted || row.words.includes(wanted);
    row.element.hidden = !found;
    seen += found;
    if (found) row.show(now(), allowed);
  }
  sort();
  summary();
  write(get("count"), wanted ? `${seen} of ${rows.size}` : String(rows.size));
  const none = get("none");
  none.hidden = seen > 0;
  write(none, rows.size ? "No table is called like that, or in such a state." : "There is no table yet: the daemon waits for its servers.");
  attribute(get("tables"), "data-empty", String(seen === 0));
}

const names = new Intl.Collator("en", { numeric: true });

/** Trouble first, then by name. Rows stay where they are unless that changes; who is at a button stays at it. */
function sort() {
  const sorted = [...rows.values()].sort((one, other) => one.urgency - other.urgency || names.compare(one.table.table, other.table.table));
  const key = sorted.map((row) => row.table.table).join("\n");
  if (key === order) return;
  order = key;
  const focused = document.activeElement;
  get("tables").append(...sorted.map((row) => row.element));
  if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function summary() {
  const all = [...rows.values()];
  const { tail, kafka_connected: kafka } = process;
  verdict(all);
  const reading = tail.connected ? ["open", "good"] : tail.idle ? ["idle", "calm"] : ["not open", "bad"];
  fact("tail", ...reading);
  const reopened = tail.reconnects ? `reopened ${words.count(tail.reconnects)}×` : "";
  const stands = tail.position ? `at ${words.place(tail.position)}` : "";
  write(get("tail-detail"), tail.waiting ?? (tail.idle ? "no table to read it for" : [stands, reopened].filter(Boolean).join(" · ")));
  attribute(get("tail-detail"), "title", tail.position ?? "");
  fact("kafka", kafka ? "connected" : "not connected", kafka ? "good" : "bad");
  const flight = all.reduce((sum, { table }) => sum + table.in_flight, 0);
  write(get("kafka-detail"), flight ? `${words.some(flight, "event")} in flight` : "nothing in flight");
  write(get("rate"), `${words.rate(all.reduce((sum, row) => sum + row.perSecond, 0))} events/s`);
  write(get("rate-detail"), `${words.count(all.reduce((sum, { table }) => sum + table.events, 0))} since the start`);
  const read = all.filter(({ table }) => !words.rests(table));
  const late = read.reduce((most, row) => (row.table.lag_seconds > (most?.table.lag_seconds ?? 0) ? row : most), null);
  write(get("lag"), late ? words.span(late.table.lag_seconds) : read.length ? "none" : "unknown");
  const resting = all.length - read.length;
  const unknown = resting ? `unknown of ${words.some(resting, "table")} at rest` : "";
  write(get("lag-detail"), [late ? late.table.table : read.length ? "nothing waits" : "", unknown].filter(Boolean).join(" · "));
  write(get("where"), location.host);
  write(get("version"), `outboxd ${process.version}`);
}

function fact(id, text, tone) {
  write(get(id), text);
  attribute(get(id), "data-tone", tone);
}

/** One sentence on how it is; said aloud when it changes, and in the tab's title. */
function verdict(all) {
  const of = (...states) => all.filter(({ table }) => states.includes(table.state)).length;
  const are = (number, what) => `${words.some(number, "table")} ${number === 1 ? "is" : "are"} ${what}`;
  const troubles = [];
  if (of("halted")) troubles.push(["bad", `${words.some(of("halted"), "table")} ${of("halted") === 1 ? "has" : "have"} halted`]);
  if (!process.tail.connected && !process.tail.idle) troubles.push(["bad", "the binlog is not open"]);
  if (!process.kafka_connected) troubles.push(["bad", "no Kafka broker is connected"]);
  if (of("stopped")) troubles.push(["bad", are(of("stopped"), "stopped")]);
  if (of("detached")) troubles.push(["warn", are(of("detached"), "detached")]);
  if (of("catching_up")) troubles.push(["warn", are(of("catching_up"), "catching up")]);
  if (of("starting")) troubles.push(["warn", are(of("starting"), "starting")]);
  const waiting = all.filter(({ table }) => table.state === "running" && table.reason).length;
  if (waiting && process.tail.connected) troubles.push(["warn", `${words.some(waiting, "table")} ${waiting === 1 ? "waits" : "wait"}`]);
  const parked = all.reduce((sum, { table }) => sum + table.parked, 0);
  if (parked) troubles.push(["warn", `${words.some(parked, "aggregate")} ${parked === 1 ? "is" : "are"} parked`]);
  const asides = [];
  if (of("snapshot")) asides.push(are(of("snapshot"), "being read"));
  if (of("paused")) asides.push(are(of("paused"), "paused"));
  const parts = [...troubles.map(([, text]) => text), ...asides];
  const well = all.length ? `All ${words.some(all.length, "table")} ${all.length === 1 ? "runs" : "run"}` : "Waiting";
  const text = parts.length ? parts.join(", ") : well;
  const box = get("verdict");
  const sentence = `${text[0].toUpperCase()}${text.slice(1)}.`;
  if (box.textContent !== sentence && heard) write(get("said"), sentence);
  write(box, sentence);
  const tone = troubles.some(([of]) => of === "bad") ? "bad" : troubles.length ? "warn" : all.length ? "good" : "warn";
  attribute(box, "data-tone", tone);
  const why = all.length ? "" : process.not_ready ?? "";
  write(get("verdict-detail"), why);
  get("verdict-detail").hidden = !why;
  document.title = `${{ bad: "✕ ", warn: "! ", good: "" }[tone]}outboxd · ${location.host}`;
}

/** Whether the news are new. */
function pulse() {
  const silent = heard === null ? null : performance.now() - heard;
  const [state, text] = silent === null ? ["waiting", "connecting"]
    : silent < SILENT_MILLIS ? ["live", "live"]
    : ["lost", `no news for ${words.span(Math.floor(silent / 1000))}`];
  attribute(get("live"), "data-state", state);
  write(get("live-text"), text);
  attribute(document.body, "data-live", state);
}

function listen() {
  const news = new EventSource("api/v1/stream");
  news.addEventListener("overview", (event) => overview(JSON.parse(event.data)));
  news.addEventListener("tick", (event) => tick(JSON.parse(event.data)));
  // A lost connection comes back by itself; a refusal does not.
  news.addEventListener("error", () => {
    if (news.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MILLIS);
  });
}

get("filter").addEventListener("input", show);
document.addEventListener("visibilitychange", show);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, dialog")) return;
  event.preventDefault();
  get("filter").focus();
});
setInterval(pulse, 500);
listen();
