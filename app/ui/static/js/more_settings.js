// The rarely used settings of a request for images: of the Studio, and of a generation that is made again.

import {h} from './dom.js';
import {EmbeddingWords} from './embedding_words.js';
import {LoraRows} from './lora_rows.js';

// The noise schedulers with timesteps of their own, as the API's documents say of the two fields.
const OWN_SPACING = ['dpmpp_2m_karras', 'lcm', 'tcd'];
const OWN_TIMESTEPS = ['dpmpp_2m_karras'];
const NUMBERS = ['best_of', 'clip_skip'];
const CHOICES = {prompt_syntax: ['plain', 'weighted'], timestep_spacing: ['leading', 'trailing', 'linspace'], grid: ['no', 'yes']};
const LISTS = ['labels', 'timesteps'];
const INTERVAL = ['guidance_from', 'guidance_to'];

/** Return the texts of a list that is typed with commas or on lines. */
export const typedList = text => text.split(/[,\n]/).map(one => one.trim()).filter(Boolean);

/** Fill a <select> and keep its choice if that is still there; `blank`: the text of the empty choice, null for none. */
export function offerChoices(select, names, blank = null) {
  const {value} = select;
  select.replaceChildren(...(blank === null ? [] : [h('option', {value: ''}, blank)]), ...names.map(name => h('option', {}, name)));
  choose(select, value);
}

/** Choose what a <select> has; anything else leaves it. */
export function choose(select, value) {
  if ([...select.options].some(option => option.value === String(value))) select.value = value;
}

/** Return what a request says of a guidance interval. */
function intervalOf(from, to) {
  return from === '' && to === '' ? null : [Number(from || 0), Number(to || 1)];
}

export class MoreSettings {
  /**
   * Fill `root`. `prompts`: text fields that words of embeddings go into; none: no embeddings. `recorded`: the settings
   * that an empty field leaves as they are; null: those of the node.
   */
  constructor(root, {prompts = null, recorded = null, onChange = () => {}} = {}) {
    this.recorded = recorded;
    this.loras = new LoraRows(onChange);
    this.words = prompts && new EmbeddingWords(prompts, onChange);
    this.fields = this.build();
    const labels = Object.values(this.fields).map(element => element.closest('label'));
    root.append(h('div', {class: 'fields more-fields'}, labels), this.loras.root, ...(this.words ? [this.words.root] : []));
    if (recorded) this.loras.set(recorded.loras || []);
  }

  build() {
    const {recorded} = this;
    const was = value => value === null || value === undefined || value === '' || value.length === 0 ? '' : ` (${Array.isArray(value) ? value.join(', ') : value})`;
    const hint = (name, text) => recorded ? `as it was${was(recorded[name])}` : text;
    const field = (name, label, unit, control) => {
      control.name = name;
      h('label', {}, `${label} `, unit && h('span', {class: 'unit'}, `${unit} `), control);
      return control;
    };
    const number = (name, label, unit, text, bounds) => field(name, label, unit, h('input', {type: 'number', placeholder: hint(name, text), ...bounds}));
    const choice = (name, label, unit) => {
      const select = h('select', {});
      const kept = name === 'grid' ? (recorded?.grid ? 'yes' : 'no') : recorded?.[name];
      if (recorded) offerChoices(select, CHOICES[name], `as it was${was(kept)}`);
      else if (name === 'timestep_spacing') offerChoices(select, CHOICES[name], 'default');
      else select.append(...CHOICES[name].map((one, index) => h('option', {value: index ? one : ''}, one)));
      return field(name, label, unit, select);
    };
    const [from, to] = recorded?.guidance_interval || [];
    const share = (name, label, text) => field(name, label, 'share of steps', h('input', {
      type: 'number', min: 0, max: 1, step: 'any', placeholder: recorded ? `as it was${was(text)}` : text}));
    return {
      best_of: number('best_of', 'Best of', 'candidates', 'no choice', {min: 1, max: 16}),
      labels: field('labels', 'Labels', 'with commas', h('input', {placeholder: hint('labels', 'a fox, a dog')})),
      grid: choice('grid', 'Sheet', 'of all images'),
      prompt_syntax: choice('prompt_syntax', 'Prompt syntax', '(word:1.3) weighs'),
      clip_skip: number('clip_skip', 'CLIP skip', 'layers', 'none', {min: 1, max: 11}),
      timestep_spacing: choice('timestep_spacing', 'Timestep spacing', null),
      timesteps: field('timesteps', 'Timesteps', '999 to 0, falling', h('input', {placeholder: hint('timesteps', 'by spacing'), inputMode: 'numeric'})),
      guidance_from: share('guidance_from', 'Guide from', recorded ? from : '0'),
      guidance_to: share('guidance_to', 'Guide to', recorded ? to : '1'),
    };
  }

