// One request: what happened to it, and while it waits, what for and how long still.
import { Bar, html, seconds, useEffect, useState } from "./base.js";

const EVERY_MS = 2000;

export function OneRequest({ id }) {
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let timer = 0;
    let gone = false;
    setFound(null);
    setProblem("");
    async function look() {
      try {
        const answer = await fetch(`/dashboard/request?id=${encodeURIComponent(id)}`);
        if (gone) return;
        const body = await answer.json();
        if (answer.ok) setFound(body);
        else setProblem(`Nothing is known of ${id}: the sidecar remembers what waits or flies and the latest that have ended; the decision log has more.`);
        if (answer.ok && !body.ended && body.live) timer = setTimeout(look, EVERY_MS);
      } catch (error) {
        if (!gone) timer = setTimeout(look, EVERY_MS);
      }
    }
    if (id) look();
    return () => { gone = true; clearTimeout(timer); };
  }, [id]);
  if (!id) return html`<h2>One request</h2><p>Every answer carries its id in the header <code>x-penstock-id</code>.
    Enter it above, or choose a request in <a href="#now">Now</a>.</p>`;
  if (problem) return html`<h2>One request</h2><p class="bad" role="alert">${problem}</p>`;
  if (!found) return html`<h2>One request</h2><p class="soft">…</p>`;
  return html`<h2>Request ${id}</h2>
    <div class="answer" role="status">${found.summary.map((text) => html`<p>${text}</p>`)}</div>
    <${Bar} parts=${Object.entries(found.phases).filter(([, s]) => s > 0)} words=${found.words} />
    ${found.opening.map((text) => html`<p>${text}</p>`)}
    <ol class="steps">
      ${found.steps.map((step) => html`<li><span class="after">+${seconds(step.after_s)}</span>
        <div>${step.words.map((text) => html`<p>${text}</p>`)}</div></li>`)}
      ${!found.ended && html`<li><span class="after">+${seconds(found.age_s)}</span><div><p>It has not ended.</p></div></li>`}
    </ol>`;
}
