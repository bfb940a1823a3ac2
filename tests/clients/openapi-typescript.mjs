// Writes the types for openapi-fetch: `node openapi-typescript.mjs openapi.json schema.ts`. The two options are those
// of its documentation: files are Blobs, and a field with a default may be left out of a request.
import fs from "node:fs";
import { pathToFileURL } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const [input, output] = process.argv.slice(2);
const blob = ts.factory.createTypeReferenceNode("Blob");
const ast = await openapiTS(pathToFileURL(input), {
  defaultNonNullable: false,
  transform: (schema) => (schema.format === "binary" ? blob : undefined),
});
fs.writeFileSync(output, astToString(ast));
