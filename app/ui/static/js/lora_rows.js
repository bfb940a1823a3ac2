// The LoRAs of a request: rows of a name and a weight, chosen from those that the node lists for its model.

import {fill, h} from './dom.js';

const MAX_ROWS = 8;

export class LoraRows {
  constructor(onChange) {
    this.onChange = onChange;
    this.names = [];
    this.uses = [];
    this.rows = h('div', {class: 'stack tight'});
    this.more = h('button', {type: 'button', onclick: () => this.add()}, 'Add a LoRA');
    this.root = h('fieldset', {hidden: true}, h('legend', {}, 'LoRAs'), this.rows, h('div', {class: 'row'}, this.more));
  }

  /** Offer the LoRAs that fit the model; rows of others are dropped. */
  offer(names) {
    this.names = names;
    this.root.hidden = !names.length;
    this.set(this.uses);
  }

  /** Return the LoRAs as a request has them. */
  get value() {
    return this.uses.map(({name, weight}) => ({name, weight}));
  }

  set(uses) {
    this.uses = uses.filter(({name}) => !this.names.length || this.names.includes(name)).map(({name, weight}) => ({name, weight}));
    this.draw();
  }

  add() {
    const name = this.free()[0];
    if (!name || this.uses.length >= MAX_ROWS) return;
    this.uses.push({name, weight: 1});
    this.draw();
    this.elementOf(this.uses.length - 1).focus();
    this.onChange();
  }

  /** Return the names that no row has. */
  free() {
    return this.names.filter(name => !this.uses.some(use => use.name === name));
  }

  draw() {
    if (!this.names.length) return;
    fill(this.rows, this.uses.map((use, index) => this.row(use, index)));
    this.more.disabled = this.uses.length >= MAX_ROWS || !this.free().length;
  }

  row(use, index) {
    const name = h('select', {'aria-label': `LoRA ${index + 1}`, onchange: event => {
      use.name = event.target.value;
      this.draw();
      this.elementOf(index).focus();
      this.onChange();
    }}, [use.name, ...this.free()].sort().map(one => h('option', {}, one)));
    name.value = use.name;
    const weight = h('input', {type: 'number', min: -10, max: 10, step: 'any', value: use.weight, required: true, 'aria-label': `Weight of LoRA ${index + 1}`,
      oninput: event => { use.weight = event.target.valueAsNumber; }});
    const remove = h('button', {type: 'button', 'aria-label': `Remove LoRA ${index + 1}`, onclick: () => {
      this.uses.splice(index, 1);
      this.draw();
      (this.elementOf(Math.min(index, this.uses.length - 1)) || this.more).focus();
      this.onChange();
    }}, 'Remove');
    return h('div', {class: 'lora-row'}, name, h('label', {}, 'Weight ', weight), remove);
  }

  /** Return the field of a row's name or weight. */
  elementOf(index, member = 'name') {
    return this.rows.children[index]?.querySelector(member === 'weight' ? 'input' : 'select') ?? null;
  }
}
