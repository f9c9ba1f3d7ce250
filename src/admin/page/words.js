// Numbers, times and states in words. Pure.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);

export const rate = (perSecond) => (perSecond > 0 && perSecond < 10 ? fine : whole).format(perSecond);

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; number >= 1024 && unit < units.length - 1; unit += 1) number /= 1024;
  return `${(unit ? fine : whole).format(number)} ${units[unit]}`;
}

/** A time that passes, in seconds. */
export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const all = Math.floor(seconds);
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor((all % 86400) / 3600)} h`;
}

/** How long ago, without more detail than anybody needs. */
export function ago(micros, now) {
  const seconds = Math.max(0, (now - micros) / 1e6);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const clock = (micros) => new Date(micros / 1000).toLocaleTimeString("en-GB");

export const moment = (micros) => new Date(micros / 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// What needs somebody first. A table that only waits comes behind those that have left the shared reader.
const URGENCY = ["halted", "stopped", "detached", "catching_up", "starting", "waiting", "parked", "snapshot", "draining", "paused", "running"];

const TONE = { halted: "bad", stopped: "bad", detached: "warn", catching_up: "warn", starting: "warn", draining: "warn", snapshot: "info", paused: "calm", running: "good" };

/** Whether nothing is read for a table: what waits for it is not known then. */
export const rests = (table) => ["halted", "paused", "stopped"].includes(table.state);

/** How soon somebody should look at a table; the least first. */
export function urgency(table) {
  let what = table.state;
  if (what === "running" && table.reason) what = "waiting";
  if (what === "running" && table.parked) what = "parked";
  const place = URGENCY.indexOf(what);
  return place < 0 ? 0 : place;
}

export function tone(table) {
  if (table.state === "running" && (table.reason || table.parked)) return "warn";
  return TONE[table.state] ?? "warn";
}

export const state = (name) => name.replaceAll("_", " ");

export const some = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** The end of a position, which is what moves. */
export function place(position) {
  const kind = position.slice(0, position.indexOf("=") + 1);
  const rest = position.slice(kind.length);
  if (!rest) return "the beginning";
  if (rest.length <= 26) return rest;
  const last = rest.slice(rest.lastIndexOf(",") + 1);
  const uuid = last.match(/^([0-9a-f]{8})-[0-9a-f-]{27}(:.*)$/);
  const short = uuid ? `${uuid[1]}…${uuid[2]}` : `…${last.slice(-25)}`;
  return last.length < rest.length ? `…, ${short}` : short;
}
