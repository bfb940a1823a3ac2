// The gallery: an endless grid of stored images with filters, which are in the page's address.

import {api} from './api.js';
import {$, fill, h, state, whenBack} from './dom.js';
import {capabilities} from './node_facts.js';
import {thumbnail} from './thumbnails.js';
import {VirtualGrid} from './virtual_grid.js';

const PAGE = 100;
const NAMES = ['prompt', 'dataset_id', 'class', 'split', 'model'];
// Widths of small copies that are made; a screen of two pixels a point gets the next larger one.
const WIDTHS = [128, 256, 512];

const form = $('#filters');
const told = $('#told');
const end = $('#end');
const datasets = new Map();
let cursor = null;
let isAll = false;
let loading = null;
let numRead = 0;

const grid = new VirtualGrid($('#grid'), {build: tile, onNear: () => load(), size: Number($('#size').value)});

function widthOf(edge) {
  const pixels = edge * Math.min(window.devicePixelRatio || 1, 2);
  return WIDTHS.find(width => width >= pixels) || WIDTHS.at(-1);
}

function tile(image, index) {
  const text = [`Image ${index + 1}`, image.class_name, image.seed !== null && `seed ${image.seed}`].filter(Boolean).join(', ');
  const shown = thumbnail(image, widthOf(grid.edge), text);
  const link = h('a', {href: `/ui/images/${image.id}`, draggable: 'true'}, shown, image.class_name && h('span', {class: 'caption'}, image.class_name));
  link.addEventListener('dragstart', event => event.dataTransfer.setData('text/x-foxhound-image', image.id));
  return h('div', {role: 'listitem'}, link);
}

const chosen = () => Object.fromEntries(NAMES.map(name => [name, form.elements[name].value.trim()]).filter(([, value]) => value));

let hasBegun = false;

function load() {
  if (loading || !hasBegun) return; // the grid asks as soon as it has a size, before the filters of the URL are chosen
  const reading = read().finally(() => {
    if (loading !== reading) return; // a new search has begun meanwhile
    loading = null;
    if (!isAll && !end.firstChild) grid.schedule();
  });
  loading = reading;
}

/** Read the next page; a page of a search may be empty though others follow. */
async function read() {
  if (isAll || $('.error', end)) return;
  const asked = new AbortController();
  read.current = asked;
  const query = new URLSearchParams({limit: PAGE, ...chosen(), ...(cursor ? {cursor} : {})});
  if (!grid.items.length) state(end, 'loading');
  try {
    const page = await api(`/images?${query}`, {signal: asked.signal});
    if (asked.signal.aborted) return;
    end.replaceChildren();
    cursor = page.next_cursor;
    isAll = !cursor;
    numRead += 1;
    grid.add(page.items.map(({id, width, height, seed, class_name: name}) => ({id, width, height, seed, class_name: name})));
    tell();
  } catch (error) {
    if (error.name !== 'AbortError') state(end, 'failed', error, again);
  }
}

function again() {
  end.replaceChildren();
  load();
}

function tell() {
  const number = grid.items.length;
  if (isAll && !number) {
    const isFiltered = Object.keys(chosen()).length > 0;
    state(end, 'empty', isFiltered ? 'No image matches these filters.' : 'There are no images yet. The Studio makes some.');
  }
  const searching = !isAll && numRead > 1 && number < PAGE;
  told.textContent = isAll ? `${number} ${number === 1 ? 'image' : 'images'}` : searching ? `${number} images so far. Searching …` : `${number} images and more`;
}

function restart() {
  read.current?.abort();
  loading = null;
  cursor = null;
  isAll = false;
  numRead = 0;
  end.replaceChildren();
  const query = new URLSearchParams(chosen());
  history.replaceState(null, '', query.size ? `?${query}` : location.pathname);
  grid.clear();
  load();
}

function offerClasses(wanted = '') {
  const dataset = datasets.get(form.elements.dataset_id.value);
  const names = dataset ? dataset.classes.map(one => one.name) : [];
  fill(form.elements.class, h('option', {value: ''}, 'any'), names.map(name => h('option', {value: name}, name)));
  form.elements.class.value = names.includes(wanted) ? wanted : '';
  form.elements.class.disabled = form.elements.split.disabled = !dataset;
  if (!dataset) form.elements.split.value = '';
}

async function offerDatasets(wanted) {
  let next = null;
  do {
    const page = await api(`/datasets?limit=100${next ? `&cursor=${next}` : ''}`);
    for (const dataset of page.items) datasets.set(dataset.id, dataset);
    next = page.next_cursor;
  } while (next && datasets.size < 1_000);
  const options = [...datasets.values()].map(({id, name}) => h('option', {value: id}, name));
  fill(form.elements.dataset_id, h('option', {value: ''}, 'any'), options);
  form.elements.dataset_id.value = datasets.has(wanted) ? wanted : '';
}

async function begin() {
  const asked = new URLSearchParams(location.search);
  for (const name of ['prompt', 'model']) form.elements[name].value = asked.get(name) || '';
  const choices = offer(asked);
  if (asked.get('dataset_id')) await choices;
  hasBegun = true;
  load();
}

/** Offer datasets and models to filter by; once the node answers, if it does not. */
async function offer(asked) {
  try {
    await offerDatasets(asked.get('dataset_id') || '');
    offerClasses(asked.get('class') || '');
    if (asked.get('dataset_id')) form.elements.split.value = asked.get('split') || '';
    const {pack} = await capabilities();
    fill($('#models'), h('option', {value: pack.name}));
  } catch (error) {
    if (error.status === 0) whenBack(() => offer(asked));
  }
}

let typed = null;
form.addEventListener('input', event => {
  if (event.target.id === 'size') {
    grid.resize(Number(event.target.value));
    return;
  }
  if (event.target.name === 'dataset_id') offerClasses();
  clearTimeout(typed);
  typed = setTimeout(restart, event.target.tagName === 'SELECT' ? 0 : 300);
});
form.addEventListener('submit', event => {
  event.preventDefault();
  clearTimeout(typed);
  restart();
});
begin();
