// The page that compares models on the same images. The models' ids are in the address: `?ids=a,b`.

import {api} from './api.js';
import {barList} from './charts.js';
import {$, fill, h, state} from './dom.js';
import {interval, percent} from './format.js';

const ids = (new URLSearchParams(location.search).get('ids') || '').split(',').filter(Boolean);
const SOURCES = {real: 'On real images', synthetic: 'On generated images'};
const VERDICTS = {better: 'is better than', worse: 'is worse than', not_distinguishable: 'cannot be told from'};
const MAX_CLASSES = 100;

async function load() {
  const box = $('#comparison');
  if (ids.length < 2) {
    state(box, 'empty', 'Choose two models or more in the list of models, then "Compare".');
    return;
  }
  state(box, 'loading');
  try {
    const [compared, ...models] = await Promise.all([
      api(`/models/compare?ids=${ids.map(encodeURIComponent).join(",")}`), ...ids.slice(0, 2).map(id => api(`/models/${encodeURIComponent(id)}`))]);
    box.removeAttribute('aria-busy');
    show(box, compared);
    showClasses(models);
  } catch (error) {
    state(box, 'failed', error, load);
  }
}

function show(box, compared) {
  const parts = Object.entries(SOURCES).filter(([source]) => compared[source]).map(([source, title]) => sourceView(title, compared[source]));
  fill(box, parts.length ? parts : h('p', {class: 'muted'}, 'There is no image that all of them were tested on.'),
    compared.num_left_out ? h('p', {class: 'muted'}, `${compared.num_left_out} images are left out: not every model was tested on them.`) : null,
    compared.warnings.map(one => h('p', {class: 'wrap'}, h('span', {class: 'badge warn'}, 'note'), ' ', one.detail)));
}

function sourceView(title, {num_images: number, models, pairs}) {
  const name = Object.fromEntries(models.map(one => [one.id, one.name]));
  return h('section', {class: 'card stack'}, h('h2', {}, `${title} (n = ${number})`),
    barList(models.map(one => ({name: h('a', {href: `/ui/models/${one.id}`}, one.name), ...one.accuracy, text: interval(one.accuracy)}))),
    h('ul', {}, pairs.map(one => h('li', {class: 'wrap'}, pairSentence(one, name)))));
}

function pairSentence(pair, name) {
  const points = share => `${share > 0 ? '+' : ''}${(100 * share).toFixed(1)}`;
  const {value, low, high} = pair.difference;
  return `${name[pair.first_id]} ${VERDICTS[pair.verdict]} ${name[pair.second_id]}: ${points(value)} points (${points(low)} to ${points(high)}); `
    + `only the first has ${pair.num_only_first} right, only the second ${pair.num_only_second}; McNemar p = ${pair.mcnemar_p.toPrecision(2)}`
    + (pair.detectable === null ? '.' : `; this test finds a difference of ${percent(pair.detectable)} or more.`);
}

/** Show the recalls of two models on images of one source: what only one of them was tested on says nothing here. */
function showClasses(models) {
  const source = ['real', 'synthetic', 'unseparated'].find(one => models.every(model => model.metrics.test[one]));
  if (!source) return;
  const recalls = models.map(model => new Map(model.metrics.test[source].per_class.map(one => [one.name, one.recall])));
  const names = [...recalls[0].keys()].filter(one => recalls[1].has(one)).slice(0, MAX_CLASSES);
  if (!names.length) return;
  $('#classes').hidden = false;
  fill($('#class-bars'),
    h('p', {class: 'muted small'}, `${SOURCES[source] || 'On all images'}, each in its own test.`),
    h('ul', {class: 'legend'}, models.map((model, index) => h('li', {class: `key-${index + 1}`}, model.name))),
    barList(names.flatMap(name => recalls.map((recall, index) => {
      const value = recall.get(name);
      return value ? {name: index ? '' : name, ...value, style: index + 1, text: interval(value)} : {name: index ? '' : name, value: 0, text: 'no images'};
    }))));
}

load();
