// The page of one dataset: its progress, the review of its images, uploads, more images, quality, exports.

import {api} from './api.js';
import {$, fill, h, state, toast} from './dom.js';
import {clearFaults, fileLink, showFaults} from './files.js';
import {count, duration, idOfPage, newKey, percent, when} from './format.js';
import {badge, followJob, isActive} from './jobs.js';
import {ImagePages, Pages} from './paging.js';
import {picture, Review} from './review.js';
import {startUploads} from './uploads.js';

const id = idOfPage();
const path = `/datasets/${encodeURIComponent(id)}`;
const filters = $('#filters');
const TILES = 48;
const NEWEST = 12;
const REFRESH_MS = 2_000;
const SPLITS = ['train', 'validation', 'test'];
const REPORT_VIEWS = ['duplicates', 'leakage', 'worst'];

let dataset;
let report;
let review;
let following = '';
let stopFollowing = () => {};
let numLoads = 0;

async function load({quietly = false} = {}) {
  if (!quietly) state($('#head'), 'loading');
  const turn = ++numLoads;
  try {
    const read = await api(path);
    if (turn !== numLoads) return;
    dataset = read;
  } catch (error) {
    if (!quietly || !dataset) state($('#head'), 'failed', error, () => load());
    return;
  }
  document.title = `${dataset.name} - Foxhound`;
  showHead();
  showJob();
  if (!review) start();
}

// --- Head

function showHead() {
  const {reviews} = dataset;
  fill($('#head'),
    h('div', {class: 'row spread'}, h('h1', {class: 'wrap'}, dataset.name, ' ', badge(dataset.status)),
      h('div', {class: 'row'},
        h('a', {class: 'button primary', href: `/ui/training?dataset=${dataset.id}`}, 'Train a classifier'),
        h('button', {type: 'button', onclick: repair}, 'Repair'),
        h('button', {type: 'button', class: 'danger', onclick: remove}, 'Delete'))),
    h('p', {class: 'muted', id: 'counts'}, `${count(dataset.num_images, 'image')} in ${count(dataset.classes.length, 'class', 'classes')} · `,
      `${reviews.accepted} accepted, ${reviews.rejected} rejected by review`,
      dataset.num_rejected ? ` · ${dataset.num_rejected} rejected by the filter` : '', ` · made ${when(dataset.created_at)}`),
    h('details', {open: dataset.classes.length <= 8}, h('summary', {}, 'Classes'), classTable()));
}

function classTable() {
  const shown = dataset.classes.slice(0, 200);
  const more = dataset.classes.length - shown.length;
  return h('div', {class: 'scroll'}, h('table', {},
    h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'Class'), ['Train', 'Validation', 'Test'].map(name => h('th', {scope: 'col', class: 'number'}, name)))),
    h('tbody', {}, shown.map(one => h('tr', {}, h('td', {class: 'wrap'}, one.name),
      [one.num_train, one.num_validation, one.num_test].map(number => h('td', {class: 'number'}, number)))))),
  more > 0 ? h('p', {class: 'muted'}, `and ${more} more`) : null);
}

async function repair() {
  try {
    const job = await api(`${path}/repair`, {method: 'POST'});
    toast('The repair was accepted.');
    follow(job.id);
  } catch (error) {
    toast(error.detail || error.message, 'error');
  }
}

async function remove() {
  if (!confirm(`Delete the dataset ${dataset.name} with all its images?`)) return;
  try {
    await api(path, {method: 'DELETE'});
    location.assign('/ui/datasets');
  } catch (error) {
    toast(error.detail || error.message, 'error');
  }
}

// --- Progress

function showJob() {
  const works = ['queued', 'generating'].includes(dataset.status);
  if (dataset.job_id && (works || ['failed', 'cancelled', 'incomplete'].includes(dataset.status))) follow(dataset.job_id);
}

