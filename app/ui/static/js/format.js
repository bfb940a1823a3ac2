// Numbers, times and sizes as text. Pure.

export const percent = (share, digits = 1) => share === null || share === undefined ? '–' : `${(100 * share).toFixed(digits)} %`;

/** "94.2 % (81.3 to 98.9, n = 52)" of an interval of the API. */
export function interval(value) {
  if (!value) return 'not measured';
  return `${percent(value.value)} (${(100 * value.low).toFixed(1)} to ${(100 * value.high).toFixed(1)}, n = ${value.n})`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return 'unknown';
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3_600).toFixed(1)} h`;
}

export function bytes(number) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let power = 0;
  while (number >= 1_000 && power < units.length - 1) {
    number /= 1_000;
    power += 1;
  }
  return `${power && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[power]}`;
}

export const when = text => text ? new Date(text).toLocaleString() : '–';

export const count = (number, one, many = `${one}s`) => `${Number(number).toLocaleString('en')} ${number === 1 ? one : many}`;

/** The last part of the page's path, decoded: the id or the name of what it shows. */
export const idOfPage = () => decodeURIComponent(location.pathname.split('/').filter(Boolean).pop());

/** A key for `Idempotency-Key`; works on plain HTTP too, where `crypto.randomUUID` is absent. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map(one => one.toString(16).padStart(2, '0')).join('');
