// Each view is a function of the data that the server worked out; nothing is computed twice.
import { Bar, RequestLink, Table, clock, count, html, limit, percent, rate, seconds, useState } from "./base.js";
import { WaitsChart, WindowChart } from "./charts.js";

const sum = (values) => Object.values(values).reduce((total, value) => total + value, 0);
const byValue = (values) => Object.entries(values).sort((a, b) => b[1] - a[1]);

function health(upstream, live) {
  if (upstream.paused_s === undefined) return "–";
  const lines = byValue(upstream.pauses).map(([text, n]) => `${n} circuit${n > 1 ? "s" : ""} ${text.replace("_", "-")}`);
  const lift = live && lines.length > 0 && html`<${Lift} name=${upstream.name} />`;
  if (upstream.paused_s > 0) lines.unshift(`paused for ${seconds(upstream.paused_s)}`);
  else if (upstream.probation) lines.unshift("on probation");
  if (!lines.length) return html`<span class="good">in use</span>`;
  return html`${lines.map((line) => html`<div class="bad">${line}</div>`)}${lift}`;
}

// The one thing that the page may change; the server refuses it where no admin token is asked for.
function Lift({ name }) {
  const [said, setSaid] = useState("");
  const lift = async () => {
    const answer = await fetch(`/admin/upstreams/${encodeURIComponent(name)}/lift`, { method: "POST" });
    setSaid(answer.ok ? "lifted" : await answer.text());
  };
  return html`<button onClick=${lift}>End the pause of ${name}</button> <span role="status">${said}</span>`;
}

function slack(value) {
  return value !== null && value < 0 ? html`<span class="bad">${seconds(value)}</span>` : seconds(value);
}

function causes(row, words) {
  return byValue(row.causes).map(([cause, n]) => html`<div>${count(n)}: ${words[cause] || "not told by a log"}</div>`);
}

function ends(row, words) {
  return byValue(row.ended).map(([result, n]) =>
    html`<div class=${result === "completed" ? "good" : "bad"}>${count(n)} ${words[result] || result}</div>`);
}

export function Now({ data }) {
  const words = data.words;
  const tenants = data.classes.flatMap((row) => row.tenants.map((tenant) => [row.name, tenant]));
  const waiting = data.classes.reduce((total, row) => total + row.waiting, 0);
  const flying = data.upstreams.reduce((total, each) => total + each.in_flight, 0);
  return html`
    <div class="answer"><p>${count(waiting)} waiting, ${count(flying)} in flight, severity
      ${" "}${data.severity.toFixed(2)} (0 idle, 1 overloaded).</p>
      <p>Is a call of yours slow? Enter its id (the answer's header <code>x-penstock-id</code>) above,
      or choose one from the lists below.</p></div>
    <h2>Upstreams</h2>
    <${Table} caption="How much may be in flight at each upstream" empty="Nothing has been sent yet."
      head=${data.columns.upstreams}
      rows=${data.upstreams.map((each) => [each.name, count(each.in_flight),
        html`<a href="#window">${limit(each.window)}</a>`, health(each, data.live),
        each.slowdown === undefined ? "–" : `+${(100 * each.slowdown).toFixed(0)} %`])} />
    ${data.pins.length > 0 && html`<h2>Held by hand</h2>
    <${Table} caption="Pins outrank what is learnt or configured, and end by themselves"
      head=${data.columns.pins}
      rows=${data.pins.map((pin) => [pin.what, pin.name, pin.what === "pause" ? "–" : limit(pin.value), seconds(pin.left_s)])} />`}
    ${data.fallbacks.length > 0 && html`<h2>Gone on to another model</h2>
    <${Table} caption="Requests since the start, by the rules of [[fallbacks]]"
      head=${data.columns.fallbacks}
      rows=${data.fallbacks.map((row) => [count(row.requests), row.model || "(any)", row.to, `${row.reason}: ${row.words}`])} />`}
    <h2>Classes</h2>
    <${Table} caption=${`Rates and ends over the last ${seconds(data.rates_over_s)}`} empty="Nothing waits, and none has come lately."
      head=${data.columns.classes}
      rows=${data.classes.map((row) => [row.name, count(row.waiting), count(row.in_flight), seconds(row.oldest_s),
        slack(row.slack_s), rate(row.arrived_per_s), rate(row.sent_per_s), causes(row, words.waits), ends(row, words.results)])} />
    ${tenants.length > 0 && html`<h2>Tenants that wait</h2>
    <${Table} caption="The tenants with the most waiting requests, of each class"
      head=${data.columns.tenants}
      rows=${tenants.map(([name, row]) => [name, row.name || "(none)", count(row.waiting), seconds(row.oldest_s), slack(row.slack_s)])} />`}
    ${data.turned_away.length > 0 && html`<h2>Never scheduled</h2>
    <${Table} caption="Answered with an error since the start; the answer says why (401: no key was sent)"
      head=${data.columns.turned_away}
      rows=${data.turned_away.map((row) => [count(row.requests), row.status, row.path])} />`}
    <h2>Waiting longest</h2>
    <${Table} caption="Choose one to see what it waits for" empty="Nothing waits."
      head=${data.columns.longest_waiting}
      rows=${data.longest_waiting.map((row) => [html`<${RequestLink} id=${row.id} />`, row.traffic_class, row.tenant || "–", seconds(row.waited_s)])} />
    <${Slowest} data=${data} title="Slowest of the last 15 minutes" />`;
}

