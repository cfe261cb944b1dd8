// The frame: which view is shown, and the stream that feeds it.
import { clock, html, render, useEffect, useState } from "./base.js";
import { OneRequest } from "./request.js";
import { Now, Predictor, Refusals, Why, Window } from "./views.js";
import { WhatIf } from "./whatif.js";

const VIEWS = { now: ["Now", Now], why: ["Why", Why], window: ["Window", Window],
  predictor: ["Predictor", Predictor], refusals: ["Refusals", Refusals], whatif: ["What if", WhatIf] };

function place() {
  const [name, id = ""] = location.hash.slice(1).split("/");
  return name === "request" ? { name, id: decodeURIComponent(id) } : { name: name in VIEWS ? name : "now", id: "" };
}

function useStream(name) {
  const [data, setData] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    setData(null);
    const stream = new EventSource(`/dashboard/events?view=${name}`);
    stream.onmessage = (event) => { setData(JSON.parse(event.data)); setProblem(""); };
    stream.onerror = () => setProblem("The connection is lost; trying again.");
    return () => stream.close();
  }, [name]);
  return [data && data.view === name ? data : null, problem];
}

function App() {
  const [at, setAt] = useState(place());
  useEffect(() => {
    const change = () => setAt(place());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  const shown = at.name === "request" ? "now" : at.name;
  const [data, problem] = useStream(shown);
  const title = at.name === "request" ? "One request" : VIEWS[at.name][0];
  useEffect(() => { document.title = `${title} · penstock`; }, [title]);
  const search = (event) => {
    event.preventDefault();
    location.hash = `request/${encodeURIComponent(new FormData(event.target).get("id").trim())}`;
  };
  const View = at.name === "request" ? null : VIEWS[at.name][1];
  const links = [...Object.entries(VIEWS).map(([name, [text]]) => [name, text]), ["request", "One request"]];
  return html`
    <header>
      <h1>penstock</h1>
      <nav aria-label="Views"><ul>
        ${links.map(([name, text]) => html`<li><a href=${`#${name}`} aria-current=${name === at.name ? "page" : null}>${text}</a></li>`)}
      </ul></nav>
      <form onSubmit=${search} role="search">
        <label for="id">Request</label>
        <input id="id" name="id" placeholder="x-penstock-id" autocomplete="off" spellcheck=${false} />
        <button>Show</button>
      </form>
    </header>
    <main>
      <p class="status" role="status">${problem ? html`<span class="bad">${problem}</span>` : data
        ? `${data.live ? "Live" : "The log as at its end"}, ${clock(data.at)}${data.draining ? ", draining" : ""}` : "…"}</p>
      ${at.name === "request" ? html`<${OneRequest} id=${at.id} />` : data ? html`<${View} data=${data} />` : html`<p class="soft">…</p>`}
    </main>`;
}

render(html`<${App} />`, document.getElementById("page"));
