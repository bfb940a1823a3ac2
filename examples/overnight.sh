#!/bin/sh
# Ten thousand images over a weekend, with nothing but a shell and curl.
#
#   sh examples/overnight.sh
#
# It may be killed and started again at any point, and so may the service: started again with the same settings, it goes on
# with the same dataset and the same download, and keeps a file that is whole. Settings are variables:
NAME=${NAME:-overnight}
BASE_URL=${FOXHOUND_URL:-${BASE_URL:-http://127.0.0.1:8000}} # BASE_URL: the name of earlier releases
OUT=${OUT:-$NAME.zip}
TRAIN_PER_CLASS=${TRAIN_PER_CLASS:-4500} # 2 classes x (4500 + 500) = 10,000 images
TEST_PER_CLASS=${TEST_PER_CLASS:-500}
STEPS=${STEPS:-20} # denoising steps of an image
SEED=${SEED:-7} # every image follows from it
POLL_S=${POLL_S:-10} # between two looks
PATIENCE_S=${PATIENCE_S:-86400} # longest time without an answer
# FOXHOUND_API_KEY, if the service needs a key: one with the scopes read and datasets.
# Exit status: 0 the dataset is whole and in $OUT; 1 it is not, or a request was refused; 3 no answer; 130 interrupted.
set -eu
LC_ALL=C
export LC_ALL

RECIPE="{
  \"name\": \"$NAME\",
  \"seed\": $SEED,
  \"classes\": [
    {\"name\": \"fox\", \"prompts\": [\"a {style} of a red fox {place}\", \"a {style} of a fox, seen from the side\"]},
    {\"name\": \"dog\", \"prompts\": [\"a {style} of a golden retriever {place}\", \"a {style} of a dog, seen from the side\"]}
  ],
  \"variables\": {
    \"style\": [\"watercolor painting\", \"pencil sketch\", \"oil painting\"],
    \"place\": [\"in the snow\", \"on a meadow\", \"in a forest\"]
  },
  \"train_per_class\": $TRAIN_PER_CLASS,
  \"test_per_class\": $TEST_PER_CLASS,
  \"generation\": {\"num_inference_steps\": $STEPS, \"guidance_scale\": {\"min\": 2.0, \"max\": 8.0}}
}"
# Follows from the recipe, so that the same recipe is never made twice; the service keeps it for a day.
KEY="overnight-$(printf '%s' "$RECIPE" | cksum | tr ' ' '-')"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# In a file, because every user of the machine sees the arguments of a command.
if [ -n "${FOXHOUND_API_KEY:-}" ]; then
  printf 'Authorization: Bearer %s\n' "$FOXHOUND_API_KEY" >"$scratch/key"
  curl() {
    command curl --header "@$scratch/key" "$@"
  }
fi
trap 'echo "Interrupted; the service goes on. Start this again to go on too." >&2; exit 130' INT TERM

die() {
  echo "overnight: $1" >&2
  exit "${2:-1}"
}

# The first value under a name in a JSON answer; enough for numbers and for text without commas or brackets.
field() {
  # shellcheck disable=SC2020 # five characters, five newlines
  tr ',{}[]' '\n\n\n\n\n' | sed -n 's/^ *"'"$1"'": *"\{0,1\}\([^"]*\)"\{0,1\} *$/\1/p' | sed -n 1p
}

# ask PATH [CURL-OPTION...]: the answer goes to $scratch/answer, its status to $status; asks until there is one.
ask() {
  url="$BASE_URL$1"
  shift
  waited=0
  while :; do
    status=$(curl --silent --output "$scratch/answer" --write-out '%{http_code}' --max-time 120 "$@" "$url") || status=000
    case $status in
      000 | 502 | 503 | 504) ;;
      *) return 0 ;;
    esac
    [ "$waited" -lt "$PATIENCE_S" ] || die "no answer from $url for $PATIENCE_S s" 3
    [ "$waited" -gt 0 ] || echo "no answer from $url; trying on" >&2
    sleep "$POLL_S"
    waited=$((waited + POLL_S + 1))
  done
}

refused() {
  die "$1 was refused ($status): $(cat "$scratch/answer")"
}

