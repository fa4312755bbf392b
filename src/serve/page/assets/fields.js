// From the columns that the server sent and the `fieldConfig` of a Grafana panel to fields that can be drawn: name,
// values, unit, decimals, colour, thresholds, mappings, links. And what is drawn in place of many values (a
// reduction).

import { format, exact, moment } from './units.js';
import { token } from './dom.js';

/** Series colours: one accent first, then hues that differ in lightness too. */
const PALETTE = ['--series-1', '--series-2', '--series-3', '--series-4', '--series-5', '--series-6', '--series-7', '--series-8'];
/** Grafana's colour names, in the tones of this page; its shades are `semi-dark-red` and so on. */
const HUES = { red: '--bad', orange: '--warn', yellow: '--warn', green: '--good', blue: '--series-1', purple: '--series-4', text: '--ink', transparent: null };

export function colour(name, index = 0) {
  if (!name) return token(PALETTE[index % PALETTE.length]);
  const hue = name.replace(/^(super-light|light|semi-dark|dark)-/, '');
  if (hue in HUES) return HUES[hue] ? token(HUES[hue]) : 'transparent';
  return /^(#[0-9a-f]{3,8}|rgba?\([\d.,% ]+\)|[a-z]+)$/i.test(name) ? name : token(PALETTE[index % PALETTE.length]);
}

const nested = (target, path, value) => {
  const keys = path.split('.');
  let node = target;
  for (const key of keys.slice(0, -1)) node = node[key] = { ...(node[key] ?? {}) };
  node[keys.at(-1)] = value;
};

function matches(matcher, column, frame) {
  const { id, options } = matcher ?? {};
  if (id === 'byName') return column.name === options || column.label === options;
  if (id === 'byNames') return (options?.names ?? []).includes(column.label ?? column.name);
  if (id === 'byType') return column.type === options;
  if (id === 'byFrameRefID') return frame.refId === options;
  if (id !== 'byRegexp') return false;
  const body = /^\/(.*)\/([a-z]*)$/.exec(options ?? '');
  try { return (body ? new RegExp(body[1], body[2].replace('g', '')) : new RegExp(options)).test(column.label ?? column.name); } catch { return false; }
}

/** The configuration that holds for one column: defaults, then each override that names it. */
function configOf(panel, column, frame) {
  const config = structuredClone(panel.fieldConfig?.defaults ?? {});
  for (const override of panel.fieldConfig?.overrides ?? []) {
    if (!matches(override.matcher, column, frame)) continue;
    for (const { id, value } of override.properties ?? []) nested(config, id, value);
  }
  return config;
}

/** A column with everything that drawing needs. */
export class Field {
  constructor(panel, column, frame, index) {
    this.index = index;
    this.name = column.name;
    this.type = column.type;
    this.values = column.values;
    this.labels = column.labels ?? {};
    this.config = configOf(panel, column, frame);
    this.label = this.config.displayName?.replace(/\$\{__(field|series)\.name\}/g, column.label ?? column.name) ?? column.label ?? column.name;
    this.unit = this.config.unit ?? '';
    this.decimals = this.config.decimals ?? null;
    this.custom = this.config.custom ?? {};
  }

  get hidden() {
    return Boolean(this.custom.hideFrom?.viz || this.custom.hidden);
  }

  /** A mapping's text, or the number in its unit. */
  text(value) {
    const mapped = this.mapping(value);
    if (mapped?.text) return mapped.text;
    if (value === null || value === undefined) return this.config.noValue ?? '–';
    if (this.type === 'time') return moment(value);
    return format(value, this.unit, this.decimals);
  }

  exact(value) {
    return this.type === 'time' ? moment(value) : exact(value, this.unit);
  }

  mapping(value) {
    for (const { type, options } of this.config.mappings ?? []) {
      if (type === 'value' && options?.[value]) return options[value];
      if (type === 'range' && typeof value === 'number' && value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity)) return options.result;
      if (type === 'special' && options?.match === 'null' && value === null) return options.result;
    }
    return null;
  }

  limits() {
    const numbers = this.values.filter((value) => typeof value === 'number');
    const min = this.config.min ?? Math.min(0, ...numbers);
    const max = this.config.max ?? Math.max(...numbers, min + Number.EPSILON);
    return [min, max > min ? max : min + 1];
  }

  /** Steps of the thresholds as values: in per cent they go by the limits. */
  steps() {
    const { mode, steps = [] } = this.config.thresholds ?? {};
    const [min, max] = mode === 'percentage' ? this.limits() : [0, 100];
    return steps.map((step) => ({ colour: colour(step.color), name: step.color, from: step.value === null || step.value === undefined ? -Infinity : mode === 'percentage' ? min + (step.value / 100) * (max - min) : step.value }));
  }

  /** The step that a value stands on; null where there are no thresholds. */
  step(value) {
    return typeof value === 'number' ? this.steps().filter((step) => value >= step.from).at(-1) ?? null : null;
  }

  /** Colour of a value that stands alone. */
  colourOf(value) {
    const mapped = this.mapping(value)?.color;
    if (mapped) return colour(mapped);
    const { mode, fixedColor } = this.config.color ?? {};
    if (mode === 'fixed') return colour(fixedColor, this.index);
    if (mode === undefined || mode === 'thresholds') return this.step(value)?.colour ?? token('--ink');
    return colour(null, this.index);
  }

  /** Colour of a series as a whole. */
  get seriesColour() {
    const { mode, fixedColor } = this.config.color ?? {};
    if (mode === 'fixed' || mode === 'shades') return colour(fixedColor, this.index);
    if (mode === 'thresholds') return this.step(this.values.findLast((value) => value !== null))?.colour ?? colour(null, this.index);
    return colour(null, this.index);
  }
}

