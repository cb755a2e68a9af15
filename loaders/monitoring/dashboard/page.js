// Reads the embedded data, filters it, and writes tables, figures and charts. Text from data is
// only ever set as text.

const DAY = 86_400;
const ALL = "all";
const LATEST_ERRORS = 10;
const LISTED_RUNS = 100;
const RUN_MARKS = { completed: "❘", failed: "▲", orphaned: "◆", running: "●" };
const MARKS = { ok: "✓", late: "◷", failing: "✕", silent: "∅" };
const RANKS = { completed: 0, running: 1, orphaned: 2, failed: 3 };
const UNITS = [[DAY, "days"], [3600, "h"], [60, "min"], [1, "s"]];

const content = JSON.parse(document.getElementById("data").textContent);
const records = ({ columns, rows }) =>
  rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])));
const connections = records(content.connections);
const runs = records(content.runs);
const activity = records(content.activity);
const byDay = records(content.by_day);
const letters = records(content.dead_letters);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => child ?? ""));
  return made;
}

const get = (id) => document.getElementById(id);
const keyOf = (row) => JSON.stringify([row.source_system, row.connection_name]);
const nameOf = (row) =>
  row.connection_name === null ? row.source_system : `${row.source_system}.${row.connection_name}`;
// What is of no connection comes last.
const keys = [...new Map([...connections, ...activity, ...byDay, ...runs, ...letters].map((row) => [keyOf(row), nameOf(row)]))]
  .sort(([oneKey, one], [otherKey, other]) => oneKey.endsWith(",null]") - otherKey.endsWith(",null]") || (one < other ? -1 : 1));
const names = keys.map(([, name]) => name);
const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
const secondsOf = (day) => Date.parse(`${day}T00:00:00Z`) / 1000;
const dayOf = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

