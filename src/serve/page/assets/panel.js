// One panel: its frame, its states (loading, an error, no data, shown) and what can be asked of it (SQL, table, alone).

import { el, iconButton } from './dom.js';
import { ask, scope } from './api.js';
import { hasValues } from './fields.js';
import { plainLinks } from './links.js';
import { timeseries, barchart, piechart, heatmap } from './charts.js';
import { stat, gauge, bargauge, geomap, text, prose } from './tiles.js';
import { tableOf } from './table.js';
import { showSql } from './sql.js';

const KINDS = { timeseries, barchart, piechart, heatmap, stat, gauge, bargauge, geomap, text, table: (panel, frames, body) => tableOf(panel, frames, body) };
/** Points asked for are rounded up to this: screens of nearly one width share one answer. */
const POINTS_STEP = 200;

export class Panel {
  /** `context`: `{uid, range(), variables(), onRange, go, onAlone}`. */
  constructor(definition, context) {
    this.definition = definition;
    this.context = context;
    this.asTable = false;
    this.answer = null;
    this.number = 0;
    const { title, description, kind, grid } = definition;
    const id = `panel-${definition.id}`;
    this.body = el('div', { class: 'body' });
    this.notice = el('p', { class: 'notice', hidden: true });
    this.tools = el('div', { class: 'tools' },
      ...plainLinks(definition.links).map(({ href, title: name }) => el('a', { class: 'icon', href, title: name, 'aria-label': name }, '↗')),
      kind !== 'text' && iconButton('SQL', `SQL of ${title}`, () => showSql(definition, this.answer)),
      kind !== 'text' && (this.tableButton = iconButton('▤', `${title} as a table`, () => this.toggleTable(), { 'aria-pressed': 'false' })),
      iconButton('⤢', `${title} alone`, () => context.onAlone(definition.id)));
    this.node = el('section', { class: `panel kind-${kind}`, id, 'aria-labelledby': `${id}-title`, 'aria-busy': 'true', 'data-panel': definition.id, 'data-state': 'loading', style: { '--x': grid.x + 1, '--w': grid.w, '--h': grid.h, '--y': grid.y + 1 } },
      el('header', {}, el('h3', { id: `${id}-title`, title: description.replaceAll(/[*`]/g, '') || null }, title || ' '), description && iconButton('i', `What ${title} means`, () => this.toggleHelp(), { class: 'icon help', 'aria-expanded': 'false' }), this.tools),
      description && (this.help = el('div', { class: 'about', hidden: true }, prose(description))),
      this.body, this.notice);
    this.watcher = new ResizeObserver(() => this.drawSoon());
    this.watcher.observe(this.body);
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    this.node.querySelector('.help').setAttribute('aria-expanded', String(!this.help.hidden));
  }

  toggleTable() {
    this.asTable = !this.asTable;
    this.tableButton.setAttribute('aria-pressed', String(this.asTable));
    this.body.replaceChildren();
    this.draw();
  }

  state(name, words = '') {
    this.node.dataset.state = name;
    this.node.setAttribute('aria-busy', String(name === 'loading'));
    this.notice.textContent = words;
    this.notice.hidden = !words;
  }

  /** Asks anew. What is shown stays until the answer is there. */
  async load() {
    if (this.definition.kind === 'text') { text(this.definition, [], this.body); this.state('shown'); return; }
    const number = (this.number += 1);
    this.stopped?.abort();
    this.stopped = new AbortController();
    if (!this.answer) this.state('loading');
    const points = Math.ceil((this.body.clientWidth || 600) / POINTS_STEP) * POINTS_STEP;
    const parameters = [...scope(this.context.uid, this.context.range(), this.context.variables()), ['panel', this.definition.id], ['points', points]];
    try {
      const answer = await ask('panel', parameters, this.stopped.signal);
      if (number !== this.number) return;
      this.answer = answer;
      await this.draw();
    } catch (error) {
      if (error.name === 'AbortError' || number !== this.number) return;
      this.answer = null;
      this.body.replaceChildren();
      this.state('error', error.message);
    }
  }

  drawSoon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => { if (this.answer) this.draw(); });
  }

  async draw() {
    const { answer, definition, body } = this;
    if (!answer) return;
    if (!hasValues(answer.frames)) {
      body.replaceChildren();
      return this.state('empty', /\w/.test(definition.fieldConfig?.defaults?.noValue ?? '') ? definition.fieldConfig.defaults.noValue : 'No data in this range');
    }
    const kind = KINDS[definition.kind];
    try {
      if (this.asTable) tableOf(definition, answer.frames, body, { exactly: true });
      else if (kind) await kind(definition, answer.frames, body, { answer, onRange: this.context.onRange, go: this.context.go });
      else tableOf(definition, answer.frames, body);
      this.state('shown', answer.is_cut ? `Only the first ${answer.rows} rows: narrow the range` : '');
    } catch (error) {
      this.state('error', `this panel cannot be drawn: ${error.message}`);
    }
  }

  remove() {
    this.stopped?.abort();
    this.watcher.disconnect();
    this.node.remove();
  }
}
