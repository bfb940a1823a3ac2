// What the node can do: its capabilities, and which fields its requests have. Read once a tab and version.

import {api} from './api.js';

let read = null;

/** Return `GET /capabilities`. */
export function capabilities() {
  read ??= api('/capabilities').catch(error => {
    read = null;
    throw error;
  });
  return read;
}

/** Return the names of the fields of `POST /generate`, by the node's OpenAPI document. */
export async function generateFields() {
  const {version, pack} = await capabilities();
  const place = `foxhound-fields ${version} ${pack.revision}`;
  const kept = sessionStorage.getItem(place);
  if (kept) return new Set(JSON.parse(kept));
  const {components} = await api('/openapi.json');
  const names = Object.keys(components.schemas.GenerateRequest?.properties || {});
  sessionStorage.setItem(place, JSON.stringify(names));
  return new Set(names);
}
