// The page: which dashboard or session the address names, its controls, its panels, and the stream that says when there is
// something new.

import { el, put, iconButton } from './dom.js';
import { ask, scope, follow } from './api.js';
import { place, query, range, change, chosen, words, hrefOf } from './state.js';
import { rangePicker, refreshPicker, refresh, refreshMs, variableControls, valuesOf } from './controls.js';
import { Panel } from './panel.js';
import { plainLinks } from './links.js';
import { showIncidents } from './incidents.js';
import { showSession } from './session.js';
import { moment } from './units.js';

/** Commits may come every second; panels are asked for no more often than this. */
const LIVE_MS = 5000;
/** New apps and contents come by the minute. */
const CHOICES_MS = 60_000;

const at = (id) => document.getElementById(id);
const page = { dashboards: [], dashboard: null, variables: [], panels: [], live: null, loadedAt: 0, choicesAt: 0, connected: true };

function go(href) {
  history.pushState(null, '', href);
  show();
}

// ---- the head ----

function searchBox() {
  const input = el('input', { type: 'search', name: 'session', placeholder: 'Session id', 'aria-label': 'Find a session by its id', autocomplete: 'off', spellcheck: 'false' });
  return el('form', { class: 'find', role: 'search', onsubmit: (event) => { event.preventDefault(); if (input.value.trim()) go(hrefOf(`/session/${encodeURIComponent(input.value.trim())}`, {})); } }, input);
}

function switchTheme() {
  const root = document.documentElement;
  const theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
  root.dataset.theme = theme;
  try { localStorage.setItem('theme', theme); } catch { /* storage is switched off: it holds for this page */ }
  if (query().has('theme')) change({ theme }, { replace: true });
  page.panels.forEach((panel) => panel.drawSoon());
}

function switchWall() {
  change({ wall: isWall() ? null : '1' });
  show();
}

const isWall = () => query().get('wall') === '1';

function showBar(resolved = null) {
  const { dashboard } = page;
  const isSession = place().kind === 'session';
  const links = page.dashboards.map(({ uid, title }) => el('a', { href: hrefOf(`/d/${encodeURIComponent(uid)}`), 'aria-current': !isSession && uid === dashboard?.uid ? 'page' : null }, title));
  put(at('bar'),
    el('div', { class: 'top' },
      el('a', { class: 'brand', href: '/', 'aria-label': 'Playhead: start page' }, el('span', { class: 'mark', 'aria-hidden': 'true' }), 'Playhead'),
      el('nav', { 'aria-label': 'Dashboards' }, ...links),
      searchBox(),
      el('span', { class: 'live', id: 'live', role: 'status' }),
      iconButton('◐', 'Light or dark', switchTheme),
      iconButton('▣', isWall() ? 'Leave wall view' : 'Wall view: readable from across a room', switchWall)),
    !isSession && dashboard && el('div', { class: 'controls' },
      el('h1', {}, dashboard.title),
      el('div', { class: 'variables' }, ...variableControls(page.variables, show)),
      iconButton('Filters', 'Show or hide the filters', () => document.body.classList.toggle('with-filters'), { class: 'icon filters' }),
      ...plainLinks(dashboard.links).filter(({ href }) => !page.dashboards.some(({ uid }) => href.split('?')[0] === `/d/${uid}`)).map(({ href, title }) => el('a', { href }, title)),
      el('div', { class: 'group time' }, rangePicker(dashboard, resolved, show), refreshPicker(dashboard, tick), iconButton('↻', 'Load again', load))));
  document.body.classList.toggle('wall', isWall());
  showLive();
}

function showLive() {
  const node = at('live');
  if (!node) return;
  const { live } = page;
  node.dataset.state = page.connected ? 'on' : 'off';
  const isOfToday = live?.newest_ms && live.now_ms - live.newest_ms < 43_200_000;
  const until = live?.newest_ms ? `data until ${moment(live.newest_ms, !isOfToday).slice(0, -3)}` : 'no data yet';
  node.textContent = page.connected ? until : 'connection lost, trying again';
}

