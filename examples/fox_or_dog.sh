#!/bin/sh
# From two prompts to a trained classifier, with nothing but a shell and curl.
#
#   sh examples/fox_or_dog.sh [NAME]
#
# NAME names the dataset and the model; default: fox-or-dog and the numbers below. It may be interrupted, or the service
# restarted, at any point: run again with the same settings, it goes on with the same dataset and the same training.
# Further settings are variables:
# FOXHOUND_URL, OUT_DIR (where the pictures go), TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS (denoising steps), EPOCHS,
# TIMEOUT_S (longest wait for each of: ready, dataset, training), FOXHOUND_API_KEY (if the service needs a key).
#
# Exit status: 0 the trained model is right about a fresh fox and a fresh dog; 1 it is wrong, or a request failed;
# 130 interrupted.
set -eu
LC_ALL=C
export LC_ALL

BASE_URL=${FOXHOUND_URL:-${BASE_URL:-http://127.0.0.1:8000}} # BASE_URL: the name of earlier releases
OUT_DIR=${OUT_DIR:-fox-or-dog}
TRAIN_PER_CLASS=${TRAIN_PER_CLASS:-25}
TEST_PER_CLASS=${TEST_PER_CLASS:-5}
STEPS=${STEPS:-25}
EPOCHS=${EPOCHS:-10}
TIMEOUT_S=${TIMEOUT_S:-3600}
NAME=${1:-fox-or-dog-$TRAIN_PER_CLASS-$TEST_PER_CLASS-$STEPS-$EPOCHS}

FOX="a watercolor painting of a red fox"
DOG="a watercolor painting of a golden retriever"

scratch=$(mktemp -d)
background="nothing was left running"
trap 'rm -rf "$scratch"' EXIT
# In a file, because every user of the machine sees the arguments of a command.
if [ -n "${FOXHOUND_API_KEY:-}" ]; then
  printf 'Authorization: Bearer %s\n' "$FOXHOUND_API_KEY" >"$scratch/key"
  curl() {
    command curl --header "@$scratch/key" "$@"
  }
fi
trap 'echo; echo "Interrupted; $background." >&2; exit 130' INT TERM

die() {
  echo "fox_or_dog: $*" >&2
  exit 1
}

# The first value under a name in a JSON answer; enough for numbers and for text without commas or brackets.
field() {
  # shellcheck disable=SC2020 # five characters, five newlines
  tr ',{}[]' '\n\n\n\n\n' | sed -n 's/^ *"'"$1"'": *"\{0,1\}\([^"]*\)"\{0,1\} *$/\1/p' | sed -n 1p
}

number() {
  case $1 in
    null | '') printf '%s' '-' ;;
    *) printf '%.3f' "$1" ;;
  esac
}

# call PATH [JSON]: GET, or POST of a body; the answer goes to standard output.
call() {
  if [ "$#" -gt 1 ]; then
    set -- "$1" --header 'Content-Type: application/json' --data "$2"
  fi
  path=$1
  shift
  status=$(curl --silent --show-error --output "$scratch/answer" --write-out '%{http_code}' "$@" "$BASE_URL$path") ||
    die "no answer from $BASE_URL; is Foxhound running (make run)?"
  case $status in
    2*)
      cat "$scratch/answer"
      echo
      ;;
    *) die "$path answered $status: $(cat "$scratch/answer")" ;;
  esac
}

# submit PATH JSON: hands work in under a key that follows from it, so that the same work again gives the same answer;
# prints its id. The key is forgotten after a day; then "there is such a name" prints nothing.
submit() {
  key="fox-or-dog-$(printf '%s' "$1 $2" | cksum | tr ' ' '-')"
  status=$(curl --silent --show-error --output "$scratch/answer" --write-out '%{http_code}' --retry 10 --retry-connrefused \
    --header 'Content-Type: application/json' --header "Idempotency-Key: $key" --data "$2" "$BASE_URL$1") ||
    die "no answer from $BASE_URL; is Foxhound running (make run)?"
  case $status in
    2*) field id <"$scratch/answer" ;;
    409) grep -q '_name_taken"' "$scratch/answer" || die "$1 answered 409: $(cat "$scratch/answer")" ;;
    *) die "$1 answered $status: $(cat "$scratch/answer")" ;;
  esac
}

