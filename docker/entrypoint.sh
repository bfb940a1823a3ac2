#!/bin/sh
# Starts Foxhound in a container: `serve`, the default, brings the database up to date first;
# every other command of `foxhound` goes through as it is.
set -eu

if [ "$#" -eq 0 ]; then
  set -- serve
fi
if [ "$*" = serve ]; then
  foxhound migrate
fi
exec foxhound "$@"