// ---- a dashboard ----

function variables() {
  return Object.fromEntries(page.variables.map((variable) => [variable.name, valuesOf(variable)]));
}

const context = {
  get uid() { return page.dashboard.uid; },
  range: () => range(page.dashboard),
  variables,
  go,
  onRange: (from, to) => { change({ from: String(from), to: String(to) }); show(); },
  onAlone: (id) => { change({ viewPanel: query().get('viewPanel') === String(id) ? null : String(id) }); show(); },
};

async function showDashboard(uid) {
  if (page.dashboard?.uid !== uid) page.dashboard = await ask(`dashboards/${encodeURIComponent(uid)}`);
  const { dashboard } = page;
  const answer = await ask('variables', scope(uid, range(dashboard), chosen()));
  page.variables = answer.variables;
  page.choicesAt = Date.now();
  document.title = `${dashboard.title} · Playhead`;
  showBar(answer);
  layOut();
  await load();
}

/** Rows of a dashboard become headings; a panel alone takes the whole page. */
function layOut() {
  page.panels.forEach((panel) => panel.remove());
  const alone = query().get('viewPanel');
  const nodes = [];
  page.panels = [];
  const values = variables();
  const told = (key, value) => (typeof value === 'string' && ['title', 'description', 'displayName', 'value', 'content'].includes(key) ? words(value, values) : value);
  for (const raw of page.dashboard.panels) {
    const definition = { ...JSON.parse(JSON.stringify({ ...raw, links: [] }, told)), links: raw.links };
    if (alone && String(definition.id) !== alone) continue;
    if (definition.kind === 'row') { nodes.push(el('h2', { class: 'row', style: { '--y': definition.grid.y + 1 } }, definition.title ?? '')); continue; }
    const panel = new Panel(definition, context);
    page.panels.push(panel);
    nodes.push(panel.node);
  }
  if (!nodes.length) nodes.push(el('p', { class: 'quiet wide' }, 'This dashboard has no such panel.'));
  at('panels').className = '';
  at('panels').replaceChildren(el('div', { class: alone ? 'alone' : 'grid' }, ...nodes));
  showHint();
}

/** Puts the hint in place that holds now; the same one stays as it is. */
function showHint() {
  const [hint] = emptyHint();
  const shown = at('panels').querySelector(':scope > .hint');
  if (shown?.textContent === hint?.textContent) return;
  shown?.remove();
  if (hint) at('panels').prepend(hint);
}

/** Choices come with the data: they are asked for anew now and then, unless somebody is choosing. */
async function renewChoices() {
  if (Date.now() - page.choicesAt < CHOICES_MS || document.querySelector('details.menu[open], .bar :focus')) return;
  const { uid } = page.dashboard;
  const answer = await ask('variables', scope(uid, range(page.dashboard), chosen())).catch(() => null);
  if (!answer || page.dashboard?.uid !== uid) return;
  page.variables = answer.variables;
  page.choicesAt = Date.now();
  showBar(answer);
}

/** What to do where there is nothing to see yet. */
function emptyHint() {
  const { live } = page;
  if (!live) return [];
  if (!live.newest_ms) {
    return [el('div', { class: 'hint wide', id: 'empty' }, el('h2', {}, 'The lake is empty'),
      el('p', {}, 'Panels fill as soon as the first minute of data is complete. Three ways to begin:'),
      el('ul', {}, el('li', {}, 'players send to ', el('code', {}, 'POST /v1/events'), ' or ', el('code', {}, 'POST /cmcd'), ' on the port of the receiver'), el('li', {}, 'files: ', el('code', {}, 'playhead ingest FILES'), ', or a folder, Kafka, Kinesis or S3 under ', el('code', {}, 'sources'), ' in the settings'), el('li', {}, 'a simulated audience: ', el('code', {}, 'playhead demo'))))];
  }
  const asked = range(page.dashboard);
  const isBehind = asked.to === 'now' && live.now_ms - live.newest_ms > 6 * 3_600_000;
  if (!isBehind) return [];
  const to = live.newest_ms + 60_000;
  const from = Math.max(live.oldest_ms ?? to - 21_600_000, to - 86_400_000);
  return [el('div', { class: 'hint wide' }, el('p', {}, `The newest data is of ${moment(live.newest_ms)} UTC. `, el('button', { type: 'button', class: 'strong', id: 'go-to-data', onclick: () => context.onRange(from, to) }, 'Go there')))];
}

