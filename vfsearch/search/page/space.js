// Slices, contours and the Pareto front; then every chart of the page is drawn.
"use strict";

// A spread that is the same on every drawing, for values that fall on one spot.
const spread = (number) => ((number * 0.618034) % 1) - 0.5;

function mosaic(count, width, least) {
  const columns = Math.max(1, Math.min(count, Math.floor(width / least)));
  return { columns, rows: Math.ceil(count / columns), wide: width / columns };
}

const sliceHeight = 168;

chart("slices", (width) => mosaic(data.parameters.length, width, 250).rows * sliceHeight + 4, (svg, width) => {
  const { columns, wide } = mosaic(data.parameters.length, width, 250);
  const range = padded(scored.map((trial) => trial.reached[0]));
  data.parameters.forEach((parameter, i) => {
    const left = (i % columns) * wide, top = Math.floor(i / columns) * sliceHeight;
    const box = { left: left + 44, right: left + wide - 14, top: top + 26, bottom: top + sliceHeight - 30 };
    const x = scaleOf(parameter, box.left + 6, box.right - 6);
    const y = linear(...range, box.bottom, box.top, 3);
    const group = node(svg, "g");
    axes(group, box, x, y);
    node(group, "text", { class: "name", x: box.left - 40, y: top + 13 }, parameter.name + (parameter.log ? "  (log)" : ""));
    for (const trial of scored) {
      const value = trial.params[parameter.name];
      if (value === undefined) continue;
      const shift = parameter.choices ? spread(trial.number) * x.step * 0.5 : 0;
      mark(group, trial, x.at(value) + shift, y.at(trial.reached[0]), 3.4);
    }
  });
}, { missing: () => (scored.length ? null : "No trial has reported yet.") });

const contourHeight = 330;
const contourRows = (width) => mosaic(data.surfaces.length, width, 320).rows;

chart("contours", (width) => contourRows(width) * contourHeight, (svg, width) => {
  const { columns, wide } = mosaic(data.surfaces.length, width, 320);
  const parameter = (name) => data.parameters.find((one) => one.name === name);
  data.surfaces.forEach((surface, i) => {
    const left = (i % columns) * wide, top = Math.floor(i / columns) * contourHeight;
    const box = { left: left + 46, right: left + wide - 18, top: top + 30, bottom: top + contourHeight - 48 };
    const x = scaleOf(parameter(surface.x), box.left, box.right);
    const y = scaleOf(parameter(surface.y), box.bottom, box.top);
    const group = node(svg, "g");
    node(group, "rect", { class: "blank", x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
    const sheet = node(group, "g", {
      transform: `translate(${box.left} ${box.top}) scale(${(box.right - box.left) / 1000} ${(box.bottom - box.top) / 1000})`,
    });
    surface.paths.forEach((path, k) => {
      const better = sign > 0 ? k : data.levels.length - k;
      if (path) node(sheet, "path", { class: `area l${better}`, d: path, "fill-rule": "evenodd" });
    });
    axes(group, box, x, y, { xLabel: surface.x, grid: false });
    node(group, "text", { class: "label", x: box.left - 42, y: box.top - 12 }, surface.y);
    for (const trial of scored) {
      const [a, b] = [trial.params[surface.x], trial.params[surface.y]];
      if (a === undefined || b === undefined) continue;
      node(group, "circle", {
        "data-trial": trial.number, cx: x.at(a), cy: y.at(b), r: trial.number === data.best ? 6.5 : 4,
        class: `dot l${level(trial.reached[0])}${trial.number === data.best ? " best" : ""}`,
      });
    }
  });
}, {
  missing: () => (data.surfaces.length ? null : "No two numbers have eight different trials in common: no contours yet."),
  after: levelKey,
});

const both = scored.filter((trial) => typeof trial.reached[1] === "number");

chart("pareto", 380, (svg, width, height) => {
  const box = { left: 54, right: width - 24, top: 28, bottom: height - 46 };
  const x = linear(...padded(both.map((t) => t.reached[0])), box.left, box.right, width / 110);
  const y = linear(...padded(both.map((t) => t.reached[1])), box.bottom, box.top);
  const second = data.objectives[1];
  axes(svg, box, x, y, {
    xLabel: `${objective.name} (${objective.direction})`, yLabel: `${second.name} (${second.direction})`,
  });
  const front = data.front.map((number) => byNumber.get(number)).sort((a, b) => a.values[0] - b.values[0]);
  if (data.objectives.length === 2 && front.length > 1) {
    node(svg, "path", { class: "frontier", d: `M${front.map((t) => `${x.at(t.values[0])} ${y.at(t.values[1])}`).join("L")}` });
  }
  for (const trial of both) mark(svg, trial, x.at(trial.reached[0]), y.at(trial.reached[1]), data.front.includes(trial.number) ? 6 : 4);
  for (const trial of front) {
    node(svg, "text", { class: "direct halo", x: x.at(trial.values[0]) + 9, y: y.at(trial.values[1]) - 7 }, trial.number);
  }
}, { missing: () => (both.length ? null : "No trial has reported both objectives yet.") });

for (const host of document.querySelectorAll("[data-chart]")) charts[host.dataset.chart](host);
