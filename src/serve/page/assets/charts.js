// Panels that are drawn by plotly.js, which the server brings along: time series, bar chart, pie, heat map. The legend is ours: a list that a keyboard reaches.

import { el, token } from './dom.js';
import { format, moment } from './units.js';
import { fieldsOf, readings, reduced, colour } from './fields.js';
import { linkOf } from './links.js';

let library = null;

/** Loads the chart library once, when the first chart needs it. */
export function charts() {
  library ??= new Promise((resolve, reject) => {
    const script = el('script', { src: document.body.dataset.charts, onload: () => resolve(globalThis.Plotly), onerror: () => { library = null; reject(new Error('the chart library did not load; load the page again')); } });
    document.head.append(script);
  });
  return library;
}

/** plotly reads some markup in texts; a name that somebody sent must not be one. */
const plain = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false, scrollZoom: false };

function rem() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

/** Times on an axis: one every hundred pixels or so. */
function pointsOf(body) {
  return Math.max(2, Math.min(10, Math.floor(body.clientWidth / (rem() * 7))));
}

function layoutOf(more) {
  const size = rem() * 0.72;
  const { xaxis, yaxis, yaxis2, ...rest } = more;
  const axis = { tickangle: 0, gridcolor: token('--grid'), zerolinecolor: token('--grid'), linecolor: token('--line'), tickcolor: token('--line'), tickfont: { size, color: token('--quiet') }, automargin: true, fixedrange: true };
  return {
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', showlegend: false, autosize: false,
    font: { family: token('--font'), size, color: token('--ink') }, margin: { l: 4, r: 8, t: 6, b: 4 },
    hoverlabel: { bgcolor: token('--raised'), bordercolor: token('--line'), font: { family: token('--font'), size: size * 1.05, color: token('--ink') }, align: 'left' },
    hovermode: 'x unified', dragmode: 'zoom',
    ...rest,
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...(yaxis2 ? { yaxis2: { ...axis, ...yaxis2 } } : {}),
  };
}

/** About `count` round values that cover the range. */
export function ticks(low, high, count = 4) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => span / size <= count) ?? power * 10;
  const found = [];
  for (let at = Math.floor(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  if (found.at(-1) < high) found.push(Number((found.at(-1) + step).toPrecision(12)));
  return found;
}

/** An axis of values in the unit of its fields. */
function valueAxis(fields, stacked) {
  const sums = (fields[0]?.values ?? []).map((_, row) => fields.reduce((sum, field) => sum + Math.max(0, field.values[row] ?? 0), 0));
  const numbers = stacked ? sums : fields.flatMap((field) => field.values.filter((value) => typeof value === 'number'));
  const said = fields[0]?.config ?? {};
  const low = said.min ?? Math.min(0, ...numbers);
  const high = said.max ?? Math.max(said.custom?.axisSoftMax ?? -Infinity, ...numbers, low);
  const at = ticks(low, high > low ? high : low + 1);
  return { range: [said.min ?? at[0], said.max ?? at.at(-1)], tickmode: 'array', tickvals: at, ticktext: at.map((value) => plain(format(value, said.unit, null))) };
}

/** Draws, or draws anew what a body shows already. */
async function draw(body, traces, layout, legend) {
  const plotly = await charts();
  let holder = body.querySelector(':scope > .chart');
  if (!holder) {
    holder = el('div', { class: 'chart', 'aria-hidden': 'true' });
    body.replaceChildren(holder);
  }
  body.querySelector(':scope > .legend')?.remove();
  if (legend) body.append(legend);
  body.classList.toggle('legend-right', Boolean(legend?.classList.contains('right')));
  const { width, height } = holder.getBoundingClientRect();
  await plotly.react(holder, traces, { ...layout, width: Math.max(40, width), height: Math.max(40, height) }, CONFIG);
  return holder;
}

/** Name, colour and reductions of each series; a press shows one series alone, and all again. */
function legendOf(panel, series, onPick) {
  const { displayMode = 'list', placement = 'bottom', showLegend = true, calcs = [] } = panel.options?.legend ?? {};
  if (!showLegend || displayMode === 'hidden' || series.length < 1) return null;
  const calc = calcs[0] ?? 'lastNotNull';
  const list = el('ul', { class: `legend ${placement === 'right' ? 'right' : ''}` });
  const items = series.map((field, index) => {
    const value = reduced(field.values, calc);
    const press = el('button', { type: 'button', 'aria-pressed': 'false', onclick: () => {
      const alone = press.getAttribute('aria-pressed') === 'true' ? null : index;
      items.forEach((item, at) => item.firstChild.setAttribute('aria-pressed', String(at === alone)));
      list.classList.toggle('picked', alone !== null);
      onPick(alone);
    } },
    el('span', { class: 'chip', style: { background: field.seriesColour } }), el('span', { class: 'name' }, field.label), el('span', { class: 'value', title: field.exact(value) }, field.text(value)));
    return el('li', {}, press);
  });
  list.append(...items);
  return list;
}

const shapes = { linear: 'linear', smooth: 'spline', stepBefore: 'vh', stepAfter: 'hv' };

function withOpacity(tint, share) {
  const hex = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})/i.exec(tint);
  return hex ? `rgba(${hex.slice(1).map((part) => parseInt(part, 16)).join(',')},${share})` : tint;
}

