"use strict";
// The curves of a report: built from the JSON beside this script, with uPlot. Without this script the page shows pictures.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("plots");
  if (!data.panels.length) return;
  document.documentElement.classList.add("js");
  const controls = document.getElementById("controls");
  controls.hidden = false;
  const state = { x: "step", smooth: true, raw: true, log: false, range: null, shown: [] };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let shown = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => css("--c" + (index % 8));
  const grouped = (n, decimals) => n.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

  // Numbers as the pictures have them: a suffix from the unit of the axis, decimals from the distance of its ticks.
  function suffixed(largest, plainUpTo) {
    if (largest <= plainUpTo) return [1, ""];
    return [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => largest >= size) || [1, ""];
  }
  function byteUnit(largest) {
    return [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [1024, " KiB"]].find(([size]) => largest >= size) || [1, " B"];
  }
  function timeUnit(largest) {
    return [[86400, " d", 172800], [3600, " h", 7200], [60, " min", 120]].find((unit) => largest >= unit[2]) || [1, " s"];
  }
  function unit(kind, largest) {
    if (kind === "steps") return suffixed(largest, 99999);
    if (kind === "tokens" || kind === "rate") return suffixed(largest, 9999);
    if (kind === "bytes") return byteUnit(largest);
    if (kind === "seconds") return timeUnit(largest);
    return [1, ""];
  }
  function exponent(value) {
    if (value === 0) return "0";
    const [digits, power] = value.toExponential(2).split("e");
    return Number(digits) + "e" + Number(power);
  }
  function decimals(step) {
    for (let d = 0; d < 6; d++) {
      const scaled = step * 10 ** d;
      if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * Math.max(scaled, 1) && Math.round(scaled) >= 1) return d;
    }
    return 6;
  }
  function tickLabels(kind, ticks) {
    const present = ticks.filter((value) => value !== null);
    const [size, suffix] = unit(kind, Math.max(...present.map(Math.abs), 0));
    const step = present.length > 1 ? Math.min(...present.slice(1).map((value, i) => value - present[i])) / size : 1;
    return ticks.map((value) => {
      if (value === null) return "";
      if (value === 0) return "0";
      if (kind === "lr" || Math.abs(value) < 1e-4) return exponent(value);
      return grouped(value / size, decimals(step)) + suffix;
    });
  }
  function text(kind, value) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    if (kind === "lr") return exponent(value);
    if (kind === "steps") return grouped(value, 0);
    if (kind === "seconds") return clock(value);
    if (kind === "short") return String(Number(value.toPrecision(3)));
    const [size, suffix] = unit(kind, Math.abs(value));
    const scaled = Math.abs(value / size);
    if (kind === "plain") return scaled !== 0 && scaled < 1e-3 ? exponent(value) : grouped(value, 4);
    return grouped(value / size, suffix === "" ? 0 : scaled < 10 ? 2 : 1) + suffix;
  }
  function clock(seconds) {
    const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
    if (s >= 86400) return Math.floor(s / 86400) + "d " + two(Math.floor(s / 3600) % 24) + "h";
    if (s >= 3600) return Math.floor(s / 3600) + "h " + two(Math.floor(s / 60) % 60) + "m";
    return s >= 60 ? Math.floor(s / 60) + "m " + two(s % 60) + "s" : s + "s";
  }
  // Distances of ticks: 1, 2 and 5 times powers of ten, of the unit that the axis is read in.
  function increments(kind, largest) {
    const [size] = unit(kind, largest);
    if (kind === "seconds" && size < 86400) {
      const list = size === 3600 ? [0.25, 0.5, 1, 2, 3, 6, 12, 24] : [1, 2, 5, 10, 15, 30, 60, 120];
      return list.map((step) => step * size);
    }
    const all = [];
    for (let power = -12; power <= 16; power++) for (const digit of [1, 2, 5]) all.push(Number(digit + "e" + power) * size);
    return kind === "steps" || kind === "tokens" ? all.filter((step) => step >= 1) : all;
  }
  // Ticks of a logarithmic axis: round numbers where its ends are of one size, else decades and what fits between.
  function logSplits(low, high) {
    const found = [];
    if (high / low < 4) {
      const step = increments("plain", high).find((step) => (high - low) / step <= 8);
      for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(12)));
      return found;
    }
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
      for (const digit of high / low < 1000 ? [1, 2, 5] : [1]) {
        const value = Number(digit + "e" + power);
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found;
  }
  const xKind = () => data.axes.find((axis) => axis.id === state.x);

  // The whole axis, from 0 where the first place is near it, as in the pictures.
  function extent() {
    const of = [data.steps[state.x], data.evals[state.x]].filter((xs) => xs.length);
    const low = Math.min(...of.map((xs) => xs[0])), high = Math.max(...of.map((xs) => xs[xs.length - 1]));
    return [low > 0 && low <= 0.05 * high ? 0 : low, high];
  }

  function xRange(u, low, high) {
    const xs = u.data[0];
    const [first, last] = low <= xs[0] && high >= xs[xs.length - 1] ? extent() : [low, high];
    return first === last ? [first - 1, last + 1] : [first, last];
  }

  // The places of a series on the axis of now.
  const places = (series) => data[series.of][state.x];
  function nearest(xs, x) {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  }
  const strong = (series) => (series.smooth && state.smooth ? series.smooth : series.raw);

  function tables(panel) {
    const plotted = [], joined = [];
    for (const series of panel.series) {
      const xs = places(series), line = series.of === "evals" ? 1.75 : 2;
      const add = (ys, options) => {
        joined.push([xs, ys]);
        plotted.push(Object.assign({ scale: "y", pxAlign: 0, stroke: colour(series.colour), hue: colour(series.colour), width: line, points: { show: false }, spanGaps: series.of === "evals" }, options));
      };
      if (series.level !== undefined) {
        add(xs.map(() => series.level), { dash: [5, 4], width: 1.5, spanGaps: true });
        continue;
      }
      const both = series.smooth && state.smooth && state.raw;
      if (both) add(series.raw, { alpha: 0.35, width: 1, isFaint: true });
      const alone = series.smooth && !state.smooth && state.raw;
      const nothing = series.smooth && !state.smooth && !state.raw;
      if (nothing) { add(xs.map(() => null), {}); continue; }
      const circles = series.of === "evals" && xs.length <= 48;
      add(strong(series), { width: alone ? 1.25 : line, points: { show: circles, size: 7, width: 1.5, fill: css("--background") } });
    }
    const columns = uPlot.join(joined, joined.map(() => [0, 1]));
    return [columns, plotted];
  }

  function yRange(panel) {
    return (u, low, high) => {
      if (low === null || high === null) return panel.log && state.log ? [1, 10] : [0, 1];
      const isLog = panel.log && state.log;
      if (isLog) {
        const pad = Math.max((high / low) ** 0.05, 1.02);
        return [low / pad, high * pad];
      }
      if (panel.cut && !state.range) high = Math.min(high, panel.cut.high);
      if (panel.zero && low >= 0) low = 0;
      const pad = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
      return [panel.zero && low === 0 ? 0 : low - pad, high + pad];
    };
  }

  function drawMarks(u, isFirst) {
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    ctx.save();
    for (const mark of data.marks) {
      const x = u.valToPos(mark[state.x], "x", true);
      if (!(x >= bbox.left - 1 && x <= bbox.left + bbox.width + 1)) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(mark.colour);
      ctx.globalAlpha = 0.8;
      ctx.lineWidth = ratio;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.globalAlpha = 1;
      ctx.setLineDash([]);
      if (isFirst) symbol(ctx, mark.symbol, x, bbox.top - 7 * ratio, 4.5 * ratio);
    }
    ctx.restore();
  }
  function symbol(ctx, kind, x, y, r) {
    const corners = { down: [[-1, -0.8], [1, -0.8], [0, 0.9]], up: [[-1, 0.8], [1, 0.8], [0, -0.9]], right: [[-0.7, -1], [-0.7, 1], [1, 0]], square: [[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]], diamond: [[0, -1], [1, 0], [0, 1], [-1, 0]] };
    ctx.beginPath();
    if (kind === "cross") {
      const s = 0.75 * r;
      ctx.moveTo(x - s, y - s); ctx.lineTo(x + s, y + s); ctx.moveTo(x - s, y + s); ctx.lineTo(x + s, y - s);
      ctx.lineWidth = r / 2.2;
      ctx.stroke();
      return;
    }
    corners[kind].forEach(([dx, dy], i) => (i ? ctx.lineTo(x + dx * r, y + dy * r) : ctx.moveTo(x + dx * r, y + dy * r)));
    ctx.fill();
  }
  function drawCut(u, panel) {
    if (!panel.cut || state.range || (panel.log && state.log)) return;
    const ratio = devicePixelRatio, { ctx, bbox } = u;
    ctx.save();
    ctx.font = 11 * ratio + "px system-ui, sans-serif";
    ctx.fillStyle = css("--muted");
    ctx.textAlign = "right";
    ctx.fillText("↑ up to " + text(panel.kind === "plain" ? "short" : panel.kind, panel.cut.beyond), bbox.left + bbox.width - 4 * ratio, bbox.top + 12 * ratio);
    ctx.restore();
  }

  // Values under the cursor, or the last ones.
  function writeValues(shownPanel, x) {
    const { panel, values } = shownPanel;
    const parts = [];
    if (x !== null) {
      const steps = data.steps[state.x].length ? data.steps : data.evals;
      const at = steps[state.x][nearest(steps[state.x], x)];
      parts.push([null, xKind().title, text(xKind().kind, at)]);
    }
    for (const series of panel.series) {
      const xs = places(series);
      if (!xs.length) continue;
      const index = x === null ? xs.length - 1 : nearest(xs, x);
      const value = series.level !== undefined ? series.level : strong(series)[index];
      parts.push([series.colour, series.name, text(panel.kind, value)]);
    }
    values.replaceChildren(...parts.map(([index, name, value]) => {
      const span = document.createElement("span"), bold = document.createElement("b");
      if (index !== null) {
        const swatch = document.createElement("i");
        swatch.className = "swatch";
        swatch.style.background = colour(index);
        span.append(swatch);
      }
      bold.textContent = value;
      span.append(name + " ", bold);
      return span;
    }));
  }
  function writeTip(shownPanel, u) {
    const { tip } = shownPanel, left = u.cursor.left;
    const near = data.marks.map((mark) => [mark, u.valToPos(mark[state.x], "x")]).filter(([, at]) => left >= 0 && Math.abs(at - left) < 8);
    tip.hidden = !near.length || !shownPanel.isHovered;
    if (tip.hidden) return;
    const texts = near.slice(0, 4).map(([mark]) => mark.kind + " at step " + grouped(mark.step, 0) + (mark.text === mark.kind ? "" : ": " + mark.text));
    if (near.length > 4) texts.push("and " + (near.length - 4) + " more");
    tip.textContent = texts.join("; ");
    const at = u.over.offsetLeft + left;
    tip.style.left = Math.max(0, Math.min(at + 12, u.width - tip.offsetWidth)) + "px";
  }

  function options(panel, index, shownPanel, series) {
    const axisFont = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    const axis = { stroke: css("--muted"), font: axisFont, labelFont: axisFont };
    const isFirst = index === 0;
    const marked = data.marks.length && isFirst ? 16 : 8;
    const kind = xKind();
    const largest = extent()[1];
    return {
      width: Math.max(shownPanel.box.clientWidth, 200),
      height: isFirst ? Math.round(Math.min(420, Math.max(280, innerHeight * 0.5))) : 190,
      padding: [marked, 20, 0, 0],
      legend: { show: false },
      // Only the cursor is shared by uPlot: a drag sets the scale of one panel, and `follow` that of the others.
      cursor: { sync: { key: "taper", filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } }, y: false, drag: { x: true, y: false }, points: { size: (u, i) => (u.series[i].isFaint ? 0 : 7), fill: (u, i) => u.series[i].hue, stroke: (u, i) => u.series[i].hue } },
      scales: {
        x: { time: false, range: xRange },
        y: { distr: panel.log && state.log ? 3 : 1, range: yRange(panel) },
      },
      series: [{}, ...series],
      axes: [
        Object.assign({}, axis, { grid: { show: false }, ticks: { stroke: css("--axis"), width: 1, size: 4 }, border: { show: true, stroke: css("--axis"), width: 1 }, size: 30, space: 70, incrs: increments(kind.kind, largest), values: (u, ticks) => tickLabels(kind.kind, ticks) }),
        Object.assign({}, axis, {
          grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, gap: 8, space: isFirst ? 50 : 28,
          size: (u, labels) => Math.ceil(Math.max(18, ...(labels || []).map((label) => label.length * 7))) + 10,
          values: (u, ticks) => tickLabels(panel.kind, ticks),
        }, panel.log && state.log ? { splits: (u, axis, low, high) => logSplits(low, high), filter: (u, splits) => splits } : { incrs: increments(panel.kind, panel.largest) }),
      ],
      hooks: {
        drawAxes: [(u) => drawMarks(u, isFirst)],
        draw: [(u) => drawCut(u, panel)],
        setCursor: [(u) => {
          const inside = u.cursor.left >= 0;
          writeValues(shownPanel, inside ? u.posToVal(u.cursor.left, "x") : null);
          writeTip(shownPanel, u);
        }],
        setScale: [(u, key) => {
          const { min, max } = u.scales.x;
          if (key === "x" && shown.length && (min !== state.shown[0] || max !== state.shown[1])) follow(min, max);
        }],
      },
    };
  }

  // Every panel shows the same part of the axis.
  function follow(low, high) {
    const [first, last] = extent();
    const isWhole = low <= first && high >= last;
    state.range = isWhole ? null : [low, high];
    document.getElementById("reset").disabled = isWhole;
    state.shown = [low, high];
    for (const { plot } of shown) plot.setScale("x", { min: low, max: high });
  }
  function whole() {
    follow(...extent());
  }

  function build() {
    const range = state.range;
    state.range = null;
    for (const { plot } of shown) plot.destroy();
    shown = [];
    root.replaceChildren();
    root.classList.toggle("three", data.panels.length === 4);
    const made = data.panels.map((panel, index) => {
      const box = document.createElement("div");
      box.className = "panel";
      const head = document.createElement("div");
      head.className = "panel-head";
      const title = document.createElement("h3");
      title.textContent = panel.title;
      const values = document.createElement("div");
      values.className = "values";
      const tip = document.createElement("div");
      tip.className = "tip";
      tip.hidden = true;
      head.append(title, values);
      box.append(head, tip);
      root.append(box);
      return { panel, box, values, tip, plot: null, isHovered: false };
    });
    made.forEach((one, index) => {
      const [columns, series] = tables(one.panel);
      one.plot = new uPlot(options(one.panel, index, one, series), columns, one.box);
      one.plot.root.setAttribute("role", "img");
      one.plot.root.setAttribute("aria-label", one.panel.title + " over " + xKind().title);
      one.box.addEventListener("mouseenter", () => { one.isHovered = true; });
      one.box.addEventListener("mouseleave", () => { one.isHovered = false; one.tip.hidden = true; });
      writeValues(one, null);
    });
    shown = made;
    state.shown = [made[0].plot.scales.x.min, made[0].plot.scales.x.max];
    if (range) follow(range[0], range[1]); else document.getElementById("reset").disabled = true;
  }

  for (const input of controls.querySelectorAll("input[name=x]")) {
    input.addEventListener("change", () => { state.x = input.value; state.range = null; build(); });
  }
  for (const name of ["smooth", "raw", "log"]) {
    const input = document.getElementById(name);
    if (!input) continue;
    state[name] = input.checked;
    input.addEventListener("change", () => { state[name] = input.checked; build(); });
  }
  const chosen = controls.querySelector("input[name=x]:checked");
  if (chosen) state.x = chosen.value;
  document.getElementById("reset").addEventListener("click", whole);
  dark.addEventListener("change", build);
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    for (const { plot, box } of shown) plot.setSize({ width: Math.max(box.clientWidth, 200), height: plot.height });
  }).observe(root);
  build();
  // For tests: the part of the axis that is shown.
  root.dataset.ready = "true";
  Object.defineProperty(root, "range", { get: () => [shown[0].plot.scales.x.min, shown[0].plot.scales.x.max] });
})();
