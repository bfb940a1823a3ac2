// The page of one image: what made it, what its file says, and what the models see in it.

import {api, blob, imageUrl} from './api.js';
import {shareBar} from './charts.js';
import {$, fill, h, state, toast} from './dom.js';
import {badNumber, markAll, markOne, unmark} from './faults.js';
import {bytes, idOfPage, when} from './format.js';
import {MoreSettings, offerChoices} from './more_settings.js';
import {classifyWithNearest, nearestView} from './nearest.js';
import {capabilities, generateFields} from './node_facts.js';
import {pngTexts} from './png_texts.js';
import {thumbnail} from './thumbnails.js';

const id = idOfPage();
const root = $('#image');

const facts = pairs => h('dl', {class: 'facts'}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== '')
  .map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));

async function begin() {
  state(root, 'loading');
  try {
    const image = await api(`/images/${encodeURIComponent(id)}/metadata`);
    draw(image, await imageUrl(id));
    root.removeAttribute('aria-busy');
  } catch (error) {
    state(root, 'failed', error, begin);
  }
}

function draw(image, url) {
  const {lineage} = image;
  const file = h('details', {class: 'card'}, h('summary', {}, 'Settings in the file'), h('div', {class: 'stack', id: 'texts'}));
  file.addEventListener('toggle', () => readTexts(image, $('#texts')), {once: true});
  fill(root, h('div', {class: 'columns image-page'},
    h('div', {class: 'stack'},
      h('a', {href: url}, h('img', {src: url, class: 'whole', width: image.width, height: image.height, alt: lineage.prompt || `Image ${image.id}`})),
      h('div', {class: 'row'},
        h('a', {class: 'button', href: url, download: `${image.id}.${image.format}`}, 'Download'),
        lineage.prompt && h('a', {class: 'button', href: `/ui?from=${image.id}`}, 'Use these settings'),
        h('a', {class: 'button', href: `/ui?init=${image.id}`, id: 'as-init', hidden: true}, 'Use as init image'),
        image.generation_id && h('button', {type: 'button', class: 'danger', onclick: () => remove(image)}, 'Delete'))),
    h('div', {class: 'stack'}, details(image), image.generation_id && again(image), scores(), classes(), lineageOf(lineage), file)));
  generateFields().then(fields => {
    $('#as-init').hidden = !fields.has('init_image');
  }).catch(() => {});
  offerModels();
}

function details(image) {
  const dataset = image.dataset_id && h('a', {href: `/ui/datasets/${image.dataset_id}`}, 'dataset');
  return h('section', {class: 'card'}, h('h2', {}, 'Image'), facts([
    ['Made', when(image.created_at)],
    ['Size', `${image.width} × ${image.height}, ${image.format}, ${bytes(image.num_bytes)}`],
    ['Source', image.source],
    ['Belongs to', dataset],
    ['Class', image.class_name],
    ['Split', image.split],
    ['Filter', image.dataset_id && image.decision],
    ['Reason', image.reason],
    ['Review', image.review],
    ['CLIP score', image.clip_score?.toFixed(1)],
    ['Safety', image.flagged === null || image.flagged === undefined ? null : image.flagged ? 'flagged' : 'not flagged'],
    ['Id', h('code', {}, image.id)],
    ['SHA-256', h('code', {}, image.sha256)],
  ]));
}

function lineageOf(lineage) {
  const shown = value => typeof value === 'object' ? h('code', {}, JSON.stringify(value)) : String(value);
  const pairs = Object.entries(lineage).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('section', {class: 'card', id: 'lineage'}, h('h2', {}, 'How it was made'),
    lineage.prompt && h('p', {class: 'wrap'}, lineage.prompt),
    facts(pairs.filter(([name]) => name !== 'prompt').map(([name, value]) => [name.replaceAll('_', ' '), shown(value)])));
}

