// One call of the API as a program's text, in three languages. Pure.

const shell = text => `'${text.replaceAll("'", `'\\''`)}'`;

/** Return the call of POST /generate with a body, as `curl`, `python` or `typescript`. */
export function codeFor(language, body, {origin, isKeyed}) {
  return {curl, python, typescript}[language](body, origin, isKeyed);
}

function curl(body, origin, isKeyed) {
  const key = isKeyed ? ` \\\n  -H "Authorization: Bearer $FOXHOUND_API_KEY"` : '';
  return `curl ${shell(`${origin}/generate`)}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify(body))}`;
}

function pythonValue(value) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(', ')}]`;
  if (typeof value === 'object') return `{${Object.entries(value).map(([name, one]) => `${pythonText(name)}: ${pythonValue(one)}`).join(', ')}}`;
  return typeof value === 'string' ? pythonText(value) : String(value);
}

// A JSON string is a Python string but for signs outside the basic plane, which JSON writes as they are here.
const pythonText = text => JSON.stringify(text);

function python(body, origin, isKeyed) {
  const key = isKeyed ? 'FOXHOUND_API_KEY is read from the environment' : '';
  const lines = Object.entries(body).map(([name, value]) => `    ${name}=${pythonValue(value)},`);
  return ['from foxhound_client import Foxhound', '', `fox = Foxhound(${pythonText(origin)})${key && `  # ${key}`}`,
    'made = fox.generate(', ...lines, ')', 'for image in made.images:', '    with open(f"{image.id}.{image.format}", "wb") as file:',
    '        file.write(fox.image(image.id))'].join('\n');
}

function typescript(body, origin, isKeyed) {
  const key = isKeyed ? ', auth: process.env.FOXHOUND_API_KEY' : '';
  const text = JSON.stringify(body, null, 2).replaceAll('\n', '\n  ');
  return ['import { generateImages } from "foxhound-client";', 'import { client } from "foxhound-client/client.gen";', '',
    `client.setConfig({ baseUrl: ${JSON.stringify(origin)}${key} });`,
    'const { data } = await generateImages({', `  body: ${text},`, '  throwOnError: true,', '});',
    'console.log(data.images.map((image) => image.url));'].join('\n');
}