/** Follow a job instead of an older one; ids grow with time, so an answer that comes late changes nothing. */
function follow(jobId) {
  if (jobId <= following) return;
  following = jobId;
  stopFollowing();
  $('#job').hidden = false;
  let read = 0;
  let wasActive = false;
  stopFollowing = followJob($('#job-state'), jobId, {
    onJob: job => {
      const ended = wasActive && !isActive(job);
      wasActive = isActive(job);
      if (ended) {
        load({quietly: true});
        pages?.load();
        showNewest();
      } else if (isActive(job) && Date.now() - read > REFRESH_MS) {
        read = Date.now();
        showNewest();
      }
    },
    onRetry: job => follow(job.id),
  });
}

async function showNewest() {
  const page = await api(`${path}/images?limit=${NEWEST}`).catch(() => null);
  if (!page) return;
  fill($('#newest'), page.items.map(one => h('a', {href: `/ui/images/${one.id}`}, picture(one.id, 128, {class: 'thumb', alt: one.class_name || 'image'}))));
}

// --- Review

let pages;

function start() {
  for (const name of ['review', 'add', 'quality', 'exports']) $(`#${name}`).hidden = false;
  filters.elements.class.append(...dataset.classes.map(one => h('option', {value: one.name}, one.name)));
  review = new Review({datasetId: dataset.id, one: $('#one'), onReview: recount});
  filters.addEventListener('submit', event => event.preventDefault());
  filters.addEventListener('change', showImages);
  showImages();
  startUploads({dataset, path, onStored: () => { load({quietly: true}); pages.load(); }});
  startExtension();
  showExports();
}

function recount(before, after) {
  if (before) dataset.reviews[before] -= 1;
  if (after) dataset.reviews[after] += 1;
  dataset.num_images += Number(before === 'rejected') - Number(after === 'rejected');
  $('#counts').firstChild.textContent = `${count(dataset.num_images, 'image')} in ${count(dataset.classes.length, 'class', 'classes')} · `;
  $('#counts').childNodes[1].textContent = `${dataset.reviews.accepted} accepted, ${dataset.reviews.rejected} rejected by review`;
}

async function showImages() {
  const {view, ...params} = Object.fromEntries(new FormData(filters));
  const usesReport = REPORT_VIEWS.includes(view);
  for (const name of ['class', 'split', 'source', 'review', 'min_clip_score', 'max_clip_score']) filters.elements[name].disabled = usesReport;
  pages?.request?.abort();
  review.clear();
  const options = {
    into: $('#tiles'), limit: TILES, show: (items, _page, into) => review.draw(items, into, pages),
    empty: usesReport ? 'The report lists no such image.' : Object.values(params).some(Boolean) || view ? 'No image matches.' : 'The dataset has no images yet. Drop some below.',
  };
  if (!usesReport) {
    pages = new Pages({...options, path: () => `${path}/images`, params: () => ({...params, decision: view === 'filtered' ? 'rejected' : ''})});
    await pages.load();
    return;
  }
  try {
    if (!report) {
      state($('#tiles'), 'loading', 'The images are judged for the report …');
      await readReport();
    }
    pages = new ImagePages({...options, ids: idsOf(view)});
    await pages.load();
  } catch (error) {
    state($('#tiles'), 'failed', error, showImages);
  }
}

/** The images of a view of the report, each once; the closest pairs stand beside each other. */
function idsOf(view) {
  if (view === 'worst') return report.classes.flatMap(one => one.worst.map(image => image.image_id));
  const {pairs} = view === 'leakage' ? report.leakage : report.near_duplicates;
  return [...new Set(pairs.flatMap(pair => pair.image_ids))];
}

// --- Quality

async function readReport() {
  report = await api(`${path}/report`);
  showReport();
}