async function readTexts(image, box) {
  state(box, 'loading');
  try {
    const texts = pngTexts(await (await blob(image.url)).arrayBuffer());
    const names = Object.keys(texts).filter(name => !name.startsWith('XML:'));
    if (!names.length) state(box, 'empty', image.format === 'png' ? 'The file has no settings.' : 'Only PNG files are read here; this one is a JPEG or WebP.');
    else fill(box, names.map(name => h('div', {}, h('h3', {}, name), h('pre', {tabindex: '0'}, texts[name]))));
    box.removeAttribute('aria-busy');
  } catch (error) {
    state(box, 'failed', error, () => readTexts(image, box));
  }
}

function bars(items) {
  return h('table', {}, h('tbody', {}, items.map(({label, probability, note}) => h('tr', {},
    h('th', {scope: 'row', class: 'wrap'}, label),
    h('td', {class: 'bar-cell'}, shareBar({value: probability})),
    h('td', {class: 'number'}, `${(100 * probability).toFixed(1)} %`), note !== undefined && h('td', {class: 'number muted small'}, note)))));
}

/**
 * A form whose answer is shown below it. `ask(form)` returns elements; `check(form)` a fault, as
 * [element, text], and `elementOf(pointer)` the field of one that the node finds: with them the form says them itself.
 */
function asking({title, fields, button, ask, check, elementOf}) {
  const answer = h('div', {class: 'stack', 'aria-live': 'polite'});
  const form = h('form', {class: 'stack', noValidate: Boolean(check)}, fields, h('button', {}, button));
  const faults = lines => h('div', {role: 'alert', class: 'error'}, lines.map(line => h('p', {class: 'wrap'}, line)));
  form.addEventListener('submit', async event => {
    event.preventDefault();
    unmark(form);
    const fault = check?.(form);
    if (fault) {
      fill(answer, faults([markOne(fault)]));
      return;
    }
    state(answer, 'loading');
    try {
      fill(answer, await ask(form));
    } catch (error) {
      if (elementOf && error.errors?.length) fill(answer, faults(markAll(error, elementOf)));
      else state(answer, 'failed', error);
    } finally {
      answer.removeAttribute('aria-busy');
    }
  });
  return h('section', {class: 'card stack'}, h('h2', {}, title), form, answer);
}

function scores() {
  const labels = h('textarea', {name: 'labels', rows: 2, required: true, placeholder: 'a fox, a dog, a cat'});
  return asking({
    title: 'CLIP score', button: 'Score', fields: [h('label', {}, 'Labels, separated by commas ', labels)],
    ask: async () => {
      const typed = labels.value.split(/[,\n]/).map(text => text.trim()).filter(Boolean);
      const {scores: found, warnings} = await api('/clip-score', {method: 'POST', body: {image_id: id, labels: typed}});
      const sorted = [...found].sort((a, b) => b.probability - a.probability);
      return [bars(sorted.map(one => ({...one, note: `cosine ${one.cosine.toFixed(3)}`}))), (warnings || []).map(one => h('p', {class: 'muted small'}, one.detail))];
    },
  });
}

function classes() {
  const model = h('select', {name: 'model', id: 'classifier'}, h('option', {value: ''}, 'pretrained classifier'));
  return asking({
    title: 'Classifier', button: 'Classify', fields: [h('label', {}, 'Model ', model)],
    ask: async () => {
      const body = {image_id: id, top_k: 5};
      const send = more => api('/classify', {method: 'POST', body: {...body, ...more}});
      if (!model.value) return bars((await send({})).predictions);
      const answer = await classifyWithNearest(nearest => send({model: model.value, ...(nearest ? {nearest} : {})}));
      return [bars(answer.predictions), answer.nearest && nearestView(answer.nearest)];
    },
  });
}

const CHANGES = {
  seed: {label: 'Seed', min: 0}, num_inference_steps: {label: 'Steps', min: 1, max: 150}, guidance_scale: {label: 'Guidance', min: 0, max: 30, step: 'any'},
  width: {label: 'Width', min: 64, max: 1024, step: 8}, height: {label: 'Height', min: 64, max: 1024, step: 8},
  strength: {label: 'Strength, from this image', min: 0.05, max: 1, step: 'any'},
};

