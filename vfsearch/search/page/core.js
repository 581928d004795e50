// Drawing kit of the report: SVG nodes, scales, axes, one tooltip, one highlighted trial.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const objective = data.objectives[0];
const sign = objective.direction === "maximize" ? 1 : -1;
const trials = data.trials;
const byNumber = new Map(trials.map((trial) => [trial.number, trial]));
const fewDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

function format(value) {
  if (typeof value !== "number") return value === null || value === undefined ? "–" : String(value);
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : fewDigits.format(value);
  return text.replace("e+", "e").replaceAll("-", "−");
}

function clock(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${format(Math.round(seconds / 6) / 10)} min`;
  return `${format(Math.round(seconds / 360) / 10)} h`;
}

function node(parent, tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// ---- scales: at(value) -> pixel, ticks [{value, label}] --------------------------------------

function linear(low, high, from, to, count = 5) {
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    const value = Number((i * step).toPrecision(12));
    ticks.push({ value, label: format(value) });
  }
  return { at: (v) => from + ((v - low) / (high - low)) * (to - from), ticks, low, high };
}

function logarithmic(low, high, from, to) {
  const span = Math.log(high / low) || 1;
  const at = (v) => from + (Math.log(v / low) / span) * (to - from);
  const decades = Math.log10(high / low);
  const factors = decades > 3 ? [1] : decades > 1.3 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push({ value, label: format(value) });
    }
  }
  return { at, ticks, low, high, log: true };
}

function points(choices, from, to) {
  const step = (to - from) / choices.length;
  const index = new Map(choices.map((choice, i) => [choice, i]));
  const at = (v) => from + (index.get(v) + 0.5) * step;
  return { at, ticks: choices.map((c) => ({ value: c, label: c === null ? "null" : format(c) })), step: Math.abs(step) };
}

function scaleOf(parameter, from, to) {
  if (parameter.choices) return points(parameter.choices, from, to);
  const make = parameter.log ? logarithmic : linear;
  return make(parameter.low, parameter.high, from, to, Math.max(2, Math.abs(to - from) / 70));
}

function padded(values, share = 0.06) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low || Math.abs(high) || 1) * share;
  return [low - pad, high + pad];
}

// ---- frame: axes with few, labelled ticks -----------------------------------------------------

function axes(svg, box, x, y, { xLabel, yLabel, grid = true } = {}) {
  const layer = node(svg, "g", { class: "axes" });
  let last = -Infinity;
  for (const tick of y ? y.ticks : []) {
    const at = y.at(tick.value);
    if (grid) node(layer, "line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at });
    node(layer, "text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, tick.label);
  }
  for (const tick of x ? x.ticks : []) {
    const at = x.at(tick.value);
    const half = tick.label.length * 3.6;
    if (at - half < last + 6) continue;
    last = at + half;
    if (grid) node(layer, "line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom });
    node(layer, "text", { x: at, y: box.bottom + 17, "text-anchor": "middle" }, tick.label);
  }
  if (xLabel) node(layer, "text", { class: "label", x: box.right, y: box.bottom + 35, "text-anchor": "end" }, xLabel);
  if (yLabel) node(layer, "text", { class: "label", x: Math.min(box.left, 4), y: box.top - 10 }, yLabel);
  return layer;
}

// ---- colour levels: a stronger ink is a better value ------------------------------------------

function level(value) {
  if (!data.levels.length) return 4;
  const over = data.levels.filter((edge) => value > edge).length;
  return sign > 0 ? over : data.levels.length - over;
}

function levelKey(host) {
  if (!data.levels.length) return;
  const key = document.createElement("p");
  key.className = "levels";
  const edges = data.levels;
  const names = sign > 0 ? [format(edges[0]), format(edges.at(-1))] : [format(edges.at(-1)), format(edges[0])];
  const text = (words) => Object.assign(document.createElement("span"), { textContent: words });
  const steps = text("");
  for (let i = 0; i <= edges.length; i++) steps.append(Object.assign(document.createElement("i"), { className: `l${i}` }));
  key.append(text(`${objective.name} worse than ${names[0]}`), steps, text(`better than ${names[1]}`));
  host.append(key);
}

// ---- a mark per trial -------------------------------------------------------------------------

function mark(parent, trial, x, y, radius = 4.5) {
  const at = { class: `mark ${trial.state}${trial.number === data.best ? " best" : ""}` };
  if (trial.number !== undefined) at["data-trial"] = trial.number; // the marks of a key are of no trial
  if (trial.state === "FAIL") {
    return node(parent, "path", { ...at, d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` });
  }
  return node(parent, "circle", { ...at, cx: x, cy: y, r: trial.number === data.best ? radius + 1.5 : radius });
}

