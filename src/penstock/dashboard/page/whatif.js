// What other configurations would have done: the shadow's latest answer.
import { Table, clock, count, html, seconds } from "./base.js";

const FIGURES = { met: ["deadlines met", (v) => `${(100 * v).toFixed(1)} %`, (v) => `${signed(100 * v, 1)} points`],
  p50_s: ["latency P50", seconds, (v) => `${signed(v, 2)} s`], p95_s: ["latency P95", seconds, (v) => `${signed(v, 2)} s`],
  refused: ["refused", (v) => `${(100 * v).toFixed(1)} %`, (v) => `${signed(100 * v, 1)} points`] };

const signed = (value, digits) => {
  const rounded = Number(value.toFixed(digits)); // what rounds to 0 has no minus
  return `${rounded < 0 ? "−" : "+"}${Math.abs(rounded).toFixed(digits)}`;
};
const known = (value, format) => (value === null ? "–" : format(value));

function title(group) {
  return group.kind === "all" ? "all calls" : `${group.kind} ${group.name || "(none)"}`;
}

// Against direct calls the sign turns: what penstock gained is what they would have lost.
function Gained({ groups }) {
  const met = groups[0].figures.met;
  if (met.change === null) return null;
  return html`<p>Against direct calls, penstock gained <strong>${signed(-100 * met.change, 1)} points</strong> of deadlines met
    (between ${signed(-100 * met.high, 1)} and ${signed(-100 * met.low, 1)}, 95 %)${met.sure ? "" : ": there may be no difference"}.</p>`;
}

function PolicyTable({ name, groups, trusted }) {
  if (typeof groups === "string") return html`<h3>${name}</h3><p class="bad">${groups}</p>`;
  const rows = groups.flatMap((group) => Object.entries(FIGURES).map(([key, [text, format, change]]) => {
    const figure = group.figures[key];
    return [title(group), text, known(figure.real, format), known(figure.now, format), known(figure.then, format), known(figure.change, change),
      figure.low === null ? "–" : `${change(figure.low)} to ${change(figure.high)}`, figure.sure ? (trusted ? "yes" : "a hint") : "may be none"];
  }));
  return html`<h3>${name}</h3>
    <${Table} caption=${`${count(groups[0].calls)} calls under ${name}`}
      head=${["calls", "figure", "really #", "twin #", "what if #", "change #", "95 % interval #", "certain?"]} rows=${rows} />`;
}

export function WhatIf({ data }) {
  const report = data.report;
  if (!report) {
    return html`<h2>What if</h2><p>Nobody has asked yet. With <code>shadow.enabled</code> the sidecar asks by itself what other
      configurations would have done; <code>penstock whatif LOG --policy FILE</code> asks about a log.</p>`;
  }
  if (report.soon) return html`<h2>What if</h2><p>${report.soon}</p>`;
  if (report.problem) return html`<h2>What if</h2><p class="bad">${report.problem}</p>`;
  const { direct, ...others } = report.policies;
  return html`<h2>What if</h2>
    <p>The latest ${count(report.calls)} calls, from ${clock(report.from_unix_s)} to ${clock(report.until_unix_s)}, run again by the
      scheduler against a model of the provider that was fitted to them.</p>
    ${report.trusted ? html`<p class="good">The model tells what really happened within 2 points and 15 %.</p>`
      : report.because.map((why) => html`<p class="bad">Not to be trusted here, because ${why}.</p>`)}
    ${report.trusted && typeof direct !== "string" && html`<${Gained} groups=${direct} />`}
    ${Object.entries(others).map(([name, groups]) => html`<${PolicyTable} name=${name} groups=${groups} trusted=${report.trusted} />`)}
    <${PolicyTable} name="direct calls" groups=${direct} trusted=${report.trusted} />`;
}
