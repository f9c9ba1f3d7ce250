// A line of the latest minutes.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 96;
const HEIGHT = 22;

/** Points of four minutes, two seconds each: the line moves by whole steps only. */
const STEP = 2;
export const POINTS = 240;

export class Spark {
  constructor(kind, least) {
    this.least = least;
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("class", `spark ${kind}`);
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true");
    const ground = this.element.appendChild(document.createElementNS(SVG, "path"));
    ground.setAttribute("class", "ground");
    ground.setAttribute("d", `M0 ${HEIGHT - 1.5}H${WIDTH}`);
    this.area = this.element.appendChild(document.createElementNS(SVG, "path"));
    this.line = this.element.appendChild(document.createElementNS(SVG, "path"));
    this.area.setAttribute("class", "area");
    this.line.setAttribute("class", "line");
    this.drawn = null;
  }

  /** The newest is on the right. `least` is what the full height stands for at least, so that little does not look like much. */
  draw(values) {
    const steps = [];
    for (let end = values.length; end > 0; end -= STEP) steps.unshift(Math.max(...values.slice(Math.max(0, end - STEP), end)));
    const most = Math.max(this.least, ...steps);
    const apart = WIDTH / (POINTS / STEP - 1);
    const at = (value, place) => `${(WIDTH - (steps.length - 1 - place) * apart).toFixed(1)} ${(HEIGHT - 1.5 - (value / most) * (HEIGHT - 3)).toFixed(1)}`;
    const line = steps.length > 1 ? `M${steps.map(at).join("L")}` : "";
    if (line === this.drawn) return;
    this.drawn = line;
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", line && `${line}L${WIDTH} ${HEIGHT}L${(WIDTH - (steps.length - 1) * apart).toFixed(1)} ${HEIGHT}Z`);
  }
}