/** The shortest step between two times: how wide a bar may be. */
function stepOf(times, answer) {
  const steps = times.slice(1).map((at, index) => Date.parse(at) - Date.parse(times[index])).filter((step) => step > 0);
  return Math.max(answer.interval_ms, steps.length ? Math.min(...steps) : (answer.to_ms - answer.from_ms) / 60);
}

function lineTrace(field, times, stacked, step) {
  const { drawStyle = 'line', lineWidth = 1.5, fillOpacity = 0, lineInterpolation = 'linear', spanNulls = false, axisPlacement, barAlignment = 0 } = field.custom;
  const tint = field.seriesColour;
  const common = { x: times, y: field.values, name: plain(field.label), customdata: field.values.map((value) => plain(field.text(value))), hovertemplate: '%{customdata}', yaxis: axisPlacement === 'right' ? 'y2' : 'y' };
  if (drawStyle === 'bars') return { ...common, type: 'bar', width: step * 0.8, ...(barAlignment ? { offset: barAlignment > 0 ? 0 : -step * 0.8 } : {}), marker: { color: withOpacity(tint, Math.max(0.35, fillOpacity / 100)), line: { color: tint, width: 0 } } };
  const dash = field.custom.lineStyle?.fill === 'dash' ? '6px,4px' : 'solid';
  return {
    ...common, type: 'scatter', mode: drawStyle === 'points' ? 'markers' : 'lines', marker: { color: tint, size: 5 }, connectgaps: Boolean(spanNulls),
    line: { color: tint, width: lineWidth, shape: shapes[lineInterpolation] ?? 'linear', dash }, stackgroup: stacked ? 'all' : undefined,
    fill: stacked ? 'tonexty' : fillOpacity ? 'tozeroy' : 'none', fillcolor: withOpacity(tint, (fillOpacity || (stacked ? 55 : 0)) / 100),
  };
}

function thresholdLines(fields) {
  const field = fields.find((one) => ['line', 'area', 'line+area', 'dashed', 'dashed+area'].includes(one.custom.thresholdsStyle?.mode));
  return (field?.steps() ?? []).filter((step) => Number.isFinite(step.from)).map((step) => ({ type: 'line', xref: 'paper', x0: 0, x1: 1, y0: step.from, y1: step.from, line: { color: step.colour, width: 1, dash: 'dot' } }));
}

export async function timeseries(panel, frames, body, { answer, onRange }) {
  const traces = [];
  const series = [];
  const stacked = ['normal', 'percent'].includes(panel.fieldConfig?.defaults?.custom?.stacking?.mode);
  for (const fields of fieldsOf(panel, frames)) {
    const times = fields.find((field) => field.type === 'time')?.values.map((ms) => new Date(ms).toISOString());
    for (const field of fields.filter((one) => one.type === 'number' && !one.hidden)) {
      if (!times) continue;
      series.push(field);
      traces.push(lineTrace(field, times, stacked, stepOf(times, answer)));
    }
  }
  const right = series.filter((field) => field.custom.axisPlacement === 'right');
  const left = series.filter((field) => field.custom.axisPlacement !== 'right');
  const layout = layoutOf({
    barmode: stacked ? 'stack' : 'group', bargap: 0.15, shapes: thresholdLines(series),
    xaxis: { type: 'date', range: [new Date(answer.from_ms).toISOString(), new Date(answer.to_ms).toISOString()], hoverformat: '%Y-%m-%d %H:%M:%S', nticks: pointsOf(body), showgrid: false, ticks: 'outside', ticklen: 3, fixedrange: false },
    yaxis: valueAxis(left.length ? left : right, stacked), yaxis2: right.length && left.length ? { ...valueAxis(right, false), overlaying: 'y', side: 'right', showgrid: false } : undefined,
  });
  const plotly = await charts();
  const legend = legendOf(panel, series, (alone) => plotly.restyle(body.querySelector('.chart'), { visible: traces.map((_, index) => alone === null || alone === index) }));
  const holder = await draw(body, traces, layout, legend);
  holder.removeAllListeners?.('plotly_relayout');
  holder.on('plotly_relayout', (change) => {
    const from = Date.parse(`${change['xaxis.range[0]']}Z`.replace(' ', 'T'));
    const to = Date.parse(`${change['xaxis.range[1]']}Z`.replace(' ', 'T'));
    if (from && to && to - from > 1000) onRange(Math.round(from), Math.round(to));
  });
}