function Slowest({ data, title }) {
  return html`<h2>${title}</h2>
    <${Table} caption="Choose one to see where its time went" empty="None has ended."
      head=${data.columns.slowest}
      rows=${data.slowest.map((row) => [html`<${RequestLink} id=${row.id} />`, seconds(row.latency_s),
        html`<div class="cause">${row.mostly}</div>`, seconds(row.queued_s), row.traffic_class,
        data.words.results[row.result] || row.result])} />`;
}

export function Why({ data }) {
  const words = data.words.waits;
  const totals = Object.entries(data.waits).map(([cause, values]) => [cause, sum(values)]).filter(([, s]) => s > 0);
  const classes = Object.entries(data.by_class);
  const now = data.waiting_now && byValue(data.waiting_now);
  return html`
    <h2>Seconds of waiting, by cause</h2>
    ${totals.length === 0 && html`<p class="soft">No request has waited.</p>`}
    ${totals.length > 0 && html`<${WaitsChart} times=${data.times} waits=${data.waits} words=${words} />
    <p class="soft">Each point of the chart is the sum over ${seconds(data.span_s)}.</p>
    <${Bar} parts=${totals} words=${words} />
    <${Table} caption="Seconds waited by class; counted when a request is sent or refused, or its caller leaves"
      head=${["because", ...classes.map(([name]) => `${name} #`)]}
      rows=${totals.map(([cause]) => [words[cause], ...classes.map(([, row]) => seconds(row[cause] || 0))])} />`}
    ${now && html`<h2>What waits now</h2>
    <${Table} caption="Requests by what they wait for" empty="Nothing waits." head=${["requests #", "because"]}
      rows=${now.map(([cause, n]) => [count(n), words[cause]])} />`}
    <${Slowest} data=${data} title="The slowest" />`;
}

export function Window({ data }) {
  const evidence = (move) => Object.entries(move.evidence).map(([name, value]) => `${name} ${value === null ? "∞" : Number(value.toPrecision(4))}`).join(", ");
  return html`<h2>Concurrency limits</h2>
    <p>penstock allows so many requests in flight at each upstream; it finds the number from replies, and this is every move of it.</p>
    ${data.moves.length > 0 && html`<${WindowChart} moves=${data.moves} now=${data.now} />`}
    <${Table} caption="Newest first" empty="No window has moved." head=${["time", "upstream", "from #", "to #", "because", "evidence"]}
      rows=${data.moves.map((move) => [clock(move.at), move.upstream, limit(move.before), limit(move.after),
        html`${move.because}: ${move.words}`, evidence(move)])} />`;
}

export function Predictor({ data }) {
  return html`<h2>Token estimates</h2>
    <p>Of good estimates nine in ten replies stay within the p90, and of two replies the longer one was expected to be longer.</p>
    <${Table} caption="Over each route's last replies" empty="No reply has said its usage yet."
      head=${["route", "replies #", "within the p90 #", "pairs in the right order #", "in the predicted bucket #"]}
      rows=${data.routes.filter((row) => row.replies).map((row) => [row.route || "(none named)", count(row.replies),
        percent(row.p90_coverage), percent(row.pair_ranking), percent(row.bucket_accuracy)])} />`;
}

export function Refusals({ data }) {
  return html`<h2>Refusals</h2>
    <${Table} caption="How many, by reason" empty="Nothing was refused."
      head=${["requests #", "class", "rung", "reason"]}
      rows=${data.counts.map((row) => [count(row.requests), row.traffic_class, row.rung, `${row.reason}: ${row.words}`])} />
    ${data.latest.length > 0 && html`<h2>The latest</h2>
    <${Table} caption="Newest first" head=${["time", "request", "class", "tenant", "reason", "rung", "cost #", "severity #", "waited #", "try again after #"]}
      rows=${data.latest.map((row) => [clock(row.at), html`<${RequestLink} id=${row.id} />`, row.traffic_class, row.tenant || "–", row.reason,
        row.rung, count(row.cost_tokens), row.severity.toFixed(2), seconds(row.waited_s), row.retry_after_s === null ? "never" : seconds(row.retry_after_s)])} />`}`;
}
