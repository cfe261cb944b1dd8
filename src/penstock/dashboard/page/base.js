// What all views share: the libraries, formats, and the page's data.
export const html = htm.bind(preact.h);
export const { render } = preact;
export const { useEffect, useRef, useState } = preactHooks;

export const CAUSES = ["class", "window", "limits", "upstream", "deferral", "backoff"];

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 3600) return `${(value / 3600).toFixed(1)} h`;
  if (size >= 120) return `${(value / 60).toFixed(1)} min`;
  return `${value.toFixed(size < 10 ? 2 : 1)} s`;
}

export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function rate(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)}/s`;
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;
}

export function limit(value) {
  return value === null || value === undefined ? "no limit" : Number(value.toPrecision(3)).toString();
}

export function clock(unixS) {
  return new Date(unixS * 1000).toLocaleTimeString([], { hour12: false });
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function RequestLink({ id }) {
  return html`<a href=${`#request/${encodeURIComponent(id)}`}>${id}</a>`;
}

// A table that scrolls by itself where the screen is narrow; by keyboard as well.
export function Table({ caption, head, rows, empty }) {
  if (!rows.length) return html`<p class="soft">${empty}</p>`;
  const numeric = head.map((each) => each.endsWith(" #"));
  const kind = (index) => (numeric[index] ? "number" : "");
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption>${caption}</caption>
      <thead><tr>${head.map((each, i) => html`<th scope="col" class=${kind(i)}>${each.replace(/ #$/, "")}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`<tr>${row.map((cell, i) => html`<td class=${kind(i)}>${cell}</td>`)}</tr>`)}</tbody>
    </table>
  </div>`;
}

// Parts of a whole as one bar, with a legend that says the same in words.
export function Bar({ parts, words, show = seconds }) {
  const total = parts.reduce((sum, [, value]) => sum + value, 0);
  if (!total) return null;
  return html`<div class="bar" aria-hidden="true">
      ${parts.map(([name, value]) => html`<span style=${{ background: `var(--${name})`, flexGrow: value, flexBasis: 0 }}></span>`)}
    </div>
    <ul class="legend">
      ${parts.map(([name, value]) => html`<li><span class="dot" style=${{ background: `var(--${name})` }}></span>${show(value)}${" "}
        <span class="soft">${words[name] || name}</span></li>`)}
    </ul>`;
}