const count = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
const decimal = (value) => value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
const orDash = (value, format) => (value === null || value === undefined ? "–" : format(value));
const moment = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
// As run.py status has it.
function duration(seconds) {
  const [unit, name] = UNITS.find(([size]) => seconds >= 2 * size) ?? UNITS.at(-1);
  return `${Math.trunc(seconds / unit)} ${name}`;
}
const ago = (seconds) => `${duration(Math.max(seconds, 0))} ago`;
const took = (seconds) => (seconds < 120 ? `${decimal(seconds)} s` : duration(seconds));
function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${decimal(value)} ${units[unit]}`;
}

// A column: its title, what to show of a row (a text or nodes), and a class of its cells. The first
// names the row. Roles are said again since a phone's layout would take them away.
function table(caption, columns, rows) {
  const head = element("tr", { role: "row" });
  for (const { title, kind = "" } of columns) {
    head.append(element("th", { role: "columnheader", scope: "col", class: kind }, title));
  }
  const body = element("tbody", { role: "rowgroup" });
  for (const row of rows) {
    const line = element("tr", { role: "row" });
    columns.forEach(({ title, show, kind = "" }, index) => {
      const cell = index === 0
        ? element("th", { role: "rowheader", scope: "row", class: kind })
        : element("td", { role: "cell", class: kind, "data-label": title });
      cell.append(...[show(row)].flat());
      line.append(cell);
    });
    body.append(line);
  }
  return element(
    "table", { role: "table" }, element("caption", {}, caption),
    element("thead", { role: "rowgroup" }, head), body,
  );
}

function fill(id, ...children) {
  get(id).replaceChildren(...children);
}

const listing = (caption, columns, rows, nothing) =>
  rows.length ? element("div", { class: "card" }, table(caption, columns, rows)) : element("p", { class: "quiet" }, nothing);

function health(scope) {
  const state = (row) => {
    const pill = element("span", { class: `state ${row.state in MARKS ? row.state : ""}` });
    pill.append(element("span", { "aria-hidden": "true" }, MARKS[row.state] ?? ""), row.state);
    return pill;
  };
  const success = (row) => row.last_success_at === null
    ? "never"
    : [ago(row.age_seconds), element("small", {}, moment(row.last_success_at))];
  const shown = connections.filter(scope.matches);
  const good = shown.filter((row) => row.state === "ok").length;
  const caption = good === shown.length ? "Every connection is ok" : `${good} of ${shown.length} connections ok, the worst first`;
  fill("health", listing(caption, [
    { title: "Connection", show: (row) => element("span", { class: "name" }, nameOf(row)) },
    { title: "State", show: state },
    { title: "Last success", show: success, kind: "time" },
    { title: "Expected", show: (row) => orDash(row.expected_interval_seconds, (value) => `every ${duration(value)}`), kind: "time" },
    { title: "Failures in a row", show: (row) => count(row.consecutive_failures), kind: "number" },
    { title: "Dead letters", show: (row) => count(row.open_dead_letters), kind: "number" },
    { title: "Reason", show: (row) => row.reason, kind: "long" },
  ], shown, "No connection has run: jobs of no connection have no health."));
}

function figures(scope) {
  const days = activity.filter(scope.holds), inside = runs.filter(scope.holds);
  const ran = days.filter((row) => row.object_type === null);
  const total = sum(ran, "runs"), failed = sum(ran, "failures");
  const times = inside.filter((row) => row.is_ingestion && row.state === "completed" && row.duration_seconds !== null)
    .map((row) => row.duration_seconds).sort((one, other) => one - other);
  const middle = times.length ? (times[(times.length - 1) >> 1] + times[times.length >> 1]) / 2 : null;
  const measured = byDay.filter(scope.holds);
  const shown = [
    ["runs", "Ingestion runs", count(total)],
    ["failures", "Failed", count(failed), total ? `${decimal((100 * failed) / total)} % of runs` : "", failed > 0],
    ["objects", "Objects landed", count(sum(days, "objects_landed"))],
    ["bytes", "Payloads landed", bytes(sum(days, "bytes"))],
    ["duration", "Median run", orDash(middle, took)],
    ["units", "API quota units", count(sum(days, "api_units"))],
  ];
  if (content.warehouse === "bigquery") shown.push(["billed", "BigQuery billed", bytes(sum(measured, "bytes_billed"))]);
  const open = sum(connections.filter(scope.matches), "open_dead_letters");
  shown.push(["letters", "Open dead letters", count(open), "now", open > 0]);
  fill("figures", ...shown.map(([id, title, value, note, isBad]) => {
    const group = element("div", isBad ? { class: "bad" } : {}, element("dt", {}, title));
    group.append(element("dd", { "data-figure": id }, value));
    if (note) group.append(element("dd", {}, note));
    return group;
  }));
}

// A chart: drawn once its figure is in the page, with a summary for whoever does not see it and a
// table that is made when it is opened.
function figure({ title, note, summary, rows, specification, legend, columns, listed = rows }) {
  const made = element("figure", {}, element("figcaption", {}, element("h3", {}, title), element("p", {}, note)));
  if (!rows.length) {
    made.append(element("p", { class: "nothing" }, summary));
    return made;
  }
  const chart = element("div", { class: "chart", role: "img", "aria-label": `${title}. ${summary}` }, element("div"));
  const details = element("details", {}, element("summary", {}, "Data table", element("span", { class: "unseen" }, `: ${title}`)));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Data table: ${title}` });
    scroll.append(table(summary, columns, listed));
    details.append(scroll);
  });
  const entries = legend.map(([mark, kind, name]) => element("li", {}, element("span", { class: kind, "aria-hidden": "true" }, mark), name));
  made.append(chart, element("ul", { class: "legend", "aria-label": "Legend" }, ...entries), details);
  drawing.push([chart.firstChild, specification]);
  return made;
}

let drawing = [];

