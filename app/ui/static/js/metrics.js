// What a model's evaluation has to say: headline, baselines, confusion matrix, classes, mistakes.

import {barList, confusionMatrix} from './charts.js';
import {h} from './dom.js';
import {interval, percent} from './format.js';
import {picture} from './review.js';

const MAX_CLASSES = 200;
const MAX_MISTAKES = 60;
const SOURCES = {real: 'On real images', synthetic: 'On generated images', unseparated: 'On all images'};
const BASELINES = {clip_zero_shot: 'CLIP without training', nearest_centroid: 'Nearest centroid', majority: 'Always the largest class'};
const VERDICTS = {better: 'the model is better', worse: 'the model is worse', not_distinguishable: 'not distinguishable'};

/** The metrics of one split, of each source of images. */
export function metricsView(metrics) {
  const found = Object.entries(SOURCES).filter(([source]) => metrics[source]);
  return h('div', {class: 'stack'},
    h('p', {class: 'headline'}, metrics.headline.sentence),
    baselines(metrics),
    found.length ? found.map(([source, title]) => sourceView(title, metrics[source])) : h('p', {class: 'muted'}, 'There were no images to test on.'));
}

function baselines({headline, baselines: known}) {
  const rows = Object.entries(BASELINES).filter(([name]) => known[name]).map(([name, title]) => {
    const {accuracy, model_minus_baseline: pair} = known[name];
    const {value, low, high} = pair.difference;
    const points = share => `${share > 0 ? '+' : ''}${(100 * share).toFixed(1)}`;
    return {name: title, ...accuracy, style: 2, text: `${interval(accuracy)}; model ${points(value)} points (${points(low)} to ${points(high)}): ${VERDICTS[pair.verdict]}`};
  });
  if (!headline.accuracy) return null;
  return h('section', {class: 'baselines'}, h('h3', {}, 'Beside the baselines'),
    barList([{name: 'This model', ...headline.accuracy, text: interval(headline.accuracy)}, ...rows]));
}

function sourceView(title, metrics) {
  const tally = (name, value) => h('div', {class: 'tally'}, h('span', {class: 'muted small'}, name), h('b', {}, value));
  return h('section', {class: 'stack'}, h('h3', {}, `${title} (n = ${metrics.n})`),
    h('div', {class: 'tallies'},
      tally('Accuracy', percent(metrics.accuracy.value)), tally('Macro F1', percent(metrics.macro_f1)),
      tally('Top 5', percent(metrics.top_5?.value)), tally('Calibration error', percent(metrics.ece)),
      tally('Brier', metrics.brier === null ? '–' : metrics.brier.toFixed(3))),
    h('p', {class: 'muted small'}, `Accuracy ${interval(metrics.accuracy)}, 95 % interval.`,
      metrics.num_small_classes ? ` ${metrics.num_small_classes} classes have fewer than 30 images: their figures say little.` : ''),
    confusionMatrix(metrics),
    h('details', {open: metrics.per_class.length <= 12}, h('summary', {}, 'Recall of each class'), classBars(metrics.per_class)),
    metrics.confused.length ? h('details', {}, h('summary', {}, 'Most confused classes'), h('ul', {}, metrics.confused.map(one => h('li', {class: 'wrap'}, `${one.class_name} taken for ${one.predicted_class}: ${one.count}`)))) : null);
}

/** Bars of the recall of classes, with intervals. */
export function classBars(classes) {
  const rows = classes.slice(0, MAX_CLASSES).map(one => one.recall
    ? {name: one.name, ...one.recall, text: `${interval(one.recall)}${one.is_small ? ', few images' : ''}`}
    : {name: one.name, value: 0, text: 'no images'});
  const more = classes.length - rows.length;
  return [barList(rows), more > 0 ? h('p', {class: 'muted'}, `and ${more} more classes`) : null];
}

/** A grid of the images that a model has wrong, each with a link. */
export function mistakesView(mistakes) {
  if (!mistakes.length) return h('p', {class: 'muted'}, 'No image of the test was wrong.');
  return h('div', {class: 'mistakes'}, mistakes.slice(0, MAX_MISTAKES).map(one => h('a', {href: `/ui/images/${one.image_id}`},
    picture(one.image_id, 160, {class: 'thumb', alt: `${one.true_class}, taken for ${one.predicted_class}`}),
    h('p', {}, h('b', {}, one.true_class), ` taken for ${one.predicted_class} (${percent(one.probability, 0)}; own class ${percent(one.true_probability, 0)})`))));
}
