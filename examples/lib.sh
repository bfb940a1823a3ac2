# What the bash examples share: requests that wait for the service, JSON, jobs and downloads. Sourced, not run.
#
# Needs bash, curl and python3, which reads JSON. Settings are variables:
# FOXHOUND_URL (http://127.0.0.1:8000), FOXHOUND_API_KEY (if the service needs a key), PATIENCE_S (how long to wait for
# a service that does not answer).
# Exit status of the examples: 0 done; 1 a request was refused or work failed; 3 no answer; 130 interrupted.
set -euo pipefail
export LC_ALL=C

FOXHOUND_URL=${FOXHOUND_URL:-http://127.0.0.1:8000}
FOXHOUND_URL=${FOXHOUND_URL%/}
PATIENCE_S=${PATIENCE_S:-600}
POLL_S=${POLL_S:-2}

die() {
  echo "$(basename "$0" .sh): $1" >&2
  exit "${2:-1}"
}

for tool in curl python3; do
  command -v "$tool" >/dev/null || die "this example needs $tool; install it and start again"
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'echo "Interrupted; what the service has accepted goes on. Start this again to go on too." >&2; exit 130' INT TERM
# In a file, because every user of the machine sees the arguments of a command.
: >"$scratch/headers-sent"
if [ -n "${FOXHOUND_API_KEY:-}" ]; then
  printf 'Authorization: Bearer %s\n' "$FOXHOUND_API_KEY" >"$scratch/headers-sent"
fi

# json PATH: prints a value of the JSON on standard input, as in `json predictions.0.label`; nothing for null.
json() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for part in filter(None, sys.argv[1].split(".")):
    value = (value[int(part)] if isinstance(value, list) else value.get(part)) if value else None
print("" if value is None else value if isinstance(value, str) else json.dumps(value))
' "$1"
}

# json_text TEXT: prints a text as JSON.
json_text() {
  python3 -c 'import json, sys; print(json.dumps(sys.argv[1]))' "$1"
}

# ask PATH [CURL-OPTION...]: sets $status; the answer is in $scratch/answer. Waits for a service that is away or busy.
ask() {
  local url="$FOXHOUND_URL$1" deadline=$((SECONDS + PATIENCE_S))
  shift
  while :; do
    status=$(curl --silent --output "$scratch/answer" --write-out '%{http_code}' --max-time 300 \
      --header "@$scratch/headers-sent" "$@" "$url") || status=000
    case $status in
      000 | 429 | 502 | 503 | 504) ;;
      *) return 0 ;;
    esac
    [ "$SECONDS" -lt "$deadline" ] || die "no answer from $url for $PATIENCE_S s; is Foxhound running (make run)?" 3
    sleep "$POLL_S"
  done
}

refused() {
  die "$1 was refused ($status): $(cat "$scratch/answer")"
}

# ask_ok PATH [CURL-OPTION...]: as `ask`; ends the example unless the request is accepted.
ask_ok() {
  ask "$@"
  case $status in
    2*) ;;
    *) refused "$1" ;;
  esac
}

# submit PATH FILE: sends work under an Idempotency-Key that follows from it, so that the same work again is not done
# again; sets $status to 2xx, or to 409 where its name is taken: the key is forgotten after a day, the name is not.
submit() {
  local key
  key="example-$(printf '%s ' "$1" | cat - "$2" | cksum | tr ' ' '-')"
  ask "$1" --header 'Content-Type: application/json' --header "Idempotency-Key: $key" --data "@$2"
  case $status in
    2*) ;;
    409) grep -q '_name_taken"' "$scratch/answer" || refused "$1" ;;
    *) refused "$1" ;;
  esac
}

# find_dataset NAME: sets $dataset_id, empty if there is no dataset of this name.
find_dataset() {
  ask_ok /datasets --get --data-urlencode "name=$1"
  dataset_id=$(json items.0.id <"$scratch/answer")
}

