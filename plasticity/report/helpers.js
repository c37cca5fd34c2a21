"use strict";
// One page, no library. `data` is a list of groups of runs on one stream; see plasticity/report/data.py for its keys.
const data = JSON.parse(document.getElementById("data").textContent);
const FEW = 12; // maximum number of positions drawn as points with whiskers
const MARKS = {
  o: "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0Z", s: "M-3-3H3V3H-3Z", "^": "M0-4L3.8 3H-3.8Z",
  v: "M0 4L3.8-3H-3.8Z", "<": "M-4 0L3-3.8V3.8Z", ">": "M4 0L-3-3.8V3.8Z", D: "M0-4.2L4.2 0L0 4.2L-4.2 0Z",
  P: "M-1.4-4H1.4V-1.4H4V1.4H1.4V4H-1.4V1.4H-4V-1.4H-1.4Z", X: "M-3.8-2L-2-3.8L0-1.8L2-3.8L3.8-2L1.8 0L3.8 2L2 3.8L0 1.8L-2 3.8L-3.8 2L-1.8 0Z",
  p: "M0-4L3.8-1.2L2.4 3.2H-2.4L-3.8-1.2Z", h: "M0-4L3.5-2V2L0 4L-3.5 2V-2Z", "": "M-4-.9H4V.9H-4Z",
};
const NICE = [1, 2, 2.5, 5, 10];

const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Numbers and ticks.

function number(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(1).replace(/-/g, "−");
  const digits = size === 0 ? 2 : clamp(2 - Math.floor(Math.log10(size)), 0, size < 0.01 ? 6 : 3);
  return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

function short(value) { // 250000 -> 250k
  const size = Math.abs(value);
  for (const [scale, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= scale) return `${Number((value / scale).toPrecision(4))}${unit}`.replace("-", "−");
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace(/-/g, "−");
  return `${Number(value.toPrecision(4))}`.replace("-", "−");
}

function linearTicks(low, high, wanted, whole) {
  const rough = (high - low) / Math.max(wanted, 1), power = 10 ** Math.floor(Math.log10(rough));
  let step = power * NICE.find((each) => each * power >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + 1e-9 * step; place++) ticks.push(place * step);
  return ticks;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), ticks = [];
  const every = Math.max(1, Math.ceil((last - first) / 7)), parts = last - first <= 2 ? [1, 2, 5] : [1];
  for (let power = first; power <= last; power += every)
    for (const part of parts) if (part * 10 ** power >= low && part * 10 ** power <= high) ticks.push(part * 10 ** power);
  return ticks.length > 1 ? ticks : linearTicks(low, high, 4);
}

function nearest(sorted, value) { // the index of the position nearest to `value`
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle; else high = middle;
  }
  return Math.abs(sorted[low] - value) <= Math.abs(sorted[high] - value) ? low : high;
}

// Lines.

function pieces(points, wanted = () => true) { // split at the ends of visits, unless visits have only a few points, and at unwanted points
  const dense = points.length >= 3 * new Set(points.map((point) => point.visit)).size, found = [];
  let piece = [];
  points.forEach((point, index) => {
    if ((dense && index && point.visit !== points[index - 1].visit) || !wanted(point)) {
      if (piece.length) found.push(piece);
      piece = [];
    }
    if (wanted(point)) piece.push(point);
  });
  return piece.length ? [...found, piece] : found;
}

const fixed = (value) => value.toFixed(1);
const trace = (points, at) => `M${points.map((point) => at(point).map(fixed).join(" ")).join("L")}`; // the path through points
const dashes = (look, width) => look.dash.map((part) => width * part).join(" ");

function mark(marker, x, y) {
  return `<path class="mark" d="${MARKS[marker]}" transform="translate(${fixed(x)} ${fixed(y)})"/>`;
}

function swatch(look, colour) {
  const drawn = `<path d="M1 6H33" stroke-dasharray="${dashes(look, 1.8)}"/>${look.marker ? mark(look.marker, 17, 6) : ""}`;
  return `<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true" style="${colour}">${drawn}</svg>`;
}
