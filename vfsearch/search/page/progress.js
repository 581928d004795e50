// History, learning curves and the time line.
"use strict";

const scored = trials.filter((trial) => trial.reached[0] !== null);

function stateKey(host, states) {
  const names = { COMPLETE: "complete", PRUNED: "stopped early", FAIL: "failed", RUNNING: "running" };
  const key = document.createElement("p");
  key.className = "states";
  for (const state of states.filter((s) => trials.some((trial) => trial.state === s))) {
    const item = document.createElement("span");
    const svg = node(item, "svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" });
    mark(svg, { state }, 0, 0, 4.2);
    item.append(names[state]);
    key.append(item);
  }
  if (data.best !== null) {
    const item = document.createElement("span");
    const svg = node(item, "svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" });
    node(svg, "circle", { class: "mark best", r: 5.5 });
    item.append(data.objectives.length > 1 ? `best ${objective.name}` : "best");
    key.append(item);
  }
  host.append(key);
}

chart("history", 330, (svg, width, height) => {
  const box = { left: 48, right: width - 84, top: 28, bottom: height - 44 };
  const x = linear(-0.5, Math.max(...trials.map((t) => t.number)) + 0.5, box.left, box.right, Math.max(width / 90, 4));
  x.ticks = x.ticks.filter((tick) => Number.isInteger(tick.value));
  const y = linear(...padded(scored.map((t) => t.reached[0])), box.bottom, box.top);
  axes(svg, box, x, y, { xLabel: "trial", yLabel: objective.name });
  let best = null;
  let path = "";
  for (const trial of trials) {
    if (!trial.values) continue;
    if (best === null) path = `M${x.at(trial.number)} ${y.at(trial.values[0])}`;
    if (best === null || sign * trial.values[0] > sign * best) {
      best = trial.values[0];
      path += `H${x.at(trial.number)}V${y.at(best)}`;
    }
  }
  if (best !== null) {
    node(svg, "path", { class: "frontier", d: `${path}H${box.right}` });
    node(svg, "text", { class: "direct", x: box.right + 6, y: y.at(best) + 4 }, format(best));
    node(svg, "text", { class: "direct soft", x: box.right + 6, y: y.at(best) + 18 }, "best so far");
  }
  for (const trial of trials) {
    const value = trial.reached[0];
    if (trial.state === "FAIL") mark(svg, trial, x.at(trial.number), box.bottom - 6);
    else if (value !== null) mark(svg, trial, x.at(trial.number), y.at(value));
  }
}, {
  missing: () => (scored.length ? null : "No trial has reported yet."),
  after: (host) => stateKey(host, ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]),
});

chart("curves", 330, (svg, width, height) => {
  const drawn = trials.filter((trial) => trial.curve.length);
  const box = { left: 48, right: width - 70, top: 28, bottom: height - 44 };
  const epochs = drawn.flatMap((trial) => trial.curve.map(([epoch]) => epoch));
  const x = linear(Math.min(...epochs), Math.max(...epochs), box.left, box.right, Math.max(width / 90, 4));
  x.ticks = x.ticks.filter((tick) => Number.isInteger(tick.value));
  const y = linear(...padded(drawn.flatMap((trial) => trial.curve.map(([, v]) => v))), box.bottom, box.top);
  axes(svg, box, x, y, { xLabel: "epoch", yLabel: objective.name });
  const order = { FAIL: 0, PRUNED: 1, RUNNING: 2, COMPLETE: 3 };
  drawn.sort((a, b) => (a.number === data.best) - (b.number === data.best) || order[a.state] - order[b.state]);
  for (const trial of drawn) {
    const line = trial.curve.map(([epoch, value]) => `${x.at(epoch)} ${y.at(value)}`).join("L");
    const best = trial.number === data.best;
    const group = node(svg, "g", { "data-trial": trial.number, class: `curve ${trial.state}${best ? " best" : ""}` });
    node(group, "path", { class: "reach", d: `M${line}` });
    node(group, "path", { class: "line", d: `M${line}` });
    const [epoch, value] = trial.curve.at(-1);
    if (trial.state === "PRUNED") node(group, "circle", { class: "stop", cx: x.at(epoch), cy: y.at(value), r: 2.6 });
    if (trial.state === "FAIL") mark(group, trial, x.at(epoch), y.at(value));
    if (best) node(group, "text", { class: "direct", x: x.at(epoch) + 7, y: y.at(value) + 4 }, `trial ${trial.number}`);
  }
}, { missing: () => (scored.length ? null : "No trial has reported yet.") });

const placed = trials.filter((trial) => trial.lane !== null && trial.start !== null);
const laneCount = Math.max(0, ...placed.map((trial) => trial.lane)) + 1;

chart("timeline", () => 60 + laneCount * 34, (svg, width, height) => {
  const box = { left: 64, right: width - 12, top: 8, bottom: height - 44 };
  const over = Math.max(...placed.map((trial) => trial.end ?? trial.start + (trial.seconds ?? 0)));
  const minutes = over > 120;
  const unit = over > 7200 ? 3600 : minutes ? 60 : 1;
  const x = linear(0, Math.max(over, 1) / unit, box.left, box.right, width / 90);
  axes(svg, box, x, null, { xLabel: unit === 3600 ? "hours since the first start" : minutes ? "minutes since the first start" : "seconds since the first start" });
  for (let lane = 0; lane < laneCount; lane++) {
    node(svg, "text", { x: box.left - 10, y: box.top + lane * 34 + 21, "text-anchor": "end", class: "tick" }, `place ${lane + 1}`);
  }
  for (const trial of placed) {
    const from = x.at(trial.start / unit);
    const to = x.at((trial.end ?? over) / unit);
    const best = trial.number === data.best;
    const group = node(svg, "g", { "data-trial": trial.number, class: `bar ${trial.state}${best ? " best" : ""}` });
    const top = box.top + trial.lane * 34 + 4;
    node(group, "rect", { x: from + 0.5, y: top, width: Math.max(to - from - 1.5, 1.5), height: 26, rx: 3 });
    const room = to - from > 9 * String(trial.number).length + 4;
    if (room) node(group, "text", { x: (from + to) / 2, y: top + 17, "text-anchor": "middle" }, trial.number);
  }
}, { missing: () => (placed.length ? null : "No trial has started yet.") });
