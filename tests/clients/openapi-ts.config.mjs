// How `clients/typescript/src` is generated: `make clients`. FOXHOUND_OPENAPI and FOXHOUND_CLIENT replace the paths.
const here = new URL(".", import.meta.url).pathname;

export default {
  input: process.env.FOXHOUND_OPENAPI ?? `${here}../../docs/openapi.json`,
  output: {
    path: process.env.FOXHOUND_CLIENT ?? `${here}../../clients/typescript/src`,
    importFileExtension: ".js", // what Node and browsers load without a bundler
  },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
};
