// uPlot charts. Each stands beside a table that says the same for those who cannot see it.
import { CAUSES, clock, colour, html, useEffect, useRef, useState } from "./base.js";

function useDark() {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const change = (event) => setDark(event.matches);
    query.addEventListener("change", change);
    return () => query.removeEventListener("change", change);
  }, []);
  return dark;
}

// 24 hours and the date as in ISO 8601, as everywhere on the page; uPlot's own are 10:22pm and 11/29/26.
const WHOLE = [1, 2, 5].flatMap((step) => [0, 1, 2, 3, 4, 5].map((zeros) => step * 10 ** zeros)).sort((a, b) => a - b);
const DAY = "\n{YYYY}-{MM}-{DD}";
const TIMES = [[86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
  [60, "{HH}:{mm}", DAY, null, DAY, null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", DAY, null, DAY, null, null, null, 1]];

function Chart({ label, options, data }) {
  const place = useRef(null);
  const chart = useRef(null);
  const dark = useDark();
  const shape = `${dark}|${options.series.map((each) => each.label).join("|")}`;
  useEffect(() => {
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    const size = () => ({ width: place.current.clientWidth, height: 240 });
    chart.current = new uPlot(
      { ...size(), ...options, axes: [{ ...axis, values: TIMES, space: 80 }, { ...axis, size: 56, ...options.axis }] }, data, place.current);
    const observer = new ResizeObserver(() => chart.current.setSize(size()));
    observer.observe(place.current);
    return () => { observer.disconnect(); chart.current.destroy(); };
  }, [shape]);
  useEffect(() => chart.current.setData(data), [data]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}

export function WaitsChart({ times, waits, words }) {
  const causes = CAUSES.filter((cause) => waits[cause]);
  const stacked = [];
  causes.forEach((cause, i) => stacked.push(waits[cause].map((value, at) => value + (i ? stacked[i - 1][at] : 0))));
  const series = [{ value: (_, at) => (at === null ? "" : clock(at)) }];
  // The tallest first, so that each lower one is painted over it: what shows of each is its own part.
  const order = causes.map((_, i) => causes.length - 1 - i);
  order.forEach((i) => series.push({
    label: words[causes[i]], stroke: colour(causes[i]), fill: colour(causes[i]), width: 1,
    points: { show: false },
    value: (_chart, _value, _series, at) => (at === null ? "" : `${waits[causes[i]][at].toFixed(1)} s`),
  }));
  const options = { series, axis: { values: (_, ticks) => ticks.map((tick) => `${tick} s`) }, legend: { show: false } };
  return html`<${Chart} label="Seconds of waiting over time, by cause; the table below has the sums"
    options=${options} data=${[times, ...order.map((i) => stacked[i])]} />`;
}

export function WindowChart({ moves, now }) {
  const names = [...new Set(moves.map((move) => move.upstream))];
  const forward = [...moves].reverse();
  // A moment before the first move, so that the line begins at what held until then.
  const times = [forward[0].at - 0.001, ...new Set(forward.map((move) => move.at)), now];
  const rows = names.map((name) => {
    const byTime = new Map(forward.filter((move) => move.upstream === name).map((move) => [move.at, move.after]));
    let last = forward.find((move) => move.upstream === name).before;
    return times.map((at) => (last = byTime.has(at) ? byTime.get(at) : last));
  });
  const palette = ["backoff", "window", "provider", "class", "limits", "tokens"];
  const options = {
    series: [{ value: (_, at) => (at === null ? "" : clock(at)) }, ...names.map((name, i) => ({
      label: name, stroke: colour(palette[i % palette.length]), width: 2, points: { show: false },
      paths: uPlot.paths.stepped({ align: 1 }),
    }))],
    axis: { incrs: WHOLE },
    scales: { y: { range: (_, low, high) => [0, (high || 1) * 1.1] } },
  };
  return html`<${Chart} label="Concurrency limit of each upstream over time; the table below has every move"
    options=${options} data=${[times, ...rows]} />`;
}