# dataset_named NAME: prints its id, from whatever page of the list has it.
dataset_named() {
  pattern=$(printf '%s' "$1" | sed 's/\./\\./g') # the only sign of a name that sed takes for others too
  found=""
  page='/datasets?limit=100'
  while [ -z "$found" ] && [ -n "$page" ]; do
    call "$page" >"$scratch/page"
    found=$(tr '{}' '\n\n' <"$scratch/page" |
      sed -n 's/.*"id": *"\([^"]*\)", *"name": *"'"$pattern"'".*/\1/p' | sed -n 1p)
    cursor=$(field next_cursor <"$scratch/page")
    cursor=${cursor#null}
    page=${cursor:+"/datasets?limit=100&cursor=$cursor"}
  done
  printf '%s' "$found"
}

# generate FILE PROMPT SEED: writes the picture and prints its id.
generate() {
  body=$(printf '{"prompt": "%s", "seed": %s, "num_inference_steps": %s}' "$2" "$3" "$STEPS")
  status=$(curl --silent --show-error --output "$1" --dump-header "$scratch/headers" --write-out '%{http_code}' \
    --header 'Content-Type: application/json' --header 'Accept: image/png' --data "$body" "$BASE_URL/generate") ||
    die "no answer from $BASE_URL; is Foxhound running (make run)?"
  if [ "$status" != 200 ]; then
    problem=$(cat "$1")
    rm -f "$1"
    die "/generate answered $status: $problem"
  fi
  tr -d '\r' <"$scratch/headers" | sed -n 's/^[Xx]-[Ff]oxhound-[Ii]mage-[Ii]d: *//p'
}

# follow PATH UNIT: prints progress until the work has ended, and its last state into $scratch/final.
# The service may be restarted meanwhile: what it has accepted goes on afterwards.
follow() {
  deadline=$(($(date +%s) + TIMEOUT_S))
  shown=""
  while :; do
    [ "$(date +%s)" -lt "$deadline" ] || die "$BASE_URL$1 has not ended after $TIMEOUT_S s; it goes on in the service"
    if state=$(curl --silent --fail "$BASE_URL$1"); then
      now="$(echo "$state" | field 'done') of $(echo "$state" | field total) $2"
      [ "$now" = "$shown" ] || echo "   $now"
      shown=$now
      case $(echo "$state" | field status) in
        ready | succeeded) break ;;
        queued | generating | running | paused) ;;
        *) die "$BASE_URL$1 ended otherwise: $state" ;;
      esac
    fi
    sleep 2
  done
  echo "$state" >"$scratch/final"
}

# classify IMAGE_ID [MODEL]: prints label and probability of each class, most probable first.
classify() {
  body="{\"image_id\": \"$1\", \"top_k\": 3${2:+, \"model\": \"$2\"}}"
  call /classify "$body" >"$scratch/classified"
  tr '{' '\n' <"$scratch/classified" | sed -n '/^ *"label"/p' | while read -r prediction; do
    printf '   %-12s %s\n' "$(echo "$prediction" | field label)" "$(number "$(echo "$prediction" | field probability)")"
  done
}

wait_until_ready() {
  deadline=$(($(date +%s) + TIMEOUT_S))
  until curl --silent --fail --output /dev/null "$BASE_URL/readyz"; do
    call /livez >/dev/null
    [ "$(date +%s)" -lt "$deadline" ] || die "not ready after $TIMEOUT_S s: $(curl --silent "$BASE_URL/readyz")"
    echo "   the models are loading"
    sleep 2
  done
}

