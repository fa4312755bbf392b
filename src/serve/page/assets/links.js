// Data links of a Grafana panel: from a value to the dashboard, session or page that tells more.

import { safeHref } from './dom.js';
import { chosen, query } from './state.js';

const shown = (value) => (value === null || value === undefined ? '' : String(value));

/** Grafana's variables in a link: values of the row, the range, the variables of the dashboard. */
function filled(url, field, row, fields, label, value) {
  const values = chosen();
  const all = () => Object.entries(values).flatMap(([name, list]) => list.map((one) => `var-${name}=${encodeURIComponent(one)}`)).join('&');
  const range = () => ['from', 'to'].filter((name) => query().has(name)).map((name) => `${name}=${encodeURIComponent(query().get(name))}`).join('&');
  const named = (name) => fields.find((other) => other.name === name || other.label === name);
  const written = (text) => encodeURIComponent(shown(text));
  return url
    .replace(/\$\{__data\.fields(?:\.([\w ]+)|\["([^"]+)"\]|\[(\d+)\])(?:\.(?:text|numeric))?(?::\w+)?\}/g, (_, plain, quoted, index) => {
      const column = index !== undefined ? fields[Number(index)] : named(plain ?? quoted);
      return written(column?.values[row]);
    })
    .replace(/\$\{__field\.labels\.(\w+)(?::\w+)?\}/g, (_, name) => written(field.labels[name]))
    .replace(/\$\{__(?:series|field)\.name(?::\w+)?\}/g, () => written(label))
    .replace(/\$\{__value\.(?:raw|text|numeric)(?::\w+)?\}/g, () => written(value))
    .replace(/\$\{__value\.time(?::\w+)?\}/g, () => written(fields.find((other) => other.type === 'time')?.values[row]))
    .replace(/\$?\$\{__url_time_range\}|\$__url_time_range/g, range)
    .replace(/\$\{__all_variables\}|\$__all_variables/g, all)
    .replace(/\$\{(\w+):queryparam\}/g, (_, name) => (values[name] ?? []).map((one) => `var-${name}=${encodeURIComponent(one)}`).join('&'))
    .replace(/\$\{(\w+)(?::\w+)?\}/g, (whole, name) => (name.startsWith('__') ? whole : written(values[name]?.join(','))));
}

/** Grafana's own addresses are this page's too: /d/<uid>/<slug> is /d/<uid>. */
function here(href) {
  const url = new URL(href);
  if (url.origin !== location.origin) return href;
  url.pathname = url.pathname.replace(/^(\/d\/[^/]+)\/.*$/, '$1');
  return url.pathname + url.search;
}

/** The first data link of a value; null where it has none, or where what it leads to is unknown. */
export function linkOf(field, row, fields, label, value) {
  const link = field.config.links?.[0];
  if (!link?.url || value === null) return null;
  const href = safeHref(filled(link.url, field, row, fields, label, value));
  return href && { href: here(href), title: link.title || 'More' };
}

/** Range and variables go along where the file says so. */
function kept(href, link) {
  const url = new URL(href, location.href);
  const written = new Set(url.searchParams.keys());
  for (const [name, value] of query()) {
    const goes = (link.keepTime && (name === 'from' || name === 'to')) || (link.includeVars && name.startsWith('var-'));
    if (goes && !written.has(name)) url.searchParams.append(name, value);
  }
  return url.origin === location.origin ? url.pathname + url.search : url.href;
}

/** Links of a panel or of a dashboard. */
export function plainLinks(links) {
  return (links ?? []).flatMap((link) => {
    const url = link.url ?? '';
    const href = url && safeHref(filled(url, { labels: {} }, 0, [], '', ''));
    return href ? [{ href: kept(here(href), link), title: link.title || url }] : [];
  });
}
