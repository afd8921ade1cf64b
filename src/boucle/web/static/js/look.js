// Colours from the style sheet and numbers in the reader's language, for what is drawn on canvas.

const language = document.body.dataset.language;
const formats = new Map();

/** A number as the server writes it: three significant digits, decimal comma in French. */
export function number(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const places = digits ?? (size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  if (!formats.has(places)) {
    formats.set(places, new Intl.NumberFormat(language, { minimumFractionDigits: places, maximumFractionDigits: places }));
  }
  return formats.get(places).format(value).replace("-", "\u2212");
}

const brief = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });

/** A limit, without the zeros a measurement would need: 0.14, 75. */
export const short = (value) => brief.format(value).replace("-", "\u2212");

/** Axis marks of a common precision: 0 · 0,1 · 0,2. */
export function marks(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(values[0] ?? 0);
  let places = 0;
  while (places < 4 && Math.abs(step - Number(step.toFixed(places))) > step / 1000) places++;
  return values.map((value) => number(value, places));
}

export function quantity(value, unit) {
  const text = number(value);
  return unit && text !== "–" ? `${text}\u00a0${unit}` : text;
}

let colours = null;
const NAMES = ["trace", "fill", "band", "grid", "soft", "attention-trace", "alarm-trace"];

export function colour(name) {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(NAMES.map((key) => [key, style.getPropertyValue(`--${key}`).trim()]));
  }
  return colours[name];
}

/** Call `then` when the reader's screen turns dark or light. */
export function onColours(then) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours = null;
    then();
  });
}

export const FONT = '11px "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif';
