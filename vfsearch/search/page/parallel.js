// Parallel coordinates with brushes, and the importance of each parameter.
"use strict";

const brushes = new Map();

function dimensions() {
  const shown = data.parameters.map((parameter) => ({
    name: parameter.name,
    of: (trial) => trial.params[parameter.name],
    make: (from, to) => scaleOf(parameter, from, to),
  }));
  data.objectives.forEach((one, i) => {
    const values = scored.map((trial) => trial.reached[i]).filter((value) => value !== null);
    if (!values.length) return;
    shown.push({
      name: one.name,
      of: (trial) => trial.reached[i] ?? undefined,
      make: (from, to) => linear(...padded(values, 0.03), from, to),
    });
  });
  return shown;
}

chart("parallel", 400, (svg, width, height) => {
  const shown = dimensions();
  const box = { left: 34, right: width - 62, top: 46, bottom: height - 40 };
  const gap = (box.right - box.left) / Math.max(shown.length - 1, 1);
  const foot = box.bottom + 22;
  shown.forEach((one, i) => {
    one.x = box.left + i * gap;
    one.scale = one.make(box.bottom, box.top);
    one.y = (trial) => {
      const value = one.of(trial);
      return value === undefined ? foot : one.scale.at(value);
    };
  });
  const lines = node(svg, "g");
  const ordered = [...scored].sort((a, b) => sign * (a.reached[0] - b.reached[0]));
  for (const trial of ordered) {
    const path = shown.map((one, i) => {
      const [x, y] = [one.x, one.y(trial)];
      if (!i) return `M${x} ${y}`;
      const before = shown[i - 1];
      const middle = (before.x + x) / 2;
      return `C${middle} ${before.y(trial)} ${middle} ${y} ${x} ${y}`;
    });
    const group = node(lines, "g", { "data-trial": trial.number, class: `thread l${level(trial.reached[0])}` });
    node(group, "path", { class: "reach", d: path.join("") });
    node(group, "path", { class: "line", d: path.join("") });
  }
  const filter = () => {
    for (const thread of lines.children) {
      const trial = byNumber.get(Number(thread.dataset.trial));
      const out = shown.some((one) => {
        const range = brushes.get(one.name);
        return range && (one.y(trial) < range[0] || one.y(trial) > range[1]);
      });
      thread.classList.toggle("out", out);
    }
  };
  shown.forEach((one, i) => {
    const group = node(svg, "g", { class: "axis", transform: `translate(${one.x} 0)` });
    node(group, "line", { y1: box.top - 6, y2: box.bottom + 6 });
    for (const tick of one.scale.ticks) {
      const at = one.scale.at(tick.value);
      node(group, "line", { x2: 5, y1: at, y2: at });
      node(group, "text", { x: 8, y: at + 4, class: "tick halo" }, tick.label);
    }
    if (scored.some((trial) => one.of(trial) === undefined)) {
      node(group, "text", { x: 8, y: foot + 4, class: "tick halo soft" }, "n/a");
    }
    // Names alternate in height where they would touch; the group is kept apart from the setting.
    const [section, setting] = one.name.includes(".") ? one.name.split(/\.(.*)/) : ["", one.name];
    const anchor = i === 0 ? "start" : i === shown.length - 1 ? "end" : "middle";
    const shift = i === 0 ? -box.left : i === shown.length - 1 ? 58 : 0;
    node(group, "text", { x: shift, y: 14, "text-anchor": anchor, class: "tick soft" }, section);
    node(group, "text", { x: shift, y: 29, "text-anchor": anchor, class: "name" }, setting);
    const brush = node(group, "rect", { class: "brush", x: -9, width: 18, y: 0, height: 0, rx: 4 });
    const grip = node(group, "rect", { class: "grip", x: -14, width: 28, y: box.top - 8, height: foot - box.top + 16 });
    const show = () => {
      const range = brushes.get(one.name);
      brush.setAttribute("y", range ? range[0] : 0);
      brush.setAttribute("height", range ? range[1] - range[0] : 0);
      filter();
    };
    let start = null;
    const heightOf = (event) => {
      const frame = svg.getBoundingClientRect();
      return Math.max(box.top - 6, Math.min(foot + 6, ((event.clientY - frame.top) * height) / frame.height));
    };
    grip.addEventListener("pointerdown", (event) => {
      start = heightOf(event);
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = heightOf(event);
      if (Math.abs(now - start) > 3) brushes.set(one.name, [Math.min(start, now), Math.max(start, now)]);
      show();
    });
    grip.addEventListener("pointerup", (event) => {
      if (Math.abs(heightOf(event) - start) <= 3) brushes.delete(one.name);
      start = null;
      show();
    });
    show();
  });
}, {
  least: (data.parameters.length + data.objectives.length) * 104,
  missing: () => (scored.length ? null : "No trial has reported yet."),
  after: levelKey,
});

chart("importance", () => 4 + data.importance.length * 46, (svg, width) => {
  const most = Math.max(...data.importance.flatMap((one) => [one.value, one.chance]));
  const x = linear(0, most, 0, width - 130);
  data.importance.forEach((one, i) => {
    const top = 4 + i * 46;
    const above = one.value > one.chance;
    const group = node(svg, "g", { class: above ? "weight" : "weight noise" });
    node(group, "text", { x: 0, y: top + 13, class: "name" }, one.name);
    node(group, "rect", { x: 0, y: top + 19, width: Math.max(x.at(one.value), 1), height: 14, rx: 2 });
    const tick = x.at(one.chance);
    node(group, "line", { class: "chance", x1: tick, x2: tick, y1: top + 16, y2: top + 36 });
    const words = `${Math.round(one.value * 100)} %${above ? "" : ", within chance"}`;
    node(group, "text", { class: "direct", x: Math.max(x.at(one.value), tick) + 8, y: top + 31 }, words);
  });
}, { missing: () => (data.importance.length ? null : "Fewer than ten different results: nothing can be said yet.") });
