#!/usr/bin/env bash
# Pictures from a prompt: as JSON with addresses, and as the bytes of one picture.
#
#   bash examples/generate.sh
#
# Settings: PROMPT, SEED, STEPS, OUT_DIR, and those of lib.sh. The same seed gives the same pictures.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PROMPT=${PROMPT:-a watercolor painting of a red fox}
SEED=${SEED:-42}
STEPS=${STEPS:-20}
OUT_DIR=${OUT_DIR:-generated}
mkdir -p "$OUT_DIR"

prompt=$(json_text "$PROMPT")
settings="\"prompt\": $prompt, \"seed\": $SEED, \"num_inference_steps\": $STEPS"

# JSON: two pictures, which the service keeps. `labels` adds CLIP's opinion of each.
ask_ok /generate --header 'Content-Type: application/json' \
  --data "{$settings, \"num_images_per_prompt\": 2, \"labels\": [\"fox\", \"dog\"]}"
cp "$scratch/answer" "$OUT_DIR/generation.json"
for index in 0 1; do
  path=$(json "images.$index.url" <"$OUT_DIR/generation.json")
  seed=$(json "images.$index.seed" <"$OUT_DIR/generation.json")
  ask_ok "$path"
  mv "$scratch/answer" "$OUT_DIR/seed-$seed.png"
  echo "saved $OUT_DIR/seed-$seed.png: $(json "images.$index.label_probabilities" <"$OUT_DIR/generation.json")"
done

# Bytes: the answer is the picture itself.
ask_ok /generate --header 'Content-Type: application/json' --header 'Accept: image/webp' \
  --data "{$settings, \"output_format\": \"webp\"}"
mv "$scratch/answer" "$OUT_DIR/fox.webp"
echo "saved $OUT_DIR/fox.webp"
