// The figures of a machine: trend with its normal band, spectrum, waveform. Made when first seen.
import { FONT, colour, marks, number, onColours, quantity, short } from "./look.js";

const body = document.body.dataset;
const OLD_AFTER_S = 5;

const axis = (more) => ({
  stroke: () => colour("soft"),
  font: FONT,
  ticks: { show: false },
  grid: { stroke: () => colour("grid"), width: 1 },
  gap: 3,
  values: (_, splits) => marks(splits),
  ...more,
});

class Figure {
  constructor(home, plot) {
    this.element = document.createElement("figure");
    this.element.className = `plot ${plot.kind}`;
    this.caption = document.createElement("figcaption");
    this.label = this.caption.appendChild(document.createElement("span"));
    this.note = this.caption.appendChild(document.createElement("small"));
    this.stale = this.caption.appendChild(document.createElement("span"));
    this.stale.className = "stale-says";
    this.value = this.caption.appendChild(document.createElement("b"));
    this.surface = document.createElement("div");
    this.surface.className = "surface";
    this.surface.setAttribute("role", "img");
    this.element.append(this.caption, this.surface);
    home.append(this.element);
    this.status = "normal";
    new ResizeObserver(() => this.resize()).observe(this.surface);
  }

  get size() {
    return { width: this.surface.clientWidth, height: this.surface.clientHeight };
  }

  /** Words under the figure, also what a screen reader hears of it. */
  tell(label, value, note = "") {
    if (this.label.textContent !== label) this.label.textContent = label;
    if (this.note.textContent !== note) this.note.textContent = note;
    this.value.textContent = value;
    this.surface.setAttribute("aria-label", [label, value, note].filter(Boolean).join(", "));
  }

  age(seconds, speed) {
    const stale = seconds > OLD_AFTER_S * Math.max(1, speed);
    this.element.classList.toggle("stale", stale);
    this.stale.textContent = stale ? body.age.replace("{age}", quantity(seconds, "s")) : "";
  }

  /** Grey while the machine is normal; the part outside the band takes the colour of its state. */
  get excess() {
    return this.status === "alarm" || this.status === "attention" ? colour(`${this.status}-trace`) : colour("trace");
  }
}

class Chart extends Figure {
  draw(data) {
    if (this.chart) this.chart.setData(data);
    else if (this.size.width) this.chart = new uPlot({ ...this.options(), ...this.size }, data, this.surface);
    this.data = data;
  }

  resize() {
    if (this.chart) this.chart.setSize(this.size);
    else if (this.data) this.draw(this.data);
  }

  redraw() {
    this.chart?.redraw(false);
  }

  options() {
    return {
      legend: { show: false },
      cursor: { points: { show: false }, drag: { setScale: false }, y: false },
      padding: [6, 16, 0, 0],
    };
  }
}

class Trend extends Chart {
  show(plot) {
    this.low = plot.low;
    this.high = plot.high;
    const last = plot.values.at(-1);
    const note = this.high === null ? "" : body.band.replace("{low}", short(this.low)).replace("{high}", short(this.high) + (plot.unit && `\u00a0${plot.unit}`));
    this.tell(plot.label, quantity(last, plot.unit), note);
    this.draw([plot.ago.map((seconds) => -seconds), plot.values]);
  }

  options() {
    return {
      ...super.options(),
      scales: { x: { time: false, range: (_, from, to) => [Math.min(from, -60), Math.max(0, to)] }, y: { range: (_, low, high) => this.range(low, high) } },
      axes: [
        axis({ size: 20, space: 70, incrs: [15, 30, 60, 120, 300, 600, 1800, 3600], values: (_, splits) => splits.map((s) => (s === 0 ? "0" : `${number(s / 60, s % 60 ? 1 : 0)} ${body.minutes}`)) }),
        axis({ size: 42, space: 22 }),
      ],
      series: [{}, { stroke: (u) => this.stroke(u), width: 1.5, points: { show: false } }],
      hooks: { drawClear: [(u) => this.band(u)] },
    };
  }

  range(low, high) {
    const values = [low, high, this.low, this.high].filter((value) => value !== null && value !== undefined);
    const from = Math.min(...values), to = Math.max(...values), middle = (from + to) / 2;
    // at least 4 % of the value, so that mere ripple does not look like an event
    const half = Math.max((to - from) / 2, Math.abs(middle) * 0.02, 1e-6) * 1.12;
    return [middle - half, middle + half];
  }

  band(u) {
    if (this.high === null || this.low === null) return;
    const { left, top, width, height } = u.bbox;
    const upper = Math.max(top, u.valToPos(this.high, "y", true));
    const lower = Math.min(top + height, u.valToPos(this.low, "y", true));
    u.ctx.fillStyle = colour("band");
    u.ctx.fillRect(left, upper, width, lower - upper);
  }

  stroke(u) {
    const { top, height } = u.bbox;
    if (this.high === null || this.excess === colour("trace")) return colour("trace");
    const share = (value) => Math.min(1, Math.max(0, (u.valToPos(value, "y", true) - top) / height));
    const paint = u.ctx.createLinearGradient(0, top, 0, top + height);
    const upper = share(this.high), lower = Math.max(upper, share(this.low));
    for (const [at, name] of [[0, this.excess], [upper, this.excess], [upper, colour("trace")], [lower, colour("trace")], [lower, this.excess], [1, this.excess]]) {
      paint.addColorStop(at, name);
    }
    return paint;
  }
}

