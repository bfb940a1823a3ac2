// The image that the Studio starts from, and the mask of what is made anew in it.

import {imageUrl} from './api.js';
import {$, toast} from './dom.js';
import {base64Of, onDrop} from './files.js';
import {paintMask} from './mask_editor.js';
import {pickImage} from './picker.js';

const STRENGTH = 0.75; // that the node takes where a request has none
const STRENGTH_STEPS = 100; // of the slider

/** Return the reference of a request to a picture. */
const source = ({image_id: id, image_b64: data}) => id ? {image_id: id} : {image_b64: data};

export class InitImage {
  constructor(elements, onChange) {
    this.elements = elements;
    this.onChange = onChange;
    this.isOffered = false;
    this.picture = null;
    this.mask = null;
    this.bindImage();
    this.bindMask();
  }

  /** Offer what the node begins an image with. */
  offer(modes) {
    this.isOffered = modes.includes('image_to_image');
    $('#init').hidden = !this.isOffered;
    $('#mask').hidden = !modes.includes('inpainting');
  }

  /** Keep the strength at one step at least, of so many. */
  fit(steps) {
    const {strength} = this.elements;
    if (steps >= 1) strength.min = Math.ceil(STRENGTH_STEPS / steps) / STRENGTH_STEPS;
    this.say();
  }

  say() {
    $('#strength-value').textContent = Number(this.elements.strength.value).toFixed(2);
  }

  /** Return the part of the request that is about pictures. */
  values() {
    if (!this.isOffered || !this.picture) return {};
    const {strength, mask_blur: blur, mask_invert: invert} = this.elements;
    const body = {init_image: source(this.picture)};
    if (Number(strength.value) !== STRENGTH) body.strength = Number(strength.value);
    if (!this.mask) return body;
    body.mask = source(this.mask);
    if (Number(blur.value)) body.mask_blur = Number(blur.value);
    if (invert.checked) body.mask_invert = true;
    return body;
  }

  /** Take over what a made image began with: stored images, and settings; what came with its request is not kept. */
  async adopt({init_image: init, mask, strength, mask_blur: blur, mask_invert: invert}) {
    if (!init) {
      this.show(null);
      return;
    }
    if (!init.image_id) {
      if (!this.picture) toast('The image that it started from came with its request and is not kept. Choose it again.', 'error');
      else if (Boolean(mask) !== Boolean(this.mask)) toast('The mask is not kept. Choose or remove it.', 'error');
    } else {
      await this.startFrom(init.image_id);
      if (mask?.image_id) await this.maskFrom(mask.image_id);
      else if (mask) toast('The mask came with its request and is not kept. Choose it again.', 'error');
    }
    this.elements.strength.value = strength ?? STRENGTH;
    this.elements.mask_blur.value = blur ?? 0;
    this.elements.mask_invert.checked = Boolean(invert);
    this.say();
    this.onChange();
  }

  bindImage() {
    $('#init-file').addEventListener('change', event => this.takeFile(event.target.files[0]));
    $('#init-pick').addEventListener('click', async () => {
      const id = await pickImage();
      if (id) this.startFrom(id);
    });
    $('#init-clear').addEventListener('click', () => {
      this.show(null);
      $('#init-pick').focus();
    });
    onDrop($('#init-drop'), carried => {
      const id = carried.getData('text/x-foxhound-image');
      if (id) this.startFrom(id);
      else this.takeFile(carried.files[0]);
    });
  }

  bindMask() {
    $('#mask-file').addEventListener('change', event => this.takeMask(event.target.files[0]));
    $('#mask-paint').addEventListener('click', () => this.paint());
    $('#mask-clear').addEventListener('click', () => {
      this.showMask(null);
      $('#mask-paint').focus();
    });
    onDrop($('#mask'), carried => {
      const id = carried.getData('text/x-foxhound-image');
      if (id) this.maskFrom(id);
      else this.takeMask(carried.files[0]);
    });
  }

  /** Start from a stored image. */
  async startFrom(id) {
    try {
      this.show({image_id: id}, await imageUrl(id, 256));
    } catch (error) {
      toast(error.detail || 'The image cannot be read.', 'error');
    }
  }

  async takeFile(file) {
    if (isImage(file)) this.show({image_b64: await base64Of(file)}, URL.createObjectURL(file));
  }

  /** Show the image to start from; a mask belongs to one image alone. */
  show(picture, url) {
    this.picture = picture;
    $('#init-more').hidden = $('#init-clear').hidden = !picture;
    showAt($('#init-shown'), url);
    $('#init-file').value = '';
    this.showMask(null);
  }

  async takeMask(file) {
    if (isImage(file)) this.showMask({image_b64: await base64Of(file)}, URL.createObjectURL(file));
  }

  async maskFrom(id) {
    try {
      this.showMask({image_id: id}, await imageUrl(id));
    } catch (error) {
      toast(error.detail || 'The mask cannot be read.', 'error');
    }
  }

  /** Open the dialog to paint; what was there before is gone on with. */
  async paint() {
    try {
      const {image_id: id} = this.picture;
      const file = await paintMask(id ? await imageUrl(id) : $('#init-shown').src, this.mask && $('#mask-shown').src);
      if (file) await this.takeMask(file);
    } catch (error) {
      toast(error.detail || 'The image cannot be read.', 'error');
    }
    $('#mask-paint').focus();
  }

  showMask(mask, url) {
    this.mask = mask;
    $('#mask-more').hidden = $('#mask-clear').hidden = !mask;
    $('#mask-paint').textContent = mask ? 'Change the mask' : 'Paint a mask';
    showAt($('#mask-shown'), url);
    $('#mask-file').value = '';
    this.onChange();
  }
}

function showAt(element, url) {
  element.hidden = !url;
  if (url) element.src = url;
  else element.removeAttribute('src');
}

function isImage(file) {
  if (file && !file.type.startsWith('image/')) toast('This file is no image.', 'error');
  return Boolean(file?.type.startsWith('image/'));
}
