#!/bin/sh
# Starts Foxhound in a container: `serve`, the default, brings the database up to date first, and creates the first API
# key if the node would not start without one. Every other command of `foxhound` goes through as it is.
set -eu

if [ "$#" -eq 0 ]; then
  set -- serve
fi
if [ "$*" = serve ]; then
  foxhound migrate
  foxhound keys create first --if-needed --output "${FOXHOUND_DATA_DIR:-data}/first-key" \
    --scope read --scope generate --scope datasets --scope train
fi
exec foxhound "$@"