function runsChart(scope) {
  const inside = runs.filter(scope.holds);
  const rows = inside.map((row) => ({
    time: row.started_at * 1000, connection: nameOf(row), state: row.state, rank: RANKS[row.state] ?? 0,
    size: row.state === "completed" ? 150 : 100,
    run: row.correlation_id, started: moment(row.started_at), took: orDash(row.duration_seconds, took),
    error: row.error_message ?? row.error_type ?? "", changed: row.inserted === null ? "–" : count(row.inserted + row.updated + row.deleted),
  }));
  const failed = rows.filter((row) => ["failed", "orphaned"].includes(row.state)).length;
  const summary = rows.length ? `${count(rows.length)} runs of all jobs, ${count(failed)} of them failed or orphaned.` : "No run in this period.";
  const listed = rows.slice(0, LISTED_RUNS);
  return figure({
    title: "Runs by connection",
    note: "A mark for each run where it began; a triangle failed, a diamond ended without an end row.",
    summary: listed.length < rows.length ? `${summary} The table lists the newest ${LISTED_RUNS}.` : summary,
    rows,
    specification: () => timeline(rows, scope),
    legend: RUN_STATES.filter((state) => rows.some((row) => row.state === state)).map((state) => [RUN_MARKS[state], `mark-${state}`, state]),
    columns: [
      { title: "Started", show: (row) => row.started },
      { title: "Connection", show: (row) => row.connection },
      { title: "State", show: (row) => row.state },
      { title: "Took", show: (row) => row.took, kind: "number" },
      { title: "Rows changed", show: (row) => row.changed, kind: "number" },
      { title: "Run", show: (row) => row.run },
    ],
    listed,
  });
}

// Values by day, as bars or lines; all of them are in the data table.
function dayChart(scope, chart, { title, note, rows, seriesName = nameOf, order = names, name, format, nothing }) {
  const isSummed = chart === bars;
  const found = rows.filter((row) => scope.holds(row) && row[name])
    .map((row) => ({ day: row.activity_date, time: secondsOf(row.activity_date) * 1000, series: seriesName(row), value: row[name] }));
  const values = isSummed ? added(found) : found;
  const { drawn, series, left } = ranked(values, isSummed, order);
  const marks = drawn.map((row) => ({ ...row, text: format(row.value) }));
  const total = isSummed ? `${format(sum(values, "value"))} in all. ` : "";
  const peak = values.reduce((best, row) => (best === null || row.value > best.value ? row : best), null);
  return figure({
    title,
    note: left ? `${note} ${left} more connections are in the data table.` : note,
    summary: peak === null ? nothing : `${total}Highest: ${format(peak.value)}, ${peak.series}, ${peak.day}.`,
    rows: values,
    specification: () => chart(marks, scope, isSummed ? "~s" : "~g", series),
    legend: series.map((one) => [isSummed ? "■" : "●", `series-${one.colour}`, one.name]),
    columns: [
      { title: "Day", show: (row) => row.day },
      { title: "Of", show: (row) => row.series },
      { title: "Value", show: (row) => format(row.value), kind: "number" },
    ],
  });
}

function charts(scope) {
  drawing = [];
  clearCharts();
  const rate = (value) => `${decimal(value)} a second`;
  fill("activity", runsChart(scope), dayChart(scope, bars, {
    title: "Objects landed per day", note: "Object states by source and type, tombstones included.",
    rows: activity.filter((row) => row.object_type !== null), seriesName: (row) => `${row.source_system} ${row.object_type}`, order: null,
    name: "objects_landed", format: count, nothing: "No object landed in this period.",
  }), dayChart(scope, lines, {
    title: "Duration of a run", note: "Daily median of completed ingestion runs, in seconds.",
    rows: byDay, name: "median_seconds", format: took, nothing: "No ingestion completed in this period.",
  }), dayChart(scope, lines, {
    title: "Throughput", note: "Objects a second, over completed runs that landed any.",
    rows: byDay, name: "objects_per_second", format: rate, nothing: "No completed run landed objects in this period.",
  }));
  fill("cost", dayChart(scope, bars, {
    title: "API quota units per day", note: "What the requests cost; sources count units of their own.",
    rows: activity, name: "api_units", format: count, nothing: "No unit was spent in this period.",
  }), dayChart(scope, bars, {
    title: "BigQuery bytes billed per day", note: "Of the MERGE statements.",
    rows: byDay, name: "bytes_billed", format: bytes,
    nothing: content.warehouse === "bigquery" ? "No byte was billed in this period." : "This warehouse is DuckDB: nothing is billed.",
  }));
  for (const [chart, specification] of drawing) {
    draw(chart, specification()).catch((error) => {
      chart.textContent = "This chart could not be drawn; its data table has the figures.";
      console.error(error);
    });
  }
}

