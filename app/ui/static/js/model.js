// The page of a trained model: try it, its test, mistakes, evaluations, downloads, lineage, card.

import {api, send} from './api.js';
import {barList} from './charts.js';
import {$, fill, h, state, toast} from './dom.js';
import {dropZone, fileLink, showFaults} from './files.js';
import {bytes, idOfPage, interval, percent, when} from './format.js';
import {followJob} from './jobs.js';
import {metricsView, mistakesView} from './metrics.js';
import {classifyWithNearest, nearestView} from './nearest.js';
import {Pages} from './paging.js';

const path = `/models/${encodeURIComponent(idOfPage())}`;
const TOP = 5;
const MAX_ANSWERS = 12;

let model;

async function load() {
  state($('#head'), 'loading');
  try {
    model = await api(path);
  } catch (error) {
    state($('#head'), 'failed', error, () => load());
    return;
  }
  document.title = `${model.name} - Foxhound`;
  $('#content').hidden = false;
  showHead();
  fill($('#metrics'), metricsView(model.metrics.test));
  showDownloads();
  showLineage();
  $('#drop').replaceChildren(dropZone({label: 'Classify pictures.', onFiles: classifyAll}));
  evaluations.load();
  showMistakes();
  offerDatasets();
}

function showHead() {
  fill($('#head'), h('div', {class: 'row spread'}, h('h1', {class: 'wrap'}, model.name),
    h('button', {type: 'button', class: 'danger', onclick: remove}, 'Delete')),
  h('p', {class: 'muted wrap'}, `${model.classes.length} classes on ${model.backbone} · trained ${when(model.created_at)} · `,
    h('a', {href: `/ui/train-jobs/${model.job_id}`}, 'train job'), ' · ', h('a', {href: `/ui/datasets/${model.dataset_id}`}, 'dataset')),
  h('details', {}, h('summary', {}, 'Classes'), h('p', {class: 'wrap'}, model.classes.join(', '))));
}

async function remove() {
  if (!confirm(`Delete the model ${model.name}?`)) return;
  try {
    await api(path, {method: 'DELETE'});
    location.assign('/ui/training');
  } catch (error) {
    toast(error.detail || error.message, 'error');
  }
}

// --- Classify

async function classifyAll(files) {
  for (const file of files.slice(0, MAX_ANSWERS)) await classify(file);
}

async function classify(file) {
  const box = h('article', {class: 'columns'});
  $('#answer').prepend(box);
  while ($('#answer').childElementCount > MAX_ANSWERS) $('#answer').lastElementChild.remove();
  state(box, 'loading', `${file.name} is classified …`);
  try {
    const answer = await classifyWithNearest(nearest => ask(file, nearest));
    box.removeAttribute('aria-busy');
    fill(box, shownFile(file, answer.explanation_png_b64), h('div', {class: 'stack'},
      h('h3', {class: 'wrap'}, `${answer.predictions[0].label}, ${percent(answer.predictions[0].probability)}`),
      barList(answer.predictions.map(one => ({name: one.label, value: one.probability}))),
      answer.nearest ? nearestView(answer.nearest) : noNearest(answer.withoutNearest)));
  } catch (error) {
    state(box, 'failed', error, () => { box.remove(); classify(file); });
  }
}

function ask(file, nearest) {
  const form = new FormData();
  form.append('image', file);
  form.append('model', model.id);
  form.append('top_k', String(TOP));
  if ($('#explain').checked) form.append('explain', 'true');
  if (nearest) form.append('nearest', String(nearest));
  return api('/classify/files', {method: 'POST', form});
}

function noNearest({code}) {
  if (code === 'training_images_gone') return h('p', {class: 'muted small'}, 'The training images are gone, so none can be shown beside it.');
  return h('p', {class: 'muted small'}, 'The features of the training images are not at hand. ',
    h('button', {type: 'button', class: 'link', onclick: () => evaluateOn(model.dataset_id, 'train')}, 'Compute them'));
}

function shownFile(file, explanation) {
  const url = URL.createObjectURL(file);
  const own = h('img', {class: 'thumb', alt: file.name, src: url, onload: () => URL.revokeObjectURL(url)});
  const heat = explanation && h('img', {class: 'thumb', alt: 'Where the classifier looks', src: `data:image/png;base64,${explanation}`});
  return h('figure', {class: 'stack'}, h('div', {class: 'asked'}, own, heat), h('figcaption', {class: 'muted small wrap'}, file.name));
}

// --- Test and evaluations

async function showMistakes() {
  const box = $('#mistakes');
  state(box, 'loading');
  try {
    const {items} = await api(`${path}/evaluations?limit=100`);
    const own = items.find(one => one.job_id === model.job_id);
    const read = own && await api(`${path}/evaluations/${own.id}`);
    box.removeAttribute('aria-busy');
    fill(box, read ? mistakesView(read.mistakes) : h('p', {class: 'muted'}, 'The test of this model was not recorded image by image.'));
  } catch (error) {
    state(box, 'failed', error, showMistakes);
  }
}