  /** Offer what a model has, as `/capabilities` lists it. */
  offer(facts, model) {
    const spacing = this.fields.timestep_spacing;
    offerChoices(spacing, facts.timestep_spacings, spacing.options[0].textContent);
    this.loras.offer(model.loras);
    this.words?.offer(facts.embeddings.filter(({name, token}) => token && model.embeddings.includes(name)));
  }

  /** Show what applies. `scheduler`: that is used; `speed`: its own settings, null for those of every request. */
  fit({scheduler, speed}) {
    const {fields} = this;
    const show = (name, isShown) => { fields[name].closest('label').hidden = !isShown; };
    show('timesteps', !OWN_TIMESTEPS.includes(scheduler));
    show('timestep_spacing', !OWN_SPACING.includes(scheduler) && !this.hasTimesteps);
    for (const name of INTERVAL) show(name, !speed);
    if (!this.recorded) fields.timestep_spacing.options[0].textContent = speed ? `default (${speed.timestep_spacing})` : 'default';
  }

  /** Whether the request names its timesteps, whose number is that of the steps. */
  get hasTimesteps() {
    return !this.fields.timesteps.closest('[hidden]') && this.fields.timesteps.value.trim() !== '';
  }

  /** Return the part of the request that is given; what is hidden or empty is not. */
  values() {
    const text = name => this.fields[name].closest('[hidden]') ? '' : this.fields[name].value.trim();
    const body = {};
    for (const name of NUMBERS) if (text(name) !== '') body[name] = Number(text(name));
    for (const name of ['prompt_syntax', 'timestep_spacing']) if (text(name)) body[name] = text(name);
    if (text('grid')) body.grid = text('grid') === 'yes';
    if (typedList(text('labels')).length) body.labels = typedList(text('labels'));
    if (this.hasTimesteps) body.timesteps = typedList(text('timesteps')).map(Number);
    const interval = intervalOf(text('guidance_from'), text('guidance_to'));
    if (interval) body.guidance_interval = interval;
    return {...body, ...this.adapters()};
  }

  adapters() {
    const loras = this.loras.root.hidden ? [] : this.loras.value;
    const names = this.words && !this.words.root.hidden ? this.words.value : [];
    const isNew = !this.recorded || JSON.stringify(loras) !== JSON.stringify((this.recorded.loras || []).map(({name, weight}) => ({name, weight})));
    const hasLoras = this.recorded ? isNew && !this.loras.root.hidden : loras.length;
    return {...(hasLoras ? {loras} : {}), ...(names.length ? {embeddings: names} : {})};
  }

  /** Return what is wrong, as [element, text]; null if nothing is. `numImages`: of the request. */
  fault(numImages) {
    const {best_of: best, timesteps, guidance_from: from, guidance_to: to} = this.fields;
    if (best.value && Number(best.value) < numImages) return [best, `This must be at least the number of images, ${numImages}.`];
    if (this.hasTimesteps) {
      const steps = typedList(timesteps.value).map(Number);
      if (!steps.every((step, index) => Number.isInteger(step) && step >= 0 && step <= 999 && (!index || step < steps[index - 1]))) {
        return [timesteps, 'These must be whole numbers from 999 to 0, each below the one before, with commas.'];
      }
    }
    const interval = from.closest('[hidden]') ? null : intervalOf(from.value, to.value);
    return interval && interval[0] >= interval[1] ? [to, 'This must be above “Guide from”.'] : null;
  }

  /** Fill in settings of a request; null empties a field, and what is not named stays. */
  set(values) {
    for (const name of [...NUMBERS, 'prompt_syntax', 'timestep_spacing']) {
      if (name in values) this.put(name, name === 'prompt_syntax' && values[name] === 'plain' ? '' : values[name]);
    }
    for (const name of LISTS) if (name in values) this.put(name, (values[name] || []).join(', '));
    if ('grid' in values) this.put('grid', values.grid ? 'yes' : '');
    if ('guidance_interval' in values) INTERVAL.forEach((name, index) => this.put(name, values.guidance_interval?.[index]));
    if ('loras' in values) this.loras.set(values.loras || []);
    if ('embeddings' in values) this.words?.set(values.embeddings || []);
  }

  put(name, value) {
    const element = this.fields[name];
    if (element.tagName === 'SELECT') choose(element, value ?? '');
    else element.value = value ?? '';
  }

  /** Return the field of a fault's place, split at its slashes; null for none. */
  elementOf([name, index, member]) {
    if (name === 'loras') return this.loras.elementOf(index ?? 0, member) || this.loras.more;
    if (name === 'embeddings') return this.words?.select ?? null;
    if (name === 'guidance_interval') return this.fields[INTERVAL[index] ?? INTERVAL[0]];
    return this.fields[name] ?? null;
  }

  /** Return the chosen adapters, to be kept for the tab. */
  get kept() {
    return {loras: this.loras.value, embeddings: this.words ? [...this.words.chosen] : []};
  }
}
