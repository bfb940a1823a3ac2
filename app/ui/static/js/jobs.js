// A background job: its state, its progress as it comes, and what can be done with it.

import {api, events} from './api.js';
import {fill, h, toast} from './dom.js';
import {duration, when} from './format.js';

const ACTIVE = ['queued', 'running', 'paused'];
export const isActive = job => ACTIVE.includes(job?.status);

export const badge = status => h('span', {class: `badge ${status}`}, status);

/** A bar of a progress with its numbers in words; `total` 0: nothing is known yet. */
export function progressBar({done, total, unit, phase, rate_per_minute: rate, estimated_finish_at: end}) {
  const share = total ? Math.min(done / total, 1) : 0;
  const words = [phase, `${done} of ${total} ${unit}`];
  if (rate) words.push(`${rate.toFixed(rate < 10 ? 1 : 0)} per minute`);
  const left = end ? (new Date(end) - Date.now()) / 1_000 : null;
  if (left > 0) words.push(`${duration(left)} left`);
  return h('div', {class: 'progress-line'},
    h('progress', {max: 1, value: share, 'aria-label': 'Progress'}),
    h('span', {class: 'muted small'}, words.filter(Boolean).join(' · ')));
}

const ACTIONS = {
  pause: {label: 'Pause', of: ['queued', 'running']},
  resume: {label: 'Resume', of: ['paused']},
  cancel: {label: 'Cancel', of: ACTIVE, danger: true},
  retry: {label: 'Retry', of: ['failed', 'cancelled']},
};

/** The buttons that apply to a job; `onChange(job)` gets the job, or the new one of a retry. */
export function jobButtons(job, onChange) {
  return Object.entries(ACTIONS).filter(([, action]) => action.of.includes(job.status)).map(([name, {label, danger}]) => {
    const button = h('button', {type: 'button', class: danger ? 'danger' : '', dataset: {action: name}}, label);
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        onChange(await api(`/jobs/${job.id}/${name}`, {method: 'POST'}), name);
      } catch (error) {
        toast(error.detail || error.message, 'error');
        button.disabled = false;
      }
    });
    return button;
  });
}

/** Follow a job in an element until it ends; `onJob(job)` is called with each state. Returns what stops it. */
export function followJob(into, jobId, {onJob = () => {}, onRetry = () => location.reload()} = {}) {
  const stop = new AbortController();
  let shown = 0;
  const focused = () => document.activeElement?.dataset?.action;
  const show = job => {
    if (stop.signal.aborted || job.version < shown) return;
    shown = job.version;
    const action = into.contains(document.activeElement) ? focused() : null;
    const changed = (next, name) => name === 'retry' ? onRetry(next) : show(next);
    fill(into, h('div', {class: 'row spread'},
      h('p', {class: 'row', role: 'status'}, badge(job.status), h('span', {class: 'muted small'}, statusWords(job))),
      h('div', {class: 'row'}, jobButtons(job, changed))),
    isActive(job) || job.progress.done < job.progress.total ? progressBar(job.progress) : null,
    job.error ? h('p', {class: 'error wrap'}, job.error.detail || job.error.title) : null);
    if (action) into.querySelector(`[data-action="${action}"]`)?.focus();
    onJob(job);
  };
  events(`/jobs/${encodeURIComponent(jobId)}/events`, {signal: stop.signal, onEvent: ({data}) => data?.id && show(data)}).catch(error => {
    if (error.name !== 'AbortError') fill(into, h('p', {class: 'error', role: 'alert'}, error.detail || error.message));
  });
  return () => stop.abort();
}

function statusWords(job) {
  if (job.status === 'queued') return `since ${when(job.created_at)}`;
  if (job.status === 'running') return `since ${when(job.started_at)}`;
  return job.finished_at ? `at ${when(job.finished_at)}` : '';
}