function errors(scope) {
  const failed = runs.filter((row) => scope.holds(row) && (row.error_message !== null || row.error_type !== null || row.state === "orphaned"));
  const shown = failed.slice(0, LATEST_ERRORS);
  fill("errors", listing(shown.length < failed.length ? `The newest ${shown.length} of ${count(failed.length)}` : `${count(failed.length)} in this period, the newest first`, [
    { title: "When", show: (row) => [ago(content.generated_at - row.started_at), element("small", {}, moment(row.started_at))], kind: "time" },
    { title: "Connection", show: (row) => element("span", { class: "name" }, nameOf(row)) },
    { title: "Error", show: (row) => row.error_type ?? row.state, kind: "fixed" },
    { title: "Step", show: (row) => row.step ?? "–", kind: "fixed" },
    { title: "Message", show: (row) => [row.error_message ?? "–", element("small", { class: "code" }, row.correlation_id)], kind: "long" },
  ], shown, "No run failed in this period."));
}

function deadLetters(scope) {
  const shown = letters.filter(scope.matches);
  const open = scope.key === ALL ? content.dead_letters.total : sum(connections.filter(scope.matches), "open_dead_letters");
  fill("letters", listing(shown.length < open ? `The newest ${count(shown.length)} of ${count(open)}, of any time` : `${count(open)}, of any time, the newest first`, [
    { title: "Connection", show: (row) => element("span", { class: "name" }, nameOf(row)) },
    { title: "Type", show: (row) => row.object_type },
    { title: "Id", show: (row) => element("span", { class: "name code" }, row.external_id ?? "–") },
    { title: "Reason", show: (row) => row.reason, kind: "long" },
    { title: "Attempts", show: (row) => count(row.attempts), kind: "number" },
    { title: "Age", show: (row) => duration(content.generated_at - row.created_at), kind: "number" },
  ], shown, "No dead letter is open: everything that was read is stored."));
}

function scopeOf(key, days) {
  const until = secondsOf(content.last_day) + DAY, from = until - days * DAY;
  const firstDay = dayOf(from);
  const matches = (row) => key === ALL || keyOf(row) === key;
  const holds = (row) => matches(row) && (row.activity_date === undefined ? row.started_at >= from : row.activity_date >= firstDay);
  return { key, days, from, until, matches, holds };
}

function show() {
  const scope = scopeOf(get("connection").value, Number(get("period").value));
  health(scope);
  figures(scope);
  charts(scope);
  errors(scope);
  deadLetters(scope);
  const chosen = (id) => get(id).selectedOptions[0].textContent;
  get("scope").textContent = `Showing ${chosen("connection")}, ${chosen("period").toLowerCase()}.`;
}

function offerFilters() {
  get("connection").append(element("option", { value: ALL }, "All connections"), ...keys.map(([key, name]) => element("option", { value: key }, name)));
  const length = (secondsOf(content.last_day) - secondsOf(content.first_day)) / DAY + 1;
  const offered = [...new Set([1, 7, 14, 30, 90].filter((days) => days < length).concat(length))];
  get("period").append(...offered.map((days) => element("option", { value: days }, days === 1 ? "Today" : `Last ${days} days`)));
  get("period").value = String(length);
  get("filters").addEventListener("change", show);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  get("filters").hidden = false;
}

function sayBounds() {
  const listed = content.runs.rows.length, total = content.runs.total;
  if (listed >= total) return;
  get("bounds").textContent = `This page holds the newest ${count(listed)} of ${count(total)} runs, back to ${moment(runs.at(-1).started_at)}:` +
    " the timeline, the median run and the errors are of these. All other figures are complete.";
  get("bounds").hidden = false;
}

get("snapshot").textContent = `Target ${content.target} (${content.warehouse === "bigquery" ? "BigQuery" : "DuckDB"}), as of ${moment(content.generated_at)}`;
if (connections.length || runs.length || letters.length) {
  const worst = connections.filter((row) => row.state !== "ok").length;
  if (worst) document.title = `${worst} not ok – ${document.title}`;
  offerFilters();
  sayBounds();
  get("report").hidden = false;
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
} else {
  get("empty").hidden = false;
}
