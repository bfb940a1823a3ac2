// Prometheus' text form, as far as `/metrics` of this service uses it. Pure.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Return the series of a text: `sum(name, labels)`, `max(name)`, `groups(name)`. */
export function readSeries(text) {
  const byName = new Map();
  for (const line of text.split('\n')) {
    const match = line.startsWith('#') ? null : LINE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] || '').matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!byName.has(match[1])) byName.set(match[1], []);
    byName.get(match[1]).push({labels, value: Number(match[3])});
  }
  const groups = (name, labels = {}) => (byName.get(name) || []).filter(one => Object.entries(labels).every(([key, value]) => one.labels[key] === value));
  return {
    groups,
    sum: (name, labels) => groups(name, labels).reduce((total, one) => total + one.value, 0),
    max: name => Math.max(0, ...groups(name).map(one => one.value)),
  };
}