# find_named: sets dataset_id to that of the dataset $NAME, which the last answer names or a page of the list has.
find_named() {
  dataset_id=$(field dataset_id <"$scratch/answer")
  pattern=$(printf '%s' "$NAME" | sed 's/\./\\./g') # the only sign of a name that sed takes for others too
  page='/datasets?limit=100'
  while [ -z "$dataset_id" ]; do
    ask "$page"
    [ "$status" = 200 ] || refused "the list of datasets"
    dataset_id=$(tr '{}' '\n\n' <"$scratch/answer" |
      sed -n 's/.*"id": *"\([^"]*\)", *"name": *"'"$pattern"'".*/\1/p' | sed -n 1p)
    cursor=$(field next_cursor <"$scratch/answer")
    cursor=${cursor#null}
    [ -n "$dataset_id$cursor" ] || die "the dataset $NAME is gone; start this again to make it anew"
    page="/datasets?limit=100&cursor=$cursor"
  done
}

# submit [CURL-OPTION...]: sends the recipe and sets dataset_id.
submit() {
  ask /datasets --header 'Content-Type: application/json' --data "@$scratch/recipe" "$@"
  case $status in
    2*) dataset_id=$(field id <"$scratch/answer") ;;
    409)
      # Made more than a day ago, or by somebody else: the name decides.
      grep -q '"dataset_name_taken"' "$scratch/answer" || refused "the dataset"
      find_named
      echo "a dataset $NAME is there already; going on with it"
      ;;
    *) refused "the dataset" ;;
  esac
}

printf '%s' "$RECIPE" >"$scratch/recipe"
submit --header "Idempotency-Key: $KEY"
ask "/datasets/$dataset_id"
# The answer to a key is kept for a day, even where what it made has been deleted since.
[ "$status" != 404 ] || submit
job_id=$(field job_id <"$scratch/answer")
echo "dataset $dataset_id; its job's events: curl -N $BASE_URL/jobs/$job_id/events"

shown=""
while :; do
  ask "/datasets/$dataset_id"
  [ "$status" = 200 ] || refused "dataset $dataset_id"
  cp "$scratch/answer" "$scratch/dataset"
  made=$(field 'done' <"$scratch/dataset")
  total=$(field total <"$scratch/dataset")
  finish=$(field estimated_finish_at <"$scratch/dataset")
  finish=${finish#null}
  # The dataset's own status stands before those of its parts.
  state=$(field status <"$scratch/dataset")
  now="$state: $made of $total images"
  [ "$now" = "$shown" ] || echo "$(date '+%F %T') $now${finish:+, the last at about $finish}"
  shown=$now
  case $state in
    ready) break ;;
    queued | generating) sleep "$POLL_S" ;;
    *) die "the dataset is $state; foxhound dataset resume $dataset_id makes what is missing" ;;
  esac
done

# What is there of the file is gone on with only if its bytes are still those of the service: the ETag beside it says.
part="$OUT.part"
ask "/datasets/$dataset_id/archive.zip" --range 0-0 --dump-header "$scratch/headers"
[ "$status" = 206 ] || refused "the archive"
etag=$(tr -d '\r' <"$scratch/headers" | sed -n 's/^[Ee][Tt][Aa][Gg]: *//p')
bytes=$(tr -d '\r' <"$scratch/headers" | sed -n 's/^[Cc]ontent-[Rr]ange: *bytes 0-0.//p')
if [ "$(cat "$OUT.etag" 2>/dev/null || true)" != "$etag" ]; then
  rm -f "$part" "$OUT"
  printf '%s' "$etag" >"$OUT.etag"
fi
if [ -f "$OUT" ]; then
  echo "$OUT is there already: $bytes bytes"
  exit 0
fi
[ -f "$part" ] || : >"$part"
waited=0
while [ "$(wc -c <"$part")" -lt "$bytes" ]; do
  before=$(wc -c <"$part")
  code=0
  curl --silent --show-error --fail -C - --header "If-Range: $etag" --output "$part" \
    "$BASE_URL/datasets/$dataset_id/archive.zip" || code=$?
  [ "$code" != 33 ] || die "the dataset has changed meanwhile; start again"
  [ "$code" != 0 ] || continue
  [ "$(wc -c <"$part")" -eq "$before" ] || waited=0
  [ "$waited" -lt "$PATIENCE_S" ] || die "the archive does not come; $part is kept" 3
  sleep "$POLL_S"
  waited=$((waited + POLL_S + 1))
done
[ "$(wc -c <"$part")" -eq "$bytes" ] || die "$part is longer than the archive; delete it and start again"
mv "$part" "$OUT"
echo "$OUT: $bytes bytes"