export async function barchart(panel, frames, body, { go }) {
  const { orientation = 'auto', stacking = 'none', xField } = panel.options ?? {};
  const fields = fieldsOf(panel, frames).flat();
  const names = fields.find((field) => field.name === xField || field.label === xField) ?? fields.find((field) => field.type === 'text') ?? fields.find((field) => field.type === 'time');
  const series = fields.filter((field) => field.type === 'number' && !field.hidden && field !== names);
  const labels = (names?.values ?? series[0]?.values ?? []).map((value, row) => plain(value === null ? 'unknown' : names ? (names.type === 'time' ? moment(value) : value) : row));
  const across = orientation === 'horizontal';
  const stacked = stacking !== 'none';
  const traces = series.map((field) => {
    const perBar = series.length === 1 && (field.config.color?.mode ?? 'thresholds') === 'thresholds';
    const tints = perBar ? field.values.map((value) => field.colourOf(value)) : field.seriesColour;
    const texts = field.values.map((value) => plain(field.text(value)));
    return { type: 'bar', name: plain(field.label), orientation: across ? 'h' : 'v', x: across ? field.values : labels, y: across ? labels : field.values, customdata: texts, hovertemplate: '%{customdata}', marker: { color: tints }, ...(series.length === 1 && labels.length <= 12 ? { text: texts, textposition: 'auto', insidetextfont: { color: token('--on-tint') }, outsidetextfont: { color: token('--ink') } } : {}) };
  });
  const values = valueAxis(series, stacked);
  const categories = { type: 'category', showgrid: false, ...(across ? { autorange: 'reversed' } : {}) };
  const layout = layoutOf({ barmode: stacked ? 'stack' : 'group', bargap: 0.3, hovermode: across ? 'y unified' : 'x unified', dragmode: false, xaxis: across ? values : categories, yaxis: across ? categories : values });
  const plotly = await charts();
  const legend = series.length > 1 ? legendOf(panel, series, (alone) => plotly.restyle(body.querySelector('.chart'), { visible: traces.map((_, index) => alone === null || alone === index) })) : null;
  const holder = await draw(body, traces, layout, legend);
  holder.removeAllListeners?.('plotly_click');
  holder.on('plotly_click', ({ points }) => {
    const field = series[points[0].curveNumber];
    const link = linkOf(field, points[0].pointIndex, fields, names?.values[points[0].pointIndex] ?? '', field.values[points[0].pointIndex]);
    if (link) go(link.href);
  });
}

export async function piechart(panel, frames, body) {
  const all = readings(panel, frames).filter((reading) => typeof reading.value === 'number');
  const tints = all.map((reading, index) => (reading.field.config.color?.mode === 'fixed' ? reading.field.colourOf(reading.value) : colour(null, index)));
  const texts = all.map((reading) => plain(reading.field.text(reading.value)));
  const trace = { type: 'pie', sort: false, direction: 'clockwise', hole: panel.options?.pieType === 'donut' ? 0.6 : 0, labels: all.map((reading) => plain(reading.label)), values: all.map((reading) => reading.value), marker: { colors: tints, line: { color: token('--panel'), width: 2 } }, customdata: texts, hovertemplate: '%{label}<br>%{customdata} (%{percent})<extra></extra>', textinfo: 'percent', textposition: 'inside', insidetextorientation: 'horizontal', insidetextfont: { color: token('--on-tint') } };
  const list = el('ul', { class: 'legend right' }, ...all.map((reading, index) => el('li', {}, el('span', { class: 'chip', style: { background: tints[index] } }), el('span', { class: 'name' }, reading.label), el('span', { class: 'value', title: reading.field.exact(reading.value) }, reading.field.text(reading.value)))));
  await draw(body, [trace], layoutOf({ hovermode: 'closest' }), list);
}

export async function heatmap(panel, frames, body, { answer }) {
  const fields = fieldsOf(panel, frames.map((frame) => ({ ...frame, format: 'time_series' }))).flat();
  const time = fields.find((field) => field.type === 'time');
  const rows = fields.filter((field) => field.type === 'number' && !field.hidden);
  const bright = token('--series-1');
  const trace = {
    type: 'heatmap', x: (time?.values ?? []).map((ms) => new Date(ms).toISOString()), y: rows.map((field) => plain(field.label)), z: rows.map((field) => field.values), customdata: rows.map((field) => field.values.map((value) => plain(field.text(value)))), hovertemplate: '%{y} · %{x|%H:%M:%S}<br>%{customdata}<extra></extra>',
    colorscale: [[0, withOpacity(bright, 0.05)], [0.5, withOpacity(bright, 0.55)], [1, bright]], showscale: false, xgap: 1, ygap: 1, hoverongaps: false,
  };
  await draw(body, [trace], layoutOf({ hovermode: 'closest', xaxis: { type: 'date', range: [new Date(answer.from_ms).toISOString(), new Date(answer.to_ms).toISOString()], showgrid: false, nticks: pointsOf(body) }, yaxis: { type: 'category', showgrid: false } }));
}