/** A frame whose time series stand below each other, set side by side: one column for each name. */
function widened(frame) {
  const time = frame.columns.find((column) => column.type === 'time');
  const texts = frame.columns.filter((column) => column.type === 'text' || column.type === 'bool');
  const numbers = frame.columns.filter((column) => column.type === 'number');
  if (!time || texts.length === 0 || numbers.length === 0) return frame;
  const times = [...new Set(time.values)].sort((a, b) => a - b);
  const at = new Map(times.map((value, index) => [value, index]));
  const wide = new Map();
  for (let row = 0; row < time.values.length; row += 1) {
    const labels = Object.fromEntries(texts.map((column) => [column.name, column.values[row]]));
    const said = texts.map((column) => column.values[row] ?? 'unknown').join(' ');
    for (const column of numbers) {
      const label = numbers.length > 1 ? `${column.name} ${said}` : said;
      if (!wide.has(label)) wide.set(label, { name: column.name, label, labels, type: 'number', values: new Array(times.length).fill(null) });
      wide.get(label).values[at.get(time.values[row])] = column.values[row];
    }
  }
  return { ...frame, columns: [{ ...time, values: times }, ...wide.values()] };
}

/** Fields of each frame of an answer. */
export function fieldsOf(panel, frames) {
  let index = 0;
  return frames.map((frame) => {
    const shaped = frame.format === 'time_series' && panel.kind !== 'table' ? widened(frame) : frame;
    return shaped.columns.map((column) => new Field(panel, column, frame, column.type === 'number' ? index++ : 0));
  });
}

const REDUCERS = {
  lastNotNull: (values) => values.findLast((value) => value !== null) ?? null,
  last: (values) => values.at(-1) ?? null,
  firstNotNull: (values) => values.find((value) => value !== null) ?? null,
  first: (values) => values[0] ?? null,
  min: (values) => extreme(values, (a, b) => a < b),
  max: (values) => extreme(values, (a, b) => a > b),
  sum: (values) => known(values).reduce((sum, value) => sum + value, 0),
  mean: (values) => { const all = known(values); return all.length ? all.reduce((sum, value) => sum + value, 0) / all.length : null; },
  count: (values) => values.length,
  range: (values) => { const all = known(values); return all.length ? REDUCERS.max(all) - REDUCERS.min(all) : null; },
  diff: (values) => { const all = known(values); return all.length ? all.at(-1) - all[0] : null; },
};
const known = (values) => values.filter((value) => typeof value === 'number');
const extreme = (values, better) => known(values).reduce((best, value) => (best === null || better(value, best) ? value : best), null);

export function reduced(values, calc = 'lastNotNull') {
  return (REDUCERS[calc] ?? REDUCERS.lastNotNull)(values);
}

/**
 * What a stat, a gauge or a bar gauge shows: `{label, value, field, trend}` each. `reduceOptions.values` shows every row of a
 * table, named by its text columns.
 */
export function readings(panel, frames) {
  const options = panel.options?.reduceOptions ?? {};
  const found = [];
  for (const fields of fieldsOf(panel, frames)) {
    const texts = fields.filter((field) => field.type === 'text');
    const wanted = fields.filter((field) => !field.hidden && (field.type === 'number' || (options.fields === '/.*/' && field.type === 'text')));
    for (const field of wanted) {
      if (options.values) {
        field.values.slice(0, options.limit ?? 100).forEach((value, row) => found.push({ label: texts.map((text) => text.values[row] ?? 'unknown').join(' ') || field.label, value, field, row, fields }));
      } else {
        found.push({ label: field.label, value: reduced(field.values, options.calcs?.[0]), field, fields, trend: fields.some((other) => other.type === 'time') ? field.values : null });
      }
    }
  }
  return found;
}

/** The frames of an answer hold a value at all. */
export function hasValues(frames) {
  return frames.some((frame) => frame.columns.some((column) => column.values.some((value) => value !== null)));
}
