// The SQL behind a panel, as it was run: to be read, and to be taken to psql.

import { el } from './dom.js';
import { prose } from './tiles.js';

export function showSql(definition, answer) {
  const frames = answer?.frames ?? [];
  const close = () => dialog.close();
  const copy = async (event, text) => {
    const button = event.currentTarget;
    try { await navigator.clipboard.writeText(text); button.textContent = 'Copied'; } catch { button.textContent = 'Select it and press Ctrl-C'; }
  };
  const dialog = el('dialog', { class: 'sql', 'aria-label': `SQL of ${definition.title}`, onclose: () => dialog.remove(), onclick: (event) => { if (event.target === dialog) close(); } },
    el('header', {}, el('h2', {}, definition.title ?? 'Panel'), el('button', { type: 'button', class: 'icon', 'aria-label': 'Close', onclick: close }, '✕')),
    definition.description && prose(definition.description),
    ...frames.flatMap((frame) => [
      el('pre', { tabindex: '0' }, frame.sql),
      el('p', { class: 'quiet' }, `${frame.rows} rows in ${frame.took_ms} ms  `, el('button', { type: 'button', onclick: (event) => copy(event, frame.sql) }, 'Copy')),
    ]),
    frames.length === 0 && el('p', { class: 'quiet' }, 'This panel has no answer yet.'));
  document.body.append(dialog);
  dialog.showModal();
}