/** A form that repeats the request of a made image with other settings; an empty field leaves what was. */
function again(image) {
  const inputs = Object.entries(CHANGES).map(([name, {label, ...bounds}]) =>
    h('label', {}, `${label} `, h('input', {name, type: 'number', placeholder: image.lineage[name] ?? 'as it was', ...bounds})));
  const rest = h('details', {hidden: true}, h('summary', {}, 'More settings'));
  let more = null;
  const section = asking({
    title: 'Again, with changes', button: 'Make it again', fields: [h('div', {class: 'fields'}, inputs), rest],
    check: form => badNumber(form) ?? more?.fault(more.recorded.num_images_per_prompt),
    elementOf: pointer => {
      const place = pointer.replace(/^#\/?/, '').split('/');
      return more?.elementOf(place) ?? $('form', section).elements[place[0]] ?? null;
    },
    ask: async form => {
      const body = Object.fromEntries([...new FormData(form)].filter(([name, value]) => name in CHANGES && value !== '' && !form.elements[name].closest('[hidden]'))
        .map(([name, value]) => [name, Number(value)]));
      for (const {name, value} of form.querySelectorAll('[name=scheduler], [name=speed]')) if (value) body[name] = value;
      const made = await api(`/generations/${image.generation_id}/repeat`, {method: 'POST', body: {...body, ...more?.values()}});
      return h('div', {class: 'grid made'}, made.images.map(one => h('a', {href: `/ui/images/${one.id}`}, thumbnail(one, 256, `Made again, seed ${one.seed}`))));
    },
  });
  Promise.all([api(`/generations/${image.generation_id}`), capabilities()]).then(([{parameters}, facts]) => {
    more = offerAgain($('form', section), rest, parameters, facts);
  }).catch(() => {}); // the first fields do without
  return section;
}

/** Fill in the settings that depend on what the node has, and return those that are rarely used. */
function offerAgain(form, rest, parameters, facts) {
  const drawings = Object.values(facts.models).map(one => one.drawing).filter(Boolean);
  const model = drawings.find(one => parameters.model ? one.name === parameters.model : one.is_default) || drawings[0];
  const scheduler = h('select', {name: 'scheduler'});
  const speed = h('select', {name: 'speed'});
  offerChoices(scheduler, model.noise_schedulers, `as it was (${parameters.scheduler})`);
  offerChoices(speed, model.speeds, `as it was (${parameters.speed})`);
  $('.fields', form).append(h('label', {}, 'Scheduler ', scheduler), h('label', {}, 'Speed ', speed));
  const more = new MoreSettings(rest, {recorded: parameters});
  more.offer(facts, model);
  const own = name => facts.speeds.find(one => one.name === name)?.defaults ?? null;
  const fit = () => {
    const chosen = own(speed.value || parameters.speed);
    const usual = Boolean(chosen) === Boolean(own(parameters.speed)) ? parameters.scheduler : chosen?.scheduler ?? model.default_noise_scheduler;
    more.fit({scheduler: scheduler.value || usual, speed: chosen});
    form.elements.guidance_scale.closest('label').hidden = Boolean(chosen);
    form.elements.num_inference_steps.closest('label').hidden = more.hasTimesteps;
    form.elements.num_inference_steps.max = chosen?.max_num_inference_steps ?? facts.limits.num_inference_steps;
  };
  form.addEventListener('input', fit);
  fit();
  rest.hidden = false;
  return more;
}

async function offerModels() {
  const {items} = await api('/models?limit=100').catch(() => ({items: []}));
  $('#classifier').append(...items.map(one => h('option', {value: one.id}, one.name)));
}

async function remove(image) {
  const dialog = h('dialog', {'aria-label': 'Delete'}, h('form', {method: 'dialog', class: 'stack'},
    h('p', {}, 'Delete this image, and the others of the same request? Their files are removed.'),
    h('div', {class: 'row'}, h('button', {value: 'yes', class: 'danger'}, 'Delete'), h('button', {value: ''}, 'Keep'))));
  document.body.append(dialog);
  dialog.showModal();
  dialog.addEventListener('close', async () => {
    dialog.remove();
    if (dialog.returnValue !== 'yes') return;
    try {
      await api(`/generations/${image.generation_id}`, {method: 'DELETE'});
      location.assign('/ui/gallery');
    } catch (error) {
      toast(error.detail || error.message, 'error');
    }
  });
}

begin();