const evaluations = new Pages({
  into: $('#evaluations'), path: () => `${path}/evaluations`, limit: 10, empty: 'It was not evaluated yet.',
  show: (items, _page, into) => fill(into, h('div', {class: 'scroll'}, h('table', {},
    h('thead', {}, h('tr', {}, ['Dataset', 'Split', 'Accuracy', 'Images', 'When', 'Report'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, items.map(one => h('tr', {}, h('td', {class: 'wrap'}, h('a', {href: `/ui/datasets/${one.dataset_id}`}, one.dataset_name)), h('td', {}, one.split),
      h('td', {}, interval(one.metrics.headline.accuracy)), h('td', {}, one.metrics.headline.source || '–'), h('td', {}, when(one.created_at)),
      h('td', {}, h('button', {type: 'button', 'aria-label': `Read the evaluation on ${one.dataset_name}, ${one.split}`, onclick: () => openEvaluation(one)}, 'Read')))))))),
});

/** Show what an evaluation found, with its mistakes. */
async function openEvaluation({id, dataset_name: name, split}) {
  const box = $('#evaluation');
  state(box, 'loading');
  try {
    const read = await api(`${path}/evaluations/${id}`);
    box.removeAttribute('aria-busy');
    fill(box, h('h3', {class: 'wrap'}, `On ${name}, ${split}`), metricsView(read.metrics), mistakesView(read.mistakes));
  } catch (error) {
    state(box, 'failed', error, () => openEvaluation({id, dataset_name: name, split}));
  }
}

async function offerDatasets() {
  const {items} = await api('/datasets?limit=100').catch(() => ({items: []}));
  const names = new Set(model.classes);
  const fitting = items.filter(one => one.num_images && one.classes.every(entry => names.has(entry.name)));
  fill($('#evaluate').elements.dataset_id, fitting.map(one => h('option', {value: one.id}, one.name)));
  $('#evaluate button').disabled = !fitting.length;
}

$('#evaluate').addEventListener('submit', event => {
  event.preventDefault();
  const {dataset_id: dataset, split} = Object.fromEntries(new FormData(event.target));
  evaluateOn(dataset, split);
});

async function evaluateOn(dataset, split) {
  const box = $('#evaluate-state');
  try {
    const job = await api(`${path}/evaluations`, {method: 'POST', body: {dataset_id: dataset, split}});
    followJob(box, job.id, {onJob: one => one.status === 'succeeded' && evaluations.load(), onRetry: () => evaluations.load()});
  } catch (error) {
    showFaults(box, error);
  }
}

// --- Downloads, lineage, card

function showDownloads() {
  const link = (format, label, name) => fileLink(`${path}/export?format=${format}`, label, {name});
  fill($('#downloads'),
    link('onnx', 'ONNX', `${model.name}.onnx`), link('safetensors', 'safetensors', `${model.name}.safetensors`), link('bundle', 'Bundle that runs without Foxhound', `${model.name}.zip`),
    fileLink(`${path}/weights?format=safetensors`, `Head alone (${bytes(model.num_bytes)})`, {name: `${model.name}-head.safetensors`}),
    fileLink(`/train-jobs/${model.job_id}/report`, 'Report', {name: `${model.name}-report.html`, accept: 'text/html', opens: true}));
}

function showLineage() {
  const {dataset, backbone, training} = model.lineage;
  const facts = {
    Dataset: dataset && `${dataset.name}, ${dataset.num_images} images, ${dataset.num_real} of them real`,
    'Version of the dataset': dataset?.version,
    Backbone: backbone && [backbone.name, backbone.architecture, backbone.dtype, backbone.device].filter(Boolean).join(', '),
    'Weights of the backbone': model.backbone_sha256,
    'Fine-tuned from': backbone?.fine_tuned_from?.name,
    Head: training?.chosen?.solver || training?.head?.solver,
    'Epochs and seed': training && `${training.epochs} epochs, seed ${training.seed}`,
    Preset: training?.preset,
    'Hash of the model': model.sha256,
  };
  fill($('#lineage'), h('dl', {class: 'facts'}, Object.entries(facts).filter(([, value]) => value).map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)])));
}

$('#card').addEventListener('toggle', async () => {
  const box = $('#card-text');
  if (!$('#card').open || box.childElementCount) return;
  state(box, 'loading');
  try {
    const text = await (await send(`${path}/card`)).text();
    box.removeAttribute('aria-busy');
    fill(box, h('pre', {tabIndex: 0}, text));
  } catch (error) {
    state(box, 'failed', error);
  }
});

load();
