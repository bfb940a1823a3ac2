#!/usr/bin/env bash
# Lints an OpenAPI file; ends with the first linter that finds something. Warnings count, but for OWASP's.
set -euo pipefail
document=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"

export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
npx redocly lint --config redocly.yaml --max-problems=1000 "$document"
npx spectral lint --ruleset spectral-oas.yaml --fail-severity=warn "$document"
npx spectral lint --ruleset spectral-owasp.mjs --fail-severity=error --display-only-failures "$document"