# judge FILE PROMPT SEED CLASS: is the trained model right about a picture it has never seen?
judge() {
  echo "   $1: \"$2\", seed $3"
  image_id=$(generate "$1" "$2" "$3")
  classify "$image_id" "$NAME"
  answer=$(field label <"$scratch/classified")
  if [ "$answer" != "$4" ]; then
    echo "   WRONG: this should be $4"
    mistakes=$((mistakes + 1))
  fi
}

mkdir -p "$OUT_DIR"
echo "Foxhound at $BASE_URL; the dataset and the model will be called $NAME; pictures go to $OUT_DIR/"
wait_until_ready

echo "1. Generate a fox"
fox_id=$(generate "$OUT_DIR/fox.png" "$FOX" 42)
echo "   $OUT_DIR/fox.png, image $fox_id"

echo "2. What does CLIP say?"
call /clip-score "{\"image_id\": \"$fox_id\", \"labels\": [\"fox\", \"dog\", \"cat\"]}" >"$scratch/scores"
tr '{' '\n' <"$scratch/scores" | sed -n '/^ *"label"/p' | while read -r score; do
  printf '   %-12s %s\n' "$(echo "$score" | field label)" "$(number "$(echo "$score" | field probability)")"
done

echo "3. What does the pretrained classifier say?"
classify "$fox_id"

echo "4. Make a dataset: $TRAIN_PER_CLASS + $TEST_PER_CLASS foxes, as many dogs, $STEPS steps each"
dataset_id=$(submit /datasets "{
  \"name\": \"$NAME\",
  \"seed\": 7,
  \"classes\": [{\"name\": \"fox\", \"prompts\": [\"$FOX\"]}, {\"name\": \"dog\", \"prompts\": [\"$DOG\"]}],
  \"train_per_class\": $TRAIN_PER_CLASS,
  \"test_per_class\": $TEST_PER_CLASS,
  \"generation\": {\"num_inference_steps\": $STEPS}
}")
if [ -z "$dataset_id" ]; then
  echo "   a dataset $NAME is there already; going on with it"
  dataset_id=$(dataset_named "$NAME")
fi
[ -n "$dataset_id" ] || die "the dataset $NAME is gone; start this again to make it anew"
call "/datasets/$dataset_id" >/dev/null # it may have been deleted since it was accepted
background="the dataset goes on in the service: $BASE_URL/datasets/$dataset_id"
follow "/datasets/$dataset_id" images

echo "5. Train a linear probe on it, $EPOCHS epochs"
job_id=$(submit /train-jobs "{\"dataset_id\": \"$dataset_id\", \"name\": \"$NAME\", \"epochs\": $EPOCHS}")
if [ -z "$job_id" ]; then
  echo "   a model $NAME is there already; going on with it"
else
  background="the training goes on in the service: $BASE_URL/train-jobs/$job_id"
  follow "/train-jobs/$job_id" steps
  tr '{' '\n' <"$scratch/final" | sed -n '/^ *"epoch":/p' | while read -r epoch; do
    printf '   epoch %2d: train loss %s, train accuracy %s, test accuracy %s\n' "$(echo "$epoch" | field epoch)" \
      "$(number "$(echo "$epoch" | field train_loss)")" "$(number "$(echo "$epoch" | field train_accuracy)")" \
      "$(number "$(echo "$epoch" | field test_accuracy)")"
  done
fi
background="the dataset and the model $NAME are ready in the service"

echo "6. Show the trained model pictures that it has never seen"
mistakes=0
judge "$OUT_DIR/fresh-fox.png" "$FOX" 1001 fox
judge "$OUT_DIR/fresh-dog.png" "$DOG" 2002 dog

[ "$mistakes" -eq 0 ] || die "the trained model was wrong about $mistakes of 2 pictures"
echo "The trained model $NAME knows the fox from the dog."
