// The charts: Vega-Lite specifications over rows that page.js has filtered.

const RUN_STATES = ["completed", "failed", "orphaned", "running"];
const TICK = "M-0.14,-1L0.14,-1L0.14,1L-0.14,1Z";
const MAX_SERIES = 7;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function theme() {
  const quiet = css("--quiet"), line = css("--line");
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: "transparent",
    font,
    view: { stroke: null },
    axis: {
      labelColor: quiet, titleColor: quiet, titleFontWeight: 400, gridColor: line, domain: false,
      ticks: false, labelPadding: 6, labelFontSize: 11.5, titleFontSize: 11.5,
    },
  };
}

// Drawn as text: an HTML tooltip would have to trust what it shows.
function showTip(_handler, event, _item, value) {
  document.querySelector(".tip")?.remove();
  if (value === null || value === undefined || value === "") return;
  const tip = element("div", { class: "tip", "aria-hidden": "true" });
  const list = element("dl");
  for (const [name, text] of Object.entries(value)) {
    if (text === null || text === undefined || text === "" || text === "null") continue;
    list.append(element("dt", {}, name), element("dd", {}, String(text)));
  }
  tip.append(list);
  document.body.append(tip);
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - width - 8);
  const top = event.clientY + 14 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 14;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

let views = [];

function clearCharts() {
  document.querySelector(".tip")?.remove();
  for (const view of views) view.finalize();
  views = [];
}

async function draw(holder, specification) {
  const view = await vegaEmbed(
    holder,
    {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json",
      width: "container",
      autosize: { type: "fit-x", contains: "padding" },
      ...specification,
    },
    {
      ast: true, // no code made from text, as the page's policy forbids it
      renderer: "svg",
      actions: false,
      defaultStyle: false,
      tooltip: showTip,
      config: theme(),
    },
  );
  views.push(view);
}

// As its parts: the library's interpreter misreads a moment that is one number.
function utcDay(seconds) {
  const day = new Date(seconds * 1000);
  return { year: day.getUTCFullYear(), month: day.getUTCMonth() + 1, date: day.getUTCDate(), utc: true };
}

function timeAxis(scope, grid) {
  const step = Math.ceil(scope.days / (innerWidth < 600 ? 4 : 10));
  const labelled = [];
  for (let day = scope.until - DAY; day >= scope.from; day -= step * DAY) labelled.unshift(utcDay(day));
  return {
    field: "time",
    type: "temporal",
    title: null,
    scale: { type: "utc", domain: [utcDay(scope.from), utcDay(scope.until)], nice: false },
    axis: scope.days > 1
      ? { format: "%-d %b", grid, values: labelled }
      : { format: "%H:%M", grid, labelOverlap: true, tickCount: 6 },
  };
}

function timeline(rows, scope) {
  const connections = [...new Set(rows.map((row) => row.connection))].sort();
  const colours = RUN_STATES.map((state) => css(`--mark-${state}`));
  const labelLimit = innerWidth < 600 ? 90 : 180;
  return {
    height: connections.length * (connections.length > 8 ? 22 : 34),
    data: { values: rows },
    mark: { type: "point", filled: true, opacity: 0.9 },
    encoding: {
      x: timeAxis(scope, true),
      // As a domain the names are data; a `sort` by them would become an expression.
      y: { field: "connection", type: "nominal", scale: { domain: connections }, sort: null, title: null, axis: { labelLimit, labelColor: css("--text"), grid: false } },
      color: { field: "state", type: "nominal", legend: null, scale: { domain: RUN_STATES, range: colours } },
      shape: { field: "state", type: "nominal", legend: null, scale: { domain: RUN_STATES, range: [TICK, "triangle-up", "diamond", "circle"] } },
      size: { field: "size", type: "quantitative", legend: null, scale: null },
      order: { field: "rank", type: "quantitative" },
      tooltip: [
        { field: "run", title: "run" },
        { field: "started", title: "started" },
        { field: "state", title: "state" },
        { field: "took", title: "took" },
        { field: "error", title: "error" },
      ],
    },
  };
}

function bars(rows, scope, format, series) {
  return {
    height: 200,
    data: { values: rows },
    mark: { type: "bar", tooltip: true },
    encoding: {
      x: { ...timeAxis(scope, false), timeUnit: "utcyearmonthdate" },
      y: { field: "value", type: "quantitative", stack: true, title: null, axis: { format, tickCount: 4 } },
      color: colourOf(series),
      order: { field: "rank", type: "quantitative" },
      tooltip: tipOf(),
    },
  };
}

function lines(rows, scope, format, series) {
  return {
    height: 180,
    data: { values: rows },
    mark: { type: "line", point: { size: 28, filled: true }, strokeWidth: 1.75 },
    encoding: {
      x: timeAxis(scope, false),
      y: { field: "value", type: "quantitative", title: null, axis: { format, tickCount: 4 }, scale: { zero: true } },
      color: colourOf(series),
      tooltip: tipOf(),
    },
  };
}

const tipOf = () => [
  { field: "day", title: "day" },
  { field: "series", title: "of" },
  { field: "text", title: "value" },
];

function colourOf(series) {
  const domain = series.map(({ name }) => name), range = series.map(({ colour }) => css("--series-" + colour));
  return { field: "series", type: "nominal", legend: null, scale: { domain, range } };
}

// The largest series keep their names; the rest become one where values may be added up, and are
// left out otherwise. Series of a fixed order keep their colours whatever is filtered.
function ranked(rows, isSummed, order) {
  const totals = new Map();
  for (const row of rows) totals.set(row.series, (totals.get(row.series) ?? 0) + row.value);
  const byTotal = [...totals.keys()].sort((one, other) => totals.get(other) - totals.get(one) || (one < other ? -1 : 1));
  const kept = byTotal.slice(0, MAX_SERIES), rest = byTotal.length - kept.length;
  const places = order ?? kept;
  const series = kept.sort((one, other) => places.indexOf(one) - places.indexOf(other))
    .map((name) => ({ name, colour: (places.indexOf(name) % MAX_SERIES) + 1 }));
  const rankOf = (row) => kept.indexOf(row.series);
  const drawn = rows.filter((row) => rankOf(row) >= 0).map((row) => ({ ...row, rank: rankOf(row) }));
  if (isSummed && rest) {
    const others = rows.filter((row) => rankOf(row) < 0).map((row) => ({ ...row, series: "other", rank: kept.length }));
    drawn.push(...added(others));
    series.push({ name: "other", colour: MAX_SERIES + 1 });
  }
  return { drawn, series, left: isSummed ? 0 : rest };
}

// One row for each day and series.
function added(rows) {
  const sums = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.day, row.series]);
    sums.set(key, { ...row, value: row.value + (sums.get(key)?.value ?? 0) });
  }
  return [...sums.values()];
}
