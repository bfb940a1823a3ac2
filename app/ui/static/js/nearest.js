// Why a classifier says so: the training images that are most similar to a picture, in the eyes of the model's backbone.

import {h} from './dom.js';
import {picture} from './review.js';

const NEAREST = 6;
// Refusals that concern the training images alone: the picture can be classified all the same.
const WITHOUT = ['training_images_gone', 'features_not_cached'];

/**
 * Classify with a trained model, with the nearest training images where the node has them: `ask(nearest)` sends the
 * request with their number, or with null. Returns the answer; `withoutNearest` in it is why it has none, as an error.
 */
export async function classifyWithNearest(ask) {
  try {
    return await ask(NEAREST);
  } catch (error) {
    if (!WITHOUT.includes(error.code)) throw error;
    return {...await ask(null), withoutNearest: error};
  }
}

/** The nearest training images of an answer, with class and similarity, each a link. */
export function nearestView({images, num_compared: compared, num_training: training}) {
  if (!images.length) return null;
  return h('section', {class: 'stack tight', 'aria-label': 'Nearest training images'},
    h('h4', {}, 'Nearest training images'),
    h('div', {class: 'strip nearest'}, images.map(one => h('a', {href: `/ui/images/${one.image_id}`},
      picture(one.image_id, 128, {class: 'thumb', alt: `${one.label}, similarity ${one.similarity.toFixed(2)}`}),
      h('span', {class: 'small wrap'}, one.label), h('span', {class: 'muted small'}, one.similarity.toFixed(2))))),
    compared < training ? h('p', {class: 'muted small'}, `Of ${compared} of the ${training} training images: the features of the others are not at hand.`) : null);
}
