// Range, refresh and variables: native controls, so that a keyboard, a phone and a screen reader know them.

import { el } from './dom.js';
import { query, range, change, chosen } from './state.js';
import { moment } from './units.js';

export const ALL = '$__all';
const QUICK = [['now-5m', '5 minutes'], ['now-15m', '15 minutes'], ['now-30m', '30 minutes'], ['now-1h', '1 hour'], ['now-3h', '3 hours'], ['now-6h', '6 hours'], ['now-12h', '12 hours'], ['now-24h', '24 hours'], ['now-2d', '2 days'], ['now-7d', '7 days'], ['now-30d', '30 days']];
const REFRESHES = [['live', 'Live'], ['10s', '10 s'], ['30s', '30 s'], ['1m', '1 min'], ['5m', '5 min'], ['off', 'Off']];

/** `2026-11-21T18:30` of a field that asks for UTC, in epoch milliseconds. */
const ofField = (text) => Date.parse(`${text}Z`);
const toField = (ms) => new Date(ms).toISOString().slice(0, 19);
const nameOf = ({ from, to }) => {
  const quick = to === 'now' && QUICK.find(([value]) => value === from);
  if (quick) return `Last ${quick[1]}`;
  const told = (text) => (/^\d+$/.test(text) ? moment(Number(text)) : text);
  return `${told(from)} – ${told(to)}`;
};

/** The range: quick ones, and a form for two moments. */
export function rangePicker(dashboard, resolved, onChange) {
  const now = range(dashboard);
  const choose = (from, to) => { change({ from, to }); onChange(); };
  const edge = (label, ms) => el('label', {}, `${label} (UTC)`, el('input', { type: 'datetime-local', step: '1', value: ms ? toField(ms) : null, required: true }));
  const [from, to] = [edge('From', resolved?.from_ms), edge('To', resolved?.to_ms)];
  const form = el('form', { onsubmit: (event) => {
    event.preventDefault();
    const [start, end] = [from, to].map((label) => ofField(label.querySelector('input').value));
    to.querySelector('input').setCustomValidity(start < end ? '' : 'The end lies before the start');
    if (event.target.reportValidity()) choose(String(start), String(end));
  } }, from, to, el('button', { type: 'submit', class: 'strong' }, 'Show'));
  const span = resolved && resolved.to_ms - resolved.from_ms;
  const step = (sign, label, shift) => el('button', { type: 'button', class: 'icon', 'aria-label': label, title: label, disabled: !span, onclick: () => { const [start, end] = shift(resolved.from_ms, resolved.to_ms, span); choose(String(Math.round(start)), String(Math.round(end))); } }, sign);
  const menu = el('details', { class: 'menu', name: 'menu' },
    el('summary', { 'aria-label': `Time range: ${nameOf(now)}` }, nameOf(now)),
    el('div', { class: 'sheet range' },
      el('div', { class: 'quick' }, ...QUICK.map(([value, label]) => el('button', { type: 'button', 'aria-current': now.to === 'now' && now.from === value ? 'true' : null, onclick: () => choose(value, 'now') }, `Last ${label}`))),
      form));
  return el('div', { class: 'group', role: 'group', 'aria-label': 'Time range' },
    step('‹', 'Earlier', (start, end, size) => [start - size / 2, end - size / 2]), menu, step('›', 'Later', (start, end, size) => [start + size / 2, end + size / 2]), step('−', 'Wider', (start, end, size) => [start - size / 2, end + size / 2]));
}

/** What `refresh` says, or what the dashboard asks for. */
export function refresh(dashboard) {
  const said = query().get('refresh');
  if (REFRESHES.some(([value]) => value === said)) return said;
  return dashboard?.refresh ? 'live' : 'off';
}

export function refreshMs(name) {
  const number = /^(\d+)([sm])$/.exec(name);
  return number ? Number(number[1]) * (number[2] === 'm' ? 60_000 : 1000) : null;
}

export function refreshPicker(dashboard, onChange) {
  const now = refresh(dashboard);
  const select = el('select', { 'aria-label': 'Refresh', title: 'Refresh', onchange: () => { change({ refresh: select.value }, { replace: true }); onChange(); } },
    ...REFRESHES.map(([value, label]) => el('option', { value, selected: value === now }, label)));
  return select;
}

/** Which values of a variable hold: those in the address, else what the server says. */
export function valuesOf(variable) {
  return chosen()[variable.name] ?? variable.current;
}

/** One control a variable that is not hidden. */
export function variableControls(variables, onChange) {
  const choose = (name, values) => { change({ [`var-${name}`]: values }); onChange(); };
  return variables.filter((variable) => variable.hide !== 'variable' && variable.kind !== 'constant').map((variable) => {
    const values = valuesOf(variable);
    const label = variable.label || variable.name;
    if (variable.kind === 'textbox') {
      const input = el('input', { type: 'search', value: values[0] ?? '', 'aria-label': label, placeholder: label, onchange: () => choose(variable.name, [input.value]) });
      return el('label', { class: 'variable' }, el('span', {}, label), input);
    }
    return variable.multi ? many(variable, label, values, choose) : one(variable, label, values, choose);
  });
}

function one(variable, label, values, choose) {
  const options = [...(variable.includeAll ? [{ value: ALL, text: 'All' }] : []), ...variable.options];
  if (!options.some((option) => option.value === values[0]) && values[0] !== undefined) options.push({ value: values[0], text: values[0] });
  const select = el('select', { onchange: () => choose(variable.name, [select.value]) }, ...options.map((option) => el('option', { value: option.value, selected: option.value === values[0] }, option.text)));
  return el('label', { class: 'variable' }, el('span', {}, label), select);
}

function many(variable, label, values, choose) {
  const isAll = values.includes(ALL) || values.length === 0;
  const told = isAll ? 'All' : values.length > 2 ? `${values.length} chosen` : values.map((value) => variable.options.find((option) => option.value === value)?.text ?? value).join(', ');
  const boxes = variable.options.map((option) => el('label', {}, el('input', { type: 'checkbox', value: option.value, checked: !isAll && values.includes(option.value) }), el('span', {}, option.text)));
  const picked = () => boxes.map((box) => box.firstChild).filter((box) => box.checked).map((box) => box.value);
  const filter = el('input', { type: 'search', placeholder: 'Find', 'aria-label': `Find in ${label}`, oninput: () => boxes.forEach((box) => { box.hidden = !box.textContent.toLowerCase().includes(filter.value.toLowerCase()); }) });
  const menu = el('details', { class: 'menu variable', name: 'menu' },
    el('summary', { 'aria-label': `${label}: ${told}` }, el('span', {}, label), el('b', {}, told)),
    el('div', { class: 'sheet' }, filter,
      el('div', { class: 'boxes' }, variable.includeAll && el('button', { type: 'button', 'aria-current': isAll ? 'true' : null, onclick: () => choose(variable.name, [ALL]) }, 'All'), ...boxes, boxes.length === 0 && el('p', { class: 'quiet' }, 'No values in this range')),
      el('button', { type: 'button', class: 'strong', onclick: () => choose(variable.name, picked().length ? picked() : [ALL]) }, 'Apply')));
  menu.addEventListener('toggle', () => { if (menu.open) filter.focus(); });
  return menu;
}