class Spectrum extends Chart {
  show(plot) {
    if (!plot.n || !plot.bin_hz) return;
    const hertz = Float32Array.from(plot.values, (_, bin) => bin * plot.bin_hz);
    let peak = 1 < plot.n ? 1 : 0;
    for (let bin = peak; bin < plot.n; bin++) if (plot.values[bin] > plot.values[peak]) peak = bin;
    const value = quantity(plot.values[peak], plot.unit);
    this.tell(plot.label, body.peak.replace("{value}", value).replace("{hertz}", `${number(hertz[peak], 0)}\u00a0Hz`));
    this.ceiling = nice(plot.values[peak], this.ceiling);
    this.draw([hertz, plot.values]);
  }

  options() {
    return {
      ...super.options(),
      scales: { x: { time: false }, y: { range: () => [0, this.ceiling] } },
      axes: [
        axis({ size: 20, space: 60, values: (_, splits) => splits.map((hz) => (hz ? `${short(hz / 1000)} kHz` : "0")) }),
        axis({ size: 42, space: 24 }),
      ],
      series: [{}, { stroke: () => colour("trace"), fill: () => colour("band"), width: 1, points: { show: false } }],
    };
  }
}

class Waveform extends Figure {
  show(plot) {
    this.plot = { pairs: plot.pairs, values: plot.values.slice(), ms: plot.ms };
    let most = 0;
    for (const value of plot.values) most = Math.max(most, Math.abs(value));
    this.ceiling = nice(most, this.ceiling);
    this.tell(plot.name, `± ${quantity(this.ceiling, plot.unit)}`, plot.ms ? quantity(plot.ms, "ms") : "");
    this.redraw();
  }

  resize() {
    if (this.plot) this.redraw();
  }

  redraw() {
    if (!this.plot || !this.size.width) return;
    this.canvas ??= this.surface.appendChild(document.createElement("canvas"));
    const { width, height } = this.size, ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const ctx = this.canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    const left = 42, right = 16, middle = height / 2, scale = (height / 2 - 6) / this.ceiling;
    this.#rulers(ctx, left, width - right, middle, scale);
    const { values } = this.plot;
    ctx.strokeStyle = colour("trace");
    ctx.lineWidth = 1;
    ctx.beginPath();
    // pairs: minimum and maximum of a column share its x, so one polyline draws both kinds
    const last = this.plot.pairs ? values.length / 2 - 1 : values.length - 1;
    for (let i = 0; i < values.length; i++) {
      const x = left + ((this.plot.pairs ? i >> 1 : i) / Math.max(1, last)) * (width - left - right);
      ctx.lineTo(x, middle - values[i] * scale);
    }
    ctx.stroke();
  }

  #rulers(ctx, left, end, middle, scale) {
    ctx.font = FONT;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    const values = [-this.ceiling, 0, this.ceiling], words = marks(values);
    values.forEach((value, i) => {
      const y = Math.round(middle - value * scale) + 0.5;
      ctx.strokeStyle = colour("grid");
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(end, y);
      ctx.stroke();
      ctx.fillStyle = colour("soft");
      ctx.fillText(words[i], left - 5, y);
    });
  }
}

/** A round ceiling above `value` that does not dance: it only comes down when it is far too high. */
function nice(value, present) {
  if (present && value <= present && value > present / 4) return present;
  const power = 10 ** Math.floor(Math.log10(value * 1.1 || 1));
  const wanted = value * 1.1 || 1;
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted) ?? 10 * power;
}

const KINDS = { trend: Trend, spectrum: Spectrum, waveform: Waveform };
const figures = new Map();

/** Show a machine's plots in every home of the page that is meant for it. */
export function showMachine(machine, single, speed) {
  for (const home of document.querySelectorAll(`.plots[data-machine="${CSS.escape(machine.id)}"]`)) {
    const kinds = home.dataset.kinds?.split(" ");
    for (const plot of machine.plots) {
      if (kinds && !kinds.includes(plot.kind)) continue;
      // on the overview one figure of a kind follows whichever sensor tells the story
      const figure = figureOf(home, plot, single ? plot.name : "");
      figure.status = machine.status;
      figure.sensor = plot.kind === "trend" ? null : plot.name;
      figure.show(plot);
    }
    for (const figure of figures.get(home)?.values() ?? []) {
      if (figure.status !== machine.status) {
        figure.status = machine.status;
        figure.redraw();
      }
      if (figure.sensor in machine.ages) figure.age(machine.ages[figure.sensor], speed);
    }
  }
}

function figureOf(home, plot, name) {
  if (!figures.has(home)) {
    figures.set(home, new Map());
    home.replaceChildren();
  }
  const own = figures.get(home), key = `${plot.kind} ${name}`;
  if (!own.has(key)) own.set(key, new KINDS[plot.kind](home, plot));
  return own.get(key);
}

onColours(() => {
  for (const own of figures.values()) for (const figure of own.values()) figure.redraw();
});
