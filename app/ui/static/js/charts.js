// Curves, bars with intervals and confusion matrices, as SVG and tables. Fetches nothing.

import {h} from './dom.js';
import {percent} from './format.js';

const WIDTH = 560;
const HEIGHT = 220;
const LEFT = 46;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 28;
const MAX_TABLE = 20;
const Z = 1.959964; // of a 95 % interval

/** Wilson's 95 % interval of `hits` in `n`. */
export function wilson(hits, n) {
  if (!n) return {value: 0, low: 0, high: 1, n};
  const share = hits / n;
  const scale = 1 + Z * Z / n;
  const middle = (share + Z * Z / (2 * n)) / scale;
  const half = Z * Math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / scale;
  return {value: share, low: Math.max(0, middle - half), high: Math.min(1, middle + half), n};
}

/** Lines over whole numbers such as epochs. `series`: `[{name, values: [[x, y], …]}]`, at most two; null is a gap. */
export function lineChart({title, series, isShare = false}) {
  const points = series.map(({values}) => values.filter(([, y]) => Number.isFinite(y)));
  const all = points.flat();
  if (!all.length) return h('p', {class: 'muted'}, 'There are no values yet.');
  const [x0, x1] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
  const y0 = 0;
  const y1 = isShare ? 1 : Math.max(...all.map(([, y]) => y)) * 1.05 || 1;
  const place = ([x, y]) => [
    LEFT + (x1 === x0 ? 0.5 : (x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT),
    TOP + (1 - (y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM),
  ];
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(share => {
    const y = TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
    const value = y0 + share * (y1 - y0);
    return [h('line', {class: 'axis', x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y}),
      h('text', {x: LEFT - 6, y: y + 4, 'text-anchor': 'end'}, isShare ? `${Math.round(100 * value)} %` : value.toPrecision(2))];
  });
  const ends = [...new Set([x0, x1])].map(x => h('text', {x: place([x, 0])[0], y: HEIGHT - 8, 'text-anchor': x === x0 ? 'start' : 'end'}, x));
  const lines = points.map((values, index) => values.length === 1
    ? h('circle', {class: `dot-${index + 1}`, cx: place(values[0])[0], cy: place(values[0])[1], r: 4})
    : h('polyline', {class: `line-${index + 1}`, points: values.map(one => place(one).map(n => n.toFixed(1)).join(',')).join(' ')}));
  const latest = points.map((values, index) => values.length ? `${series[index].name} ${isShare ? percent(values.at(-1)[1]) : values.at(-1)[1].toPrecision(3)}` : '').filter(Boolean).join(', ');
  return h('figure', {class: 'stack'},
    h('figcaption', {}, title),
    h('svg', {class: 'chart', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${title} after epoch ${x1}: ${latest}`}, ticks, ends, lines),
    h('ul', {class: 'legend'}, series.map(({name}, index) => points[index].length ? h('li', {class: `key-${index + 1}`}, name) : null)));
}

/** A bar of a share 0 … 1, with a whisker if it has an interval; `style`: 1 or 2. */
export function shareBar({value, low, high}, style = 1) {
  const scale = share => 100 * Math.min(Math.max(share, 0), 1);
  return h('svg', {class: 'chart share', viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true'},
    h('rect', {class: 'track', x: 0, y: 1, width: 100, height: 8, rx: 1}),
    h('rect', {class: `fill-${style}`, x: 0, y: 1, width: scale(value), height: 8, rx: 1}),
    low === undefined ? null : [
      h('line', {class: 'span', x1: scale(low), x2: scale(high), y1: 5, y2: 5, 'vector-effect': 'non-scaling-stroke'}),
      [low, high].map(end => h('line', {class: 'span', x1: scale(end), x2: scale(end), y1: 2, y2: 8, 'vector-effect': 'non-scaling-stroke'}))]);
}

/** Bars with names and values: `rows`: `[{name, value, low, high, text, style}]`. */
export function barList(rows) {
  return h('dl', {class: 'bars'}, rows.map(({name, text, style, ...share}) => [
    h('dt', {}, name), h('dd', {}, shareBar(share, style)), h('dd', {class: 'small'}, text ?? percent(share.value))]));
}

/** A confusion matrix: a table with 95 % intervals up to 20 classes, beyond that a map of cells. */
export function confusionMatrix(metrics) {
  const merged = metrics.num_merged_classes ? [`${metrics.num_merged_classes} other classes`] : [];
  const names = [...metrics.confusion_classes, ...merged];
  const matrix = metrics.confusion_matrix;
  return names.length <= MAX_TABLE ? matrixTable(names, matrix) : matrixMap(names, matrix);
}

const sum = row => row.reduce((total, one) => total + one, 0);

function matrixTable(names, matrix) {
  const cell = (number, row, column) => {
    const {value, low, high, n} = wilson(number, sum(matrix[row]));
    const range = n ? `${Math.round(100 * low)}–${Math.round(100 * high)} %` : '';
    return h('td', {class: row === column ? 'diagonal' : '', style: {'--share': value.toFixed(3)}},
      number, h('span', {class: 'small'}, range), h('span', {class: 'hidden-label'}, `of ${n} ${names[row]} predicted as ${names[column]}`));
  };
  return [h('p', {class: 'muted small'}, 'Confusion matrix. Rows: the true class. Columns: what was predicted. Below each count: the 95 % interval of its share of the row.'),
    h('div', {class: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Confusion matrix'}, h('table', {class: 'matrix'},
    h('thead', {}, h('tr', {}, h('td', {}), names.map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, matrix.map((row, index) => h('tr', {}, h('th', {scope: 'row'}, names[index]), row.map((number, column) => cell(number, index, column)))))))];
}

function matrixMap(names, matrix) {
  const size = Math.max(5, Math.floor(640 / names.length));
  const cells = matrix.flatMap((row, y) => row.map((number, x) => number === 0 ? null : h('rect', {
    class: x === y ? 'fill-1' : 'fill-2', x: x * size, y: y * size, width: size - 1, height: size - 1, 'fill-opacity': (0.2 + 0.8 * number / sum(row)).toFixed(2),
  }, h('title', {svg: true}, `${names[y]} predicted as ${names[x]}: ${number} of ${sum(row)}`))));
  const total = matrix.map(sum).reduce((one, two) => one + two, 0);
  const right = matrix.reduce((one, row, index) => one + row[index], 0);
  return h('figure', {class: 'stack'}, h('figcaption', {class: 'muted small'}, 'Rows: the true class, from the top. Columns: what was predicted. The table of confused classes has the numbers.'),
    h('svg', {class: 'chart', viewBox: `0 0 ${names.length * size} ${names.length * size}`, role: 'img', 'aria-label': `Confusion matrix of ${names.length} classes: ${right} of ${total} on the diagonal`},
      h('rect', {class: 'track', x: 0, y: 0, width: names.length * size, height: names.length * size}), cells));
}