# make_dataset NAME FILE: submits a recipe, or goes on with the dataset of that name; sets $dataset_id and $job_id.
make_dataset() {
  submit /datasets "$2"
  dataset_id=$(json id <"$scratch/answer")
  if [ "$status" = 409 ]; then
    dataset_id=$(json dataset_id <"$scratch/answer")
    [ -n "$dataset_id" ] || find_dataset "$1"
    [ -n "$dataset_id" ] || die "the dataset $1 is gone; start this again to make it anew"
    echo "a dataset $1 is there already; going on with it"
  fi
  ask "/datasets/$dataset_id"
  if [ "$status" = 404 ]; then # the answer to a key is kept for a day, even where the dataset has been deleted since
    ask_ok /datasets --header 'Content-Type: application/json' --data "@$2"
    dataset_id=$(json id <"$scratch/answer")
  fi
  ask_ok "/datasets/$dataset_id"
  job_id=$(json job_id <"$scratch/answer")
}

# follow JOB: prints a line for each event of a job until it has ended; sets $job_status. The job is in $scratch/job.
follow() {
  local job=$1 last="" line shown="" now
  while :; do
    ask_ok "/jobs/$job"
    cp "$scratch/answer" "$scratch/job"
    job_status=$(json status <"$scratch/job")
    case $job_status in
      succeeded | failed | cancelled) break ;;
    esac
    while IFS= read -r line; do
      case $line in
        id:*) last=${line#id:} ;;
        data:*)
          now=$(printf '%s' "${line#data:}" | python3 -c '
import json, sys
job = json.load(sys.stdin)
print(job["status"], "{done} of {total} {unit}".format(**job["progress"]), sep=": ")')
          [ "$now" = "$shown" ] || echo "   $now"
          shown=$now
          ;;
      esac
    done < <(curl --silent --no-buffer --header "@$scratch/headers-sent" --header "Last-Event-ID: ${last# }" \
      "$FOXHOUND_URL/jobs/$job/events" || true)
    sleep 0.2 # the stream has ended: with the job, or because the service is away
  done
  echo "   $job_status"
}

# require_success: ends the example unless the followed job has succeeded.
require_success() {
  [ "$job_status" = succeeded ] || die "the job has $job_status: $(json error <"$scratch/job")"
}

# download PATH FILE: goes on with FILE.part as long as the service has the same bytes; keeps a FILE that is whole.
# The ETag beside the file says which bytes they are.
download() {
  local url="$FOXHOUND_URL$1" out=$2 part="$2.part" etag bytes deadline=$((SECONDS + PATIENCE_S))
  ask "$1" --range 0-0 --dump-header "$scratch/headers"
  [ "$status" = 206 ] || refused "$1"
  etag=$(tr -d '\r' <"$scratch/headers" | sed -n 's/^[Ee][Tt][Aa][Gg]: *//p')
  bytes=$(tr -d '\r' <"$scratch/headers" | sed -n 's/^[Cc]ontent-[Rr]ange: *bytes 0-0.//p')
  if [ "$(cat "$out.etag" 2>/dev/null)" = "$etag" ] && [ -f "$out" ]; then
    echo "$out is there already: $bytes bytes"
    return
  fi
  if [ "$(cat "$out.etag" 2>/dev/null)" != "$etag" ]; then
    rm -f "$part" "$out"
    printf '%s' "$etag" >"$out.etag"
  fi
  touch "$part"
  while [ "$(wc -c <"$part")" -lt "$bytes" ]; do
    curl --silent --fail -C - --header "@$scratch/headers-sent" --header "If-Range: $etag" --output "$part" "$url" ||
      sleep "$POLL_S"
    [ "$SECONDS" -lt "$deadline" ] || die "$url does not come; $part is kept" 3
  done
  [ "$(wc -c <"$part")" -eq "$bytes" ] || die "$part is longer than it should be; delete it and start again"
  mv "$part" "$out"
  echo "saved $out: $bytes bytes"
}
