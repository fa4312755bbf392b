// Numbers, times and spans as a person reads them, by the unit that a dashboard file names (Grafana's names).

const COUNT = ['', ' K', ' Mil', ' Bil', ' Tri'];
const scaled = (names, step) => (value, decimals) => {
  let index = 0;
  let left = value;
  while (Math.abs(left) >= step && index < names.length - 1) { left /= step; index += 1; }
  return [left, names[index], decimals];
};
const spans = [[1, 'ms'], [1e3, 's'], [6e4, 'min'], [36e5, 'h'], [864e5, 'd']];
const span = (perUnitMs, smaller = []) => (value, decimals) => {
  const ms = value * perUnitMs;
  const size = Math.abs(ms);
  const steps = [...smaller, ...spans];
  const step = [...steps].reverse().find(([length]) => size >= length) ?? steps[0];
  return [ms / step[0], ` ${step[1]}`, decimals];
};
const suffix = (text) => (value, decimals) => [value, text, decimals];

const UNITS = {
  none: suffix(''), '': suffix(''), string: suffix(''), short: scaled(COUNT, 1000), locale: suffix(''), sishort: scaled(['', ' k', ' M', ' G', ' T'], 1000),
  percent: suffix('%'), percentunit: (value, decimals) => [value * 100, '%', decimals],
  ns: span(1e-6, [[1e-6, 'ns'], [1e-3, 'µs']]), 'µs': span(1e-3, [[1e-3, 'µs']]), ms: span(1), s: span(1000), m: span(6e4), h: span(36e5), d: span(864e5),
  bytes: scaled([' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB'], 1024), decbytes: scaled([' B', ' kB', ' MB', ' GB', ' TB', ' PB'], 1000),
  bits: scaled([' b', ' Kib', ' Mib', ' Gib'], 1024), decbits: scaled([' b', ' kb', ' Mb', ' Gb', ' Tb'], 1000),
  bps: scaled([' b/s', ' kb/s', ' Mb/s', ' Gb/s', ' Tb/s'], 1000), Bps: scaled([' B/s', ' kB/s', ' MB/s', ' GB/s', ' TB/s'], 1000),
  binBps: scaled([' B/s', ' KiB/s', ' MiB/s', ' GiB/s'], 1024), Kbits: scaled([' kb/s', ' Mb/s', ' Gb/s'], 1000), Mbits: scaled([' Mb/s', ' Gb/s'], 1000),
  reqps: scaled([' req/s', 'K req/s', 'M req/s'], 1000), rps: scaled([' rd/s', 'K rd/s'], 1000), ops: scaled([' ops/s', 'K ops/s', 'M ops/s'], 1000),
  cps: scaled([' c/s', 'K c/s'], 1000), wpm: suffix(' /min'), opm: suffix(' ops/min'), hertz: scaled([' Hz', ' kHz', ' MHz', ' GHz'], 1000),
};

/** Enough digits to tell values apart: three of them, and no noise behind. */
function enough(value) {
  const size = Math.abs(value);
  if (value === 0 || Number.isInteger(value)) return 0;
  if (size >= 100) return 0;
  if (size >= 10) return 1;
  if (size >= 1) return 2;
  return Math.min(6, 2 - Math.floor(Math.log10(size)));
}

/** `{text, suffix}` of a number; null is a dash. */
export function parts(value, unit = '', decimals = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return { text: '–', suffix: '' };
  if (typeof value === 'boolean') return { text: value ? 'yes' : 'no', suffix: '' };
  if (typeof value !== 'number') return { text: String(value), suffix: '' };
  if (unit?.startsWith('dateTime')) return { text: moment(value), suffix: '' };
  if (unit === 'dtdurationms') return { text: age(value), suffix: '' };
  if (unit === 'dtdurations') return { text: age(value * 1000), suffix: '' };
  const prefix = unit?.startsWith('prefix:') ? unit.slice(7) : '';
  const written = unit?.startsWith('suffix:') ? unit.slice(7) : unit;
  const rule = UNITS[unit] ?? (prefix ? suffix('') : suffix(` ${written}`));
  const [left, tail] = rule(value, decimals);
  // Decimals are meant for the unit that is named: 2,480 ms without any must not become 2 s.
  const isScaled = left !== value && unit !== 'percentunit';
  const digits = isScaled ? Math.max(decimals ?? 0, enough(left)) : decimals ?? enough(left);
  const text = left.toLocaleString('en-GB', { minimumFractionDigits: decimals === null ? 0 : decimals, maximumFractionDigits: digits });
  return { text: prefix + text, suffix: tail };
}

export function format(value, unit, decimals) {
  const { text, suffix: tail } = parts(value, unit, decimals ?? null);
  return text + tail;
}

/** All digits that the server sent: what hovering and tables give on demand. */
export function exact(value, unit) {
  if (typeof value !== 'number') return parts(value).text;
  const name = ['', 'none', 'short', undefined, null].includes(unit) ? '' : ` (${unit})`;
  return `${value.toLocaleString('en-GB', { maximumFractionDigits: 12 })}${name}`;
}

const two = (number) => String(number).padStart(2, '0');

/** `2026-11-21 18:30:05`, UTC like every table. */
export function moment(ms, withDate = true) {
  if (ms === null || ms === undefined) return '–';
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return '–';
  const date = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  return withDate ? `${date} ${time}` : time;
}

/** `3 min`, `2 h 10 min`: how long. */
export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}
