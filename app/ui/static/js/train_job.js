// The page of a train job: its progress and curves while it runs, and what came out of it.

import {api} from './api.js';
import {lineChart} from './charts.js';
import {$, fill, h, state} from './dom.js';
import {fileLink} from './files.js';
import {idOfPage} from './format.js';
import {followJob, isActive} from './jobs.js';
import {metricsView, mistakesView} from './metrics.js';

const path = `/train-jobs/${encodeURIComponent(idOfPage())}`;
const REFRESH_MS = 700;
const MAX_POINTS = 300;

let job;
let reading = false;
let again = false;

async function load() {
  state($('#head'), 'loading');
  try {
    job = await api(path);
  } catch (error) {
    state($('#head'), 'failed', error, () => load());
    return;
  }
  document.title = `${job.name} - Foxhound`;
  show();
  $('#job').hidden = false;
  followJob($('#job-state'), job.id, {onJob: read, onRetry: next => location.assign(`/ui/train-jobs/${next.id}`)});
  if (job.model_id) showResult();
}

/** Read the epochs again, at most once in a while; the last state is always read. */
async function read() {
  if (reading) {
    again = true;
    return;
  }
  reading = true;
  const before = job.model_id;
  job = await api(path).catch(() => job);
  show();
  if (job.model_id && !before) showResult();
  setTimeout(() => {
    reading = false;
    if (again) {
      again = false;
      read();
    }
  }, REFRESH_MS);
}

function show() {
  fill($('#head'), h('h1', {class: 'wrap'}, job.name), h('p', {}, h('a', {href: `/ui/datasets/${job.dataset_id}`}, 'The dataset'),
    job.model_id ? [' · ', h('a', {href: `/ui/models/${job.model_id}`}, 'The model')] : null));
  fill($('#warnings'), job.warnings.map(one => h('p', {class: 'card wrap'}, h('span', {class: 'badge warn'}, 'note'), ' ', one.detail)));
  showCurves();
  $('#settings-card').hidden = false;
  fill($('#settings'), h('details', {}, h('summary', {}, 'All settings'), h('pre', {tabIndex: 0}, JSON.stringify(settings(job.spec), null, 2))));
}

function settings({warnings, dataset, ...spec}) {
  return {...spec, ...(dataset ? {dataset: {name: dataset.name}} : {})};
}

/** Every n-th epoch, and the last. */
function thinned(epochs) {
  const step = Math.ceil(epochs.length / MAX_POINTS);
  return epochs.filter((_, index) => index % step === 0 || index === epochs.length - 1);
}

function showCurves() {
  const epochs = thinned(job.epochs);
  $('#curves-card').hidden = !epochs.length && !isActive(job);
  const heldOut = epochs.some(one => one.validation_loss !== null) ? 'validation' : 'test';
  const line = (split, what) => ({name: split, values: epochs.map(one => [one.epoch, one[`${split}_${what}`]])});
  fill($('#curves'), epochs.length
    ? [lineChart({title: 'Loss', series: [line('train', 'loss'), line(heldOut, 'loss')]}),
      lineChart({title: 'Accuracy', series: [line('train', 'accuracy'), line(heldOut, 'accuracy')], isShare: true})]
    : h('p', {class: 'muted'}, 'The curves begin with the first epoch.'));
}

async function showResult() {
  for (const name of ['result', 'mistakes-card']) $(`#${name}`).hidden = false;
  fill($('#links'),
    h('a', {class: 'button primary', href: `/ui/models/${job.model_id}`}, 'Open the model'),
    fileLink(`${path}/report`, 'Full report', {name: `${job.name}-report.html`, accept: 'text/html', opens: true}));
  state($('#metrics'), 'loading');
  try {
    const report = await api(`${path}/report`);
    fill($('#metrics'), metricsView(report.metrics.test));
    $('#metrics').removeAttribute('aria-busy');
    fill($('#mistakes'), mistakesView(report.mistakes));
  } catch (error) {
    state($('#metrics'), 'failed', error, showResult);
  }
}

load();
