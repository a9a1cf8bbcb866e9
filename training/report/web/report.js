"use strict";
// Draws the charts of the page, and lets their colours follow its theme. Everything is in the page.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;

  // light-dark() of a custom property is resolved only where it is a colour.
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };

  const told = (value) => value == null ? "–" : Number(value.toPrecision(4)).toString();

  function legend(chart, series) {
    const list = document.createElement("p");
    list.className = "legend";
    for (const [index, each] of series.entries()) {
      const key = list.appendChild(document.createElement("span"));
      key.className = "key";
      const line = key.appendChild(document.createElement("i"));
      line.style.color = `var(--c${index % 6})`;
      if (each.dash) line.className = "dash";
      key.append(each.label, " ");
      key.appendChild(document.createElement("output"));
    }
    const place = list.appendChild(document.createElement("span"));
    place.className = "place";
    list.setAttribute("aria-hidden", "true");  // the table below says it in words
    return list;
  }

  function eventsOf(chart) {
    return {
      hooks: {
        draw: [(plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.strokeStyle = colour("wrong");
          ctx.fillStyle = colour("wrong");
          ctx.lineWidth = devicePixelRatio;
          ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
          ctx.font = `${10 * devicePixelRatio}px system-ui, sans-serif`;
          for (const [index, [kimg, failure]] of chart.events.entries()) {
            const x = Math.round(plot.valToPos(kimg, "x", true));
            if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            ctx.textAlign = x > bbox.left + bbox.width / 2 ? "right" : "left";
            const gap = ctx.textAlign === "right" ? -3 : 3;
            ctx.fillText(failure, x + gap * devicePixelRatio, bbox.top + (10 + 11 * (index % 4)) * devicePixelRatio);
          }
          ctx.restore();
        }],
      },
    };
  }

  function draw(chart) {
    const box = document.getElementById(chart.id);
    const width = box.clientWidth;
    if (!width || (drawn.has(chart.id) && drawn.get(chart.id).width === width)) return;
    drawn.get(chart.id)?.destroy();
    box.replaceChildren();
    const few = chart.x.length < 40;
    const keys = legend(chart, chart.series);
    const outputs = keys.querySelectorAll("output");
    const place = keys.querySelector(".place");
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const values = (plot, splits) => splits.map((v) => v == null ? "" : told(v));
    const scaleY = chart.log ? { distr: 3 } : {};
    if (chart.whole) scaleY.range = (plot, low, high) => [Math.min(0, low ?? 0), Math.max(1, high ?? 1)];
    const plot = new uPlot({
      width, height: 200,
      legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { x: { time: false, distr: chart.logX ? 3 : 1 }, y: scaleY },
      axes: [
        { ...axis, label: chart.xLabel, labelSize: 18, size: 34, font: "11px system-ui", labelFont: "11px system-ui", ...(chart.logX ? {} : { values }) },
        { ...axis, size: 56, font: "11px system-ui", values },
      ],
      series: [{}, ...chart.series.map((each, index) => ({
        label: each.label,
        stroke: colour(`c${index % 6}`),
        width: each.points ? 0 : 1.5,
        dash: each.dash ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: each.points || (few && !each.dash), size: each.points ? 8 : 4, fill: colour(`c${index % 6}`) },
      }))],
      plugins: chart.events?.length ? [eventsOf(chart)] : [],
      hooks: {
        setCursor: [(self) => {
          const at = self.cursor.idx;
          place.textContent = at == null ? "" : `at ${told(chart.x[at])} ${chart.xLabel}`;
          for (const [index, output] of outputs.entries()) {
            output.textContent = at == null ? "" : told(chart.series[index].y[at]);
          }
        }],
      },
    }, [chart.x, ...chart.series.map((each) => each.y)], box);
    const canvas = plot.root;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${chart.title}, over ${chart.xLabel}: ${chart.series.map((each) => each.label).join(", ")}`);
    box.append(keys);
    drawn.set(chart.id, plot);
  }

  function redraw(force) {
    for (const chart of charts) {
      if (force) { drawn.get(chart.id)?.destroy(); drawn.delete(chart.id); }
      draw(chart);
    }
  }

  for (const input of document.querySelectorAll("input[name=theme]")) {
    input.addEventListener("change", () => {
      document.documentElement.style.colorScheme = input.value;
      redraw(true);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(true));

  for (const slider of document.querySelectorAll("input[type=range][data-of]")) {
    const of = slider.dataset.of;
    const frames = JSON.parse(document.getElementById(`frames${of}`).textContent);
    slider.addEventListener("input", () => {
      const frame = frames[slider.value];
      document.getElementById(`frame${of}`).src = frame.url;
      document.getElementById(`kimg${of}`).textContent = frame.kimg;
      slider.setAttribute("aria-valuetext", `${frame.kimg} kimg`);
    });
  }

  // Charts in a closed run have no width until it is opened.
  let waiting = 0;
  const later = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => redraw(false)); };
  new ResizeObserver(later).observe(document.querySelector("main"));
  for (const each of document.querySelectorAll("details.run")) each.addEventListener("toggle", later);

  // On paper: light, and every run open.
  let before = "";
  addEventListener("beforeprint", () => {
    before = document.documentElement.style.colorScheme;
    document.documentElement.style.colorScheme = "light";
    for (const each of document.querySelectorAll("details.run")) each.open = true;
    redraw(true);
  });
  addEventListener("afterprint", () => {
    document.documentElement.style.colorScheme = before;
    redraw(true);
  });
  redraw(false);
})();