// ---- charts redraw when their width changes ---------------------------------------------------

const charts = {};

function chart(name, height, draw, { least = 0, missing = () => null, after = () => {} } = {}) {
  charts[name] = (host) => {
    const words = missing();
    if (words !== null) {
      host.append(Object.assign(document.createElement("p"), { className: "none", textContent: words }));
      return;
    }
    const frame = Object.assign(document.createElement("div"), { className: "frame" });
    host.append(frame);
    const svg = node(frame, "svg", { role: "img", "aria-label": host.querySelector("h3").textContent });
    after(host);
    let drawn = 0;
    const redraw = () => {
      const room = Math.floor(host.clientWidth - 2 * parseFloat(getComputedStyle(host).paddingLeft));
      if (room === drawn || room < 120) return;
      drawn = room;
      // Too many axes for the room: the frame scrolls sideways.
      const width = Math.max(room, least);
      if (width > room) frame.tabIndex = 0;
      const tall = typeof height === "function" ? height(width) : height;
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${width} ${tall}`);
      svg.setAttribute("width", width);
      svg.setAttribute("height", tall);
      draw(svg, width, tall);
    };
    redraw();
    new ResizeObserver(redraw).observe(host);
  };
}

// ---- pointing at a trial ----------------------------------------------------------------------

const tip = document.getElementById("tip");
let kept = null;

function light(number) {
  for (const other of document.querySelectorAll(".lit")) other.classList.remove("lit");
  document.body.classList.toggle("pointing", number !== null);
  if (number === null) return;
  for (const one of document.querySelectorAll(`[data-trial="${number}"]`)) one.classList.add("lit");
}

function describe(trial) {
  tip.replaceChildren();
  const add = (tag, words, parent = tip) => {
    const made = Object.assign(document.createElement(tag), { textContent: words });
    parent.append(made);
    return made;
  };
  add("b", `Trial ${trial.number} · ${trial.state}`);
  const list = add("dl", "");
  const row = (name, value) => (add("dt", name, list), add("dd", value, list));
  data.objectives.forEach((one, i) => {
    const value = (trial.values || trial.reached)[i];
    if (value !== null && value !== undefined) row(one.name, format(value));
  });
  for (const [name, value] of Object.entries(trial.params)) row(name, format(value));
  row("epochs", trial.epochs);
  if (trial.seconds !== null) row("time", clock(trial.seconds));
  if (trial.retries) row("restarts", trial.retries);
  if (trial.reason) add("p", trial.reason);
}

function place(event) {
  const { clientWidth: wide, clientHeight: high } = document.documentElement;
  const left = event.clientX + 18 + tip.offsetWidth > wide ? event.clientX - tip.offsetWidth - 14 : event.clientX + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY - 20, high - tip.offsetHeight - 8))}px`;
}

function pointed(event) {
  const over = event.target instanceof Element ? event.target.closest("[data-trial]") : null;
  return over ? byNumber.get(Number(over.dataset.trial)) : undefined;
}

document.addEventListener("pointerover", (event) => {
  const trial = pointed(event);
  const inChart = trial && event.target.closest("svg");
  tip.hidden = !inChart;
  if (inChart) {
    describe(trial);
    place(event);
  }
  light(trial ? trial.number : kept);
});
document.addEventListener("focusin", (event) => light(pointed(event)?.number ?? kept));
document.addEventListener("click", (event) => {
  if (!pointed(event) && !kept) return;
  kept = pointed(event)?.number ?? null;
  light(kept);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  kept = null;
  tip.hidden = true;
  light(null);
});