async function load() {
  page.loadedAt = Date.now();
  await Promise.all(page.panels.map((panel) => panel.load()));
  document.body.dataset.ready = String(Number(document.body.dataset.ready ?? 0) + 1);
}

// ---- time ----

let timer = null;

/** Sets up the next load that the refresh setting asks for; `live` waits for the stream. */
function tick() {
  clearTimeout(timer);
  const every = refreshMs(refresh(page.dashboard));
  if (every) timer = setTimeout(() => { if (!document.hidden && place().kind !== 'session') load(); tick(); }, every);
}

let soon = null;

function onState(state) {
  const isFirst = page.live === null;
  const isNew = !isFirst && state.revision !== page.live.revision;
  page.live = state;
  showLive();
  showIncidents(at('incidents'), state, page.dashboard?.uid);
  if (!page.dashboard || place().kind === 'session') return;
  showHint();
  if (!isNew || refresh(page.dashboard) !== 'live' || !range(page.dashboard).to.startsWith('now')) return;
  clearTimeout(soon);
  soon = setTimeout(() => { load(); renewChoices(); }, Math.max(0, page.loadedAt + LIVE_MS - Date.now()));
}

// ---- start ----

async function show() {
  try {
    if (!page.dashboards.length) {
      const known = await ask('dashboards');
      page.dashboards = known.dashboards;
      at('foot').replaceChildren(el('span', {}, `Playhead ${known.version} · all times UTC · `), el('a', { href: '/metrics' }, 'metrics'), ' · ', el('a', { href: '/v1/live' }, 'live figures'));
    }
    const { kind, name } = place();
    if (kind === 'session' && name) {
      page.panels.forEach((panel) => panel.remove());
      page.panels = [];
      page.dashboard = null;
      document.title = `Session ${name} · Playhead`;
      showBar();
      at('panels').className = 'single';
      await showSession(at('panels'), name);
      document.body.dataset.ready = String(Number(document.body.dataset.ready ?? 0) + 1);
      return;
    }
    const uid = kind === 'd' && name ? name.split('/')[0] : page.dashboards[0]?.uid;
    if (!uid) throw new Error('no dashboard is there; see the setting `dashboards`');
    await showDashboard(uid);
    tick();
  } catch (error) {
    showBar();
    at('panels').replaceChildren(el('div', { class: 'hint wide', role: 'alert' }, el('h2', {}, 'This cannot be shown'), el('p', {}, error.message)));
  }
}

// Links within the page are followed without loading it anew.
document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href]');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !/^\/($|d\/|session\/)/.test(url.pathname)) return;
  event.preventDefault();
  go(url.pathname + url.search);
});
// An open menu closes when something else is pressed, and on Escape.
document.addEventListener('pointerdown', (event) => document.querySelectorAll('details.menu[open]').forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; }));
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') document.querySelectorAll('details.menu[open]').forEach((menu) => { menu.open = false; menu.querySelector('summary').focus(); });
  if (event.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName)) { event.preventDefault(); document.querySelector('.find input')?.focus(); }
});
addEventListener('popstate', show);

await show();
follow(onState, (isConnected) => { page.connected = isConnected; showLive(); });