function showReport() {
  const tally = (name, value, note) => h('div', {class: 'tally'}, h('span', {class: 'muted small'}, name), h('b', {}, value), h('span', {class: 'muted small'}, note));
  fill($('#report'), h('div', {class: 'tallies'},
    tally('Recognised by CLIP', percent(report.agreement), `of ${report.num_judged} judged images`),
    tally('Diversity', report.diversity === null ? '–' : report.diversity.toFixed(2), 'mean distance, 0 … 2'),
    tally('Near-duplicates', report.near_duplicates.num_images, `images in ${report.near_duplicates.num_pairs} pairs`),
    tally('Leakage', report.leakage.num_images, 'held-out images near a training image'),
    tally('Not judged', report.num_left_out, 'damaged or failed')));
}

function showQuality() {
  const judge = h('button', {type: 'button', onclick: async () => {
    state($('#report'), 'loading', 'The images are judged …');
    await readReport().catch(error => state($('#report'), 'failed', error, () => judge.click()));
  }}, 'Judge the images');
  fill($('#report'), h('p', {class: 'muted'}, 'CLIP looks at up to 1,000 images. '), judge);
  fill($('#report-links'), fileLink(`${path}/report`, 'Full report', {name: `${dataset.name}-report.html`, accept: 'text/html', opens: true}),
    fileLink(`${path}/contact-sheet.png`, 'Contact sheet', {name: `${dataset.name}.png`, opens: true}));
}

// --- More images

function startExtension() {
  const form = $('#extend');
  const body = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, Number(value) || 0]));
  const box = $('#extend-plan');
  let timer;
  let asked;
  form.addEventListener('input', () => {
    clearTimeout(timer);
    asked?.abort();
    timer = setTimeout(async () => {
      const request = asked = new AbortController();
      if (!Object.values(body()).some(Boolean)) return fill(box);
      try {
        const plan = await api(`${path}/extend?dry_run=true`, {method: 'POST', body: body(), signal: request.signal});
        fill(box, `${count(plan.num_images, 'image')}, ${plan.estimated_seconds === null ? 'unknown time' : `about ${duration(plan.estimated_seconds)}`}.`);
        clearFaults(form);
      } catch (error) {
        if (error.name !== 'AbortError') showFaults(box, error);
      }
    }, 350);
  });
  form.addEventListener('submit', async event => {
    event.preventDefault();
    try {
      const grown = await api(`${path}/extend`, {method: 'POST', body: body(), headers: {'Idempotency-Key': newKey()}});
      form.reset();
      fill(box);
      follow(grown.job_id);
      load({quietly: true});
    } catch (error) {
      showFaults(box, error);
    }
  });
}

function showExports() {
  showQuality();
  fill($('#export-links'),
    fileLink(`${path}/archive.zip`, 'ImageFolder zip', {name: `${dataset.name}.zip`}),
    SPLITS.filter(split => dataset.classes.some(one => one[`num_${split}`])).map(split =>
      fileLink(`${path}/archive/${split}.zip`, `${split} alone`, {name: `${dataset.name}-${split}.zip`})),
    fileLink(`${path}/coco.json`, 'COCO', {name: `${dataset.name}-coco.json`}),
    fileLink(`${path}/croissant.json`, 'Croissant', {name: `${dataset.name}-croissant.json`}),
    h('button', {type: 'button', onclick: showShards}, 'WebDataset shards'),
    fileLink(`${path}/recipe`, 'Recipe', {name: `${dataset.name}-recipe.json`}),
    h('button', {type: 'button', onclick: showVersion}, 'Version'));
}

async function showShards() {
  const box = $('#export-more');
  state(box, 'loading');
  try {
    const {items} = await api(`${path}/shards`);
    box.removeAttribute('aria-busy');
    fill(box, items.map(one => fileLink(one.url, one.name, {name: one.name})));
  } catch (error) {
    state(box, 'failed', error, showShards);
  }
}

async function showVersion() {
  const box = $('#export-more');
  state(box, 'loading');
  try {
    const {version} = await api(`${path}/version`);
    box.removeAttribute('aria-busy');
    fill(box, h('p', {class: 'wrap'}, 'Equal for equal files in equal classes and splits: ', h('code', {}, version)));
  } catch (error) {
    state(box, 'failed', error, showVersion);
  }
}

load();
