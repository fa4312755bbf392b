// A table of an answer: sorted by pressing a heading, cells coloured and linked as the dashboard file says. It is
// also what every chart shows on demand, for those who cannot read it or want the exact numbers.

import { el } from './dom.js';
import { fieldsOf } from './fields.js';
import { linkOf } from './links.js';

/** More rows than this nobody reads; the rest is said, and is in the SQL. */
const ROWS_MAX = 500;

/** What each panel's table was last sorted by: a refresh keeps it. */
const sorted = new WeakMap();

function compare(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? -1 : 1;
  return typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true });
}

function cell(field, row, fields) {
  const value = field.values[row];
  const kind = field.custom.cellOptions?.type ?? 'auto';
  const link = linkOf(field, row, fields, field.label, value);
  const text = field.text(value);
  const inner = link ? el('a', { href: link.href, title: link.title }, text) : text;
  const attributes = { class: field.type === 'number' ? 'number' : '', title: field.type === 'number' ? field.exact(value) : null };
  if (kind === 'color-background' && field.step(value)) attributes.style = { 'box-shadow': `inset 3px 0 0 ${field.colourOf(value)}` };
  if (kind === 'color-text' || kind === 'color-background') attributes.style = { ...attributes.style, color: field.colourOf(value) };
  if (kind !== 'gauge' || typeof value !== 'number') return el('td', attributes, inner);
  const [min, max] = field.limits();
  const share = Math.max(0, Math.min(1, (value - min) / (max - min)));
  return el('td', attributes, el('span', { class: 'cellbar' }, el('span', { style: { width: `${(share * 100).toFixed(1)}%`, background: field.colourOf(value) } })), inner);
}

/** Shows the fields as a table; `exactly` prints all digits. */
export function tableOf(panel, frames, body, { exactly = false } = {}) {
  const parts = fieldsOf(exactly ? { ...panel, kind: 'table' } : panel, frames).map((fields) => {
    const shown = fields.filter((field) => !field.hidden);
    const count = Math.max(0, ...fields.map((field) => field.values.length));
    const known = sorted.get(body) ?? startOf(panel, shown);
    const by = shown.find((field) => field.label === known?.label);
    const order = Array.from({ length: count }, (_, row) => row);
    if (by) order.sort((a, b) => compare(by.values[a], by.values[b]) * (known.down ? -1 : 1));
    const head = shown.map((field) => {
      const direction = by === field ? (known.down ? 'descending' : 'ascending') : 'none';
      const press = () => { sorted.set(body, { label: field.label, down: by === field ? !known.down : field.type === 'number' }); tableOf(panel, frames, body, { exactly }); };
      return el('th', { scope: 'col', 'aria-sort': direction, class: field.type === 'number' ? 'number' : '' }, el('button', { type: 'button', onclick: press }, field.label, el('span', { 'aria-hidden': 'true', class: 'sort' }, direction === 'none' ? '' : known.down ? '▾' : '▴')));
    });
    const rows = order.slice(0, ROWS_MAX).map((row) => el('tr', {}, ...shown.map((field) => (exactly ? el('td', { class: field.type === 'number' ? 'number' : '' }, field.exact(field.values[row])) : cell(field, row, fields)))));
    return [
      el('table', {}, el('caption', { class: 'unseen' }, panel.title ?? 'table'), el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)),
      count > ROWS_MAX && el('p', { class: 'quiet' }, `${count - ROWS_MAX} more rows; press SQL to ask for them`),
    ];
  });
  body.replaceChildren(el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${panel.title ?? 'Panel'}: table` }, ...parts.flat()));
}

/** The order that the dashboard file asks for. */
function startOf(panel, fields) {
  const first = panel.options?.sortBy?.[0];
  const field = first && fields.find((one) => one.label === first.displayName || one.name === first.displayName);
  return field ? { label: field.label, down: Boolean(first.desc) } : null;
}
