// Panels that need no chart library: stat, gauge, bar gauge, country list, text.

import { el, svg, safeHref, token } from './dom.js';
import { parts } from './units.js';
import { readings, fieldsOf } from './fields.js';
import { linkOf } from './links.js';

/** A value with its unit set smaller; hovering gives all digits. */
function figure(reading) {
  const { field, value } = reading;
  const mapped = field.mapping(value)?.text;
  const { text, suffix } = mapped || value === null ? { text: mapped ?? field.config.noValue ?? '–', suffix: '' } : parts(value, field.unit, field.decimals);
  return el('span', { class: 'figure', title: field.exact(value), 'data-value': value ?? '' }, text, suffix && el('small', {}, suffix));
}

function linked(reading, panel, node) {
  const href = linkOf(reading.field, reading.row ?? 0, reading.fields, reading.label, reading.value);
  return href ? el('a', { href: href.href, title: href.title, class: 'plain' }, node) : node;
}

export function stat(panel, frames, body) {
  const { graphMode = 'area', colorMode = 'value', textMode = 'auto' } = panel.options ?? {};
  const all = readings(panel, frames);
  const tiles = all.map((reading) => {
    const tint = reading.field.colourOf(reading.value);
    const style = colorMode === 'background' || colorMode === 'background_solid' ? { background: tint, color: token('--on-tint') } : colorMode === 'value' ? { color: tint } : {};
    const named = textMode === 'value_and_name' || (textMode === 'auto' && all.length > 1);
    const hasTrend = graphMode !== 'none' && Boolean(reading.trend);
    return el('div', { class: `stat${hasTrend ? ' trend' : ''}`, style },
      named && el('div', { class: 'name' }, reading.label),
      linked(reading, panel, figure(reading)),
      hasTrend && spark(reading.trend, tint));
  });
  body.replaceChildren(el('div', { class: 'stats' }, ...tiles));
}

/** The way of a value over the range, without axes: only its shape matters here. */
function spark(values, tint) {
  const numbers = values.filter((value) => typeof value === 'number');
  if (numbers.length < 2) return null;
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const height = high - low || 1;
  const points = values
    .map((value, index) => (typeof value === 'number' ? [(index / (values.length - 1)) * 100, 30 - ((value - low) / height) * 26 - 2] : null))
    .filter(Boolean);
  const line = points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(' L');
  const area = `M${points[0][0].toFixed(2)},30 L${line} L${points.at(-1)[0].toFixed(2)},30 Z`;
  return svg('svg', { class: 'spark', viewBox: '0 0 100 30', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('path', { d: area, fill: tint, opacity: '0.14' }),
    svg('path', { d: `M${line}`, fill: 'none', stroke: tint, 'stroke-width': '1.5', 'vector-effect': 'non-scaling-stroke' }));
}

const clamp = (share) => Math.max(0, Math.min(1, share));

/** A point of the gauge's arc, which leaves a quarter open below. */
function arc(share, radius) {
  const angle = Math.PI * (0.75 + 1.5 * clamp(share));
  return [50 + radius * Math.cos(angle), 50 + radius * Math.sin(angle)];
}

function arcPath(from, to, radius) {
  const [x0, y0] = arc(from, radius);
  const [x1, y1] = arc(to, radius);
  return `M${x0.toFixed(2)},${y0.toFixed(2)} A${radius},${radius} 0 ${(to - from) * 1.5 > 1 ? 1 : 0} 1 ${x1.toFixed(2)},${y1.toFixed(2)}`;
}

export function gauge(panel, frames, body) {
  const tiles = readings(panel, frames).map((reading) => {
    const [min, max] = reading.field.limits();
    const share = clamp(((reading.value ?? min) - min) / (max - min));
    const tint = reading.field.colourOf(reading.value);
    const marks = reading.field.steps().filter((step) => step.from > min && step.from < max);
    return el('div', { class: 'gauge' },
      svg('svg', { viewBox: '0 0 100 88', 'aria-hidden': 'true' },
        svg('path', { d: arcPath(0, 1, 40), class: 'track' }),
        svg('path', { d: arcPath(0, Math.max(share, 0.002), 40), class: 'fill', stroke: tint }),
        ...marks.map((step) => { const at = clamp((step.from - min) / (max - min)); return svg('path', { d: arcPath(Math.max(0, at - 0.004), Math.min(1, at + 0.004), 47), class: 'mark', stroke: step.colour }); })),
      linked(reading, panel, figure(reading)),
      el('div', { class: 'name' }, reading.label));
  });
  body.replaceChildren(el('div', { class: 'stats' }, ...tiles));
}

function bars(all, panel) {
  const rows = all.map((reading) => {
    const [min, max] = reading.field.limits();
    const most = (reading.field.config.max ?? null) === null ? Math.max(...all.map((other) => other.value ?? 0), min + Number.EPSILON) : max;
    const share = clamp(((reading.value ?? min) - min) / (most - min || 1));
    return el('li', {},
      el('span', { class: 'name', title: reading.label }, linked(reading, panel, reading.label)),
      el('span', { class: 'track' }, el('span', { class: 'fill', style: { width: `${(share * 100).toFixed(1)}%`, background: reading.field.colourOf(reading.value) } })),
      figure(reading));
  });
  return el('ul', { class: 'bars' }, ...rows);
}

export function bargauge(panel, frames, body) {
  body.replaceChildren(bars(readings(panel, frames), panel));
}

/** Where a map would need files from elsewhere: countries by value, the largest first. */
export function geomap(panel, frames, body) {
  const all = [];
  for (const fields of fieldsOf(panel, frames)) {
    const name = fields.find((field) => field.type === 'text');
    const number = fields.find((field) => field.type === 'number' && !field.hidden);
    number?.values.forEach((value, row) => all.push({ label: name?.values[row] ?? 'unknown', value, field: number, row, fields }));
  }
  all.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
  body.replaceChildren(bars(all.slice(0, 60), panel));
}

/** Headings, lists, emphasis, code and links: what dashboards use of Markdown. */
export function prose(content) {
  const blocks = [];
  let list = null;
  for (const line of content.split('\n')) {
    const item = /^\s*[-*]\s+(.*)/.exec(line);
    const heading = /^(#{1,4})\s+(.*)/.exec(line);
    if (item) { if (!list) blocks.push((list = el('ul'))); list.append(el('li', {}, ...inline(item[1]))); continue; }
    list = null;
    if (heading) blocks.push(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])));
    else if (line.trim()) blocks.push(el('p', {}, ...inline(line)));
  }
  return el('div', { class: 'prose' }, ...blocks);
}

export function text(panel, frames, body) {
  body.replaceChildren(prose(String(panel.options?.content ?? '')));
}

function inline(line) {
  return line.split(/(\*\*[^*]+\*\*|`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).filter(Boolean).map((piece) => {
    const link = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(piece);
    if (link) return el('a', { href: safeHref(link[2]) }, link[1]);
    if (piece.startsWith('**') && piece.length > 4) return el('strong', {}, piece.slice(2, -2));
    if (piece.startsWith('`') && piece.length > 2) return el('code', {}, piece.slice(1, -1));
    return piece;
  });
}
