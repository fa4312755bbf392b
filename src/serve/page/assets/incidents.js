// The incident list: what fires now, since when, how far from normal, and the cause that was found. Above it, an
// edit of the alert files that is not in force.

import { el, put, safeHref } from './dom.js';
import { format, moment, age } from './units.js';

/** Ratios are told in per cent, everything else in its own unit. */
const UNIT = { ratio: 'percentunit', ms: 'ms', bps: 'bps', 'bytes/s': 'Bps', count: 'short' };
const told = (value, unit) => format(value, UNIT[unit] ?? (unit ? `suffix: ${unit}` : ''), null);
const dims = (values) => Object.entries(values ?? {}).map(([name, value]) => [name, value ?? 'unknown']);
const STATUS = { firing: 'Firing', recovering: 'Recovering', pending: 'Pending', resolved: 'Resolved' };

function cause(incident) {
  const first = incident.cause?.[0];
  if (!first) return incident.cause_answer && incident.cause_answer !== 'found' ? { none: 'No single segment explains it' } : null;
  return { where: dims(first.dims), share: first.share, now: first.now, before: first.before, others: incident.cause.slice(1) };
}

function causeLine(incident) {
  const found = cause(incident);
  if (!found) return null;
  if (found.none) return el('p', { class: 'cause' }, found.none);
  const values = found.now === null || found.now === undefined ? '' : `: ${told(found.now, incident.unit)}${found.before === null || found.before === undefined ? '' : `, before ${told(found.before, incident.unit)}`}`;
  return el('p', { class: 'cause' }, 'Cause: ', ...found.where.flatMap(([name, value], index) => [index > 0 && ' with ', el('b', {}, `${name} ${value}`)]), ` explains ${Math.round((found.share ?? 0) * 100)} % of it${values}`);
}

function against(incident) {
  const value = told(incident.value, incident.unit);
  const usual = incident.baseline?.value;
  if (usual !== undefined && usual !== null) return el('span', { class: 'against' }, el('b', {}, value), el('small', {}, ` usually ${told(usual, incident.unit)}`));
  const { op = '>', value: limit, test } = incident.threshold ?? {};
  const isPlain = limit !== undefined && (test === undefined || test === 'value');
  return el('span', { class: 'against' }, el('b', {}, value), isPlain && el('small', {}, ` limit ${op} ${told(limit, incident.unit)}`));
}

function row(incident, nowMs) {
  const where = dims(incident.dims).map(([name, value]) => el('span', { class: 'dim' }, el('i', {}, name), value));
  const since = Date.parse(incident.starts_at);
  const until = incident.ends_at ? Date.parse(incident.ends_at) : nowMs;
  const link = incident.dashboard && safeHref(incident.dashboard);
  const title = incident.summary || incident.alert;
  return el('li', { class: `incident ${incident.status} ${incident.severity}`, 'data-incident': incident.episode_id },
    el('span', { class: 'status' }, STATUS[incident.status] ?? incident.status, incident.severity && el('small', {}, incident.severity)),
    el('div', { class: 'what' }, el('p', { class: 'title' }, link ? el('a', { href: link }, title) : title, ' ', ...where), causeLine(incident)),
    against(incident),
    el('span', { class: 'since' }, el('time', { datetime: incident.starts_at, title: `${moment(since)} UTC` }, moment(since, nowMs - since > 43_200_000)), el('small', {}, incident.ends_at ? ` for ${age(until - since)}` : ` ${age(until - since)}`)));
}

let shownKey = null;

/** Draws the list anew if it says something else than before: a screen reader would read it out each time. */
export function showIncidents(section, { incidents, now_ms: nowMs, refused_alerts: refused }, uid) {
  const open = incidents.filter((one) => one.status !== 'resolved');
  const past = incidents.filter((one) => one.status === 'resolved');
  const key = JSON.stringify([uid, refused, incidents.map((one) => [one.episode_id, one.status, one.value, one.cause]), Math.floor(nowMs / 60_000)]);
  if (key === shownKey) return;
  shownKey = key;
  const wasOpen = section.querySelector('details')?.open ?? false;
  const last = past[0];
  section.dataset.open = String(open.length);
  put(section,
    refused && el('div', { class: 'refused', id: 'refused-alerts' }, el('p', {}, el('b', {}, 'An edit of the alert files is not in force.'), ' The rules before it stay. What is to be put right:'), el('pre', {}, refused)),
    open.length ? el('ul', {}, ...open.map((one) => row(one, nowMs))) : el('p', { class: 'calm' }, el('span', { class: 'dot' }), 'No incident is open', last && el('span', { class: 'quiet' }, ` · last: ${last.summary || last.alert}, until ${moment(Date.parse(last.ends_at ?? last.starts_at))}`)),
    past.length > 0 && el('details', { class: 'past', open: wasOpen }, el('summary', {}, `${past.length} resolved`), el('ul', {}, ...past.map((one) => row(one, nowMs)))),
  );
  document.title = open.length ? `(${open.length}) ${document.title.replace(/^\(\d+\) /, '')}` : document.title.replace(/^\(\d+\) /, '');
}
