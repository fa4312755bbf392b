// One session on one page: facts, score with the reason for each point lost, timeline, events. The figures are those of
// `playhead session ID`.

import { el, put } from './dom.js';
import { ask } from './api.js';
import { format, moment, age } from './units.js';

/** Colours of states: what the viewer saw is calm, what kept them waiting is not. */
const TINTS = { playing: '--good', starting: '--series-3', rebuffering: '--bad', seeking: '--series-4', paused: '--series-6', ad: '--series-5', silent: '--line', error: '--bad', background: '--line', waiting: '--series-3' };
const EVENTS_MAX = 500;

const plain = (value) => (Array.isArray(value) ? value.join(' ') : typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value));
const blank = (value) => value === null || value === undefined || value === '' || value === 0 || (Array.isArray(value) && value.length === 0);

/** A column's name without the unit, which stands with the value. */
const headingOf = (name) => name.replaceAll('_', ' ').replace(/ (ms|bps|ts)$/, '');

function told(name, value) {
  if (name.endsWith('_ms')) return format(Number(value), 'ms', null);
  if (name.endsWith('_bps')) return format(Number(value), 'bps', null);
  if (name.endsWith('_at') || name.endsWith('_ts')) return moment(Date.parse(value));
  return plain(value);
}

function facts(heading, columns, session) {
  const said = columns.filter((name) => !blank(session[name]));
  if (!said.length) return null;
  return el('section', { class: 'facts' }, el('h3', {}, heading), el('dl', {}, ...said.flatMap((name) => [el('dt', {}, headingOf(name)), el('dd', { title: plain(session[name]) }, told(name, session[name]))])));
}

function score(session, losses) {
  if (session.score === null || session.score === undefined) return el('p', { class: 'quiet' }, 'No score: open without a frame, a failure by decision of the service, an early exit or a bot.');
  const lost = losses.filter((loss) => session[loss.column] > 0);
  return el('div', { class: 'score' }, el('strong', {}, format(session.score, '', 1)), el('span', { class: 'quiet' }, ' of 100'),
    el('ul', {}, ...lost.map((loss) => el('li', {}, `−${format(session[loss.column], '', 1)} ${loss.name}`, el('small', {}, ` ${loss.reasons.filter((reason) => !blank(session[reason])).map((reason) => `${reason.replaceAll('_', ' ')} ${plain(session[reason])}`).join(', ')}`)))));
}

function timeline(intervals) {
  if (!intervals.length) return null;
  const [start, end] = [Date.parse(intervals[0].interval_start), Math.max(...intervals.map((row) => Date.parse(row.interval_end)))];
  const share = (ms) => `${(((ms - start) / (end - start || 1)) * 100).toFixed(3)}%`;
  const bar = el('div', { class: 'lane', role: 'img', 'aria-label': 'Timeline; the table below has it in words' }, ...intervals.map((row) => {
    const [from, to] = [Date.parse(row.interval_start), Date.parse(row.interval_end)];
    const words = `${row.state}${row.stall_cause ? ` (${row.stall_cause})` : ''}, ${format(row.duration_ms, 'ms', null)}, ${moment(from, false)}`;
    return el('span', { title: words, style: { left: share(from), width: `calc(${share(start + to - from)} + 1px)`, background: `var(${TINTS[row.state] ?? '--series-8'})` } });
  }));
  const states = [...new Set(intervals.map((row) => row.state))];
  return el('section', { class: 'facts wide' }, el('h3', {}, 'Timeline'), bar,
    el('p', { class: 'scale' }, el('span', {}, moment(start)), el('span', {}, age(end - start)), el('span', {}, moment(end))),
    el('ul', { class: 'legend' }, ...states.map((state) => el('li', {}, el('span', { class: 'chip', style: { background: `var(${TINTS[state] ?? '--series-8'})` } }), el('span', { class: 'name' }, state), el('span', { class: 'value' }, format(intervals.filter((row) => row.state === state).reduce((sum, row) => sum + row.duration_ms, 0), 'ms', null))))));
}

function table(name, rows, columns) {
  return el('details', { class: 'facts wide', open: rows.length <= 60 }, el('summary', {}, `${name} (${rows.length})`),
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': name }, el('table', {}, el('thead', {}, el('tr', {}, ...columns.map((column) => el('th', { scope: 'col' }, headingOf(column))))),
      el('tbody', {}, ...rows.slice(0, EVENTS_MAX).map((row) => el('tr', {}, ...columns.map((column) => el('td', { class: typeof row[column] === 'number' ? 'number' : '' }, blank(row[column]) ? '' : told(column.replace('interval_start', 'interval_ts').replace('interval_end', 'interval_ts'), row[column])))))))),
    rows.length > EVENTS_MAX && el('p', { class: 'quiet' }, `${rows.length - EVENTS_MAX} more; \`playhead session ID --json\` has them all`));
}

export async function showSession(main, id) {
  main.replaceChildren(el('p', { class: 'quiet wide' }, `Looking for session ${id}`));
  let found;
  const none = () => put(main, el('div', { class: 'hint wide' }, el('h2', {}, 'No session has this id'), el('p', {}, 'Ids are stored as the player sent them. Find some with ', el('code', {}, 'SELECT session_id FROM silver.playback_sessions ORDER BY started_at DESC LIMIT 10'))));
  try {
    found = await ask(`session/${encodeURIComponent(id)}`);
  } catch (error) {
    main.replaceChildren(el('div', { class: 'hint wide' }, el('h2', {}, `Session ${id}`), el('p', {}, error.message)));
    return;
  }
  if (!found.sessions.length) return none();
  const parts = found.sessions.map((session) => el('article', { class: 'session wide' },
    el('header', {}, el('h2', {}, session.session_id), el('span', { class: `outcome ${session.outcome}` }, `${plain(session.outcome ?? '')}${session.is_open ? ', still open' : ''}`), el('span', { class: 'quiet' }, `${moment(Date.parse(session.started_at))} to ${moment(Date.parse(session.ended_at))} UTC`), score(session, found.losses)),
    el('div', { class: 'cards' }, ...found.facts.map(([heading, columns]) => facts(heading, columns, session)))));
  put(main, ...parts, timeline(found.intervals),
    table('Intervals', found.intervals, ['interval_start', 'interval_end', 'state', 'stall_cause', 'duration_ms']),
    table('Events', found.events, ['event_ts', 'event_type', 'state', 'playhead_ms', 'bitrate_bps', 'stall_ms', 'startup_ms', 'error_codes']));
}
