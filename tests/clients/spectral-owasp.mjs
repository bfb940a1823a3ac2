// `make lint-openapi`: OWASP's rules for APIs. A rule that is switched off has its reason beside it.
import owasp from "@stoplight/spectral-owasp-ruleset";

// Bounds protect this service from requests; what an answer can hold follows from them. So these rules look at bodies
// and parameters only. Files are bounded by the node (`/capabilities`), not by a number of characters.
const inRequests = (name, type) => ({
  [name]: {
    ...owasp.rules[name],
    given: ["requestBody", "parameters"].map(
      (part) => `$.paths[*][*].${part}..schema..[?(@ && @.type=="${type}" && @.format!="binary")]`,
    ),
  },
});

export default {
  extends: [owasp],
  rules: {
    ...inRequests("owasp:api4:2023-string-limit", "string"),
    ...inRequests("owasp:api4:2023-integer-limit", "integer"),
    ...inRequests("owasp:api4:2023-array-limit", "array"),
    // Prompts, labels, class names and header values are text of any language.
    "owasp:api4:2023-string-restricted": "off",
    // `maximum`, which every number of a request has, tells the size; numbers beyond 2^31 have `int64` besides.
    "owasp:api4:2023-integer-format": "off",
    // Ids are UUIDv7 texts. The rule does not read the `anyOf` of a parameter that may be left out, and takes an SSE
    // version (`Last-Event-ID`) for an id.
    "owasp:api1:2023-no-numeric-ids": "off",
  },
};
