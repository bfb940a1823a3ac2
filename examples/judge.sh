#!/usr/bin/env bash
# What CLIP and the classifier say about a picture of yours: a file is uploaded, nothing is stored.
#
#   PICTURE=fox.jpg bash examples/judge.sh
#
# Settings: PICTURE (default: one that is generated first), LABELS (separated by commas), MODEL (the name of a trained
# model; default: the pretrained classifier), and those of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
LABELS=${LABELS:-fox,dog,car}
PICTURE=${PICTURE:-}

if [ -z "$PICTURE" ]; then
  ask_ok /generate --header 'Content-Type: application/json' --header 'Accept: image/png' \
    --data '{"prompt": "a watercolor painting of a red fox", "seed": 42, "num_inference_steps": 10}'
  PICTURE=$scratch/fox.png
  mv "$scratch/answer" "$PICTURE"
fi
[ -r "$PICTURE" ] || die "the picture $PICTURE cannot be read"

# Each label is a field of its own.
fields=()
IFS=, read -r -a labels <<<"$LABELS"
for label in "${labels[@]}"; do
  fields+=(--form-string "labels=$label")
done
ask_ok /clip-score/files --form "image=@\"$PICTURE\"" "${fields[@]}"
echo "CLIP, of ${#labels[@]} labels:"
for index in "${!labels[@]}"; do
  echo "   $(json "scores.$index.label" <"$scratch/answer") $(json "scores.$index.probability" <"$scratch/answer")"
done

fields=(--form-string top_k=3)
[ -z "${MODEL:-}" ] || fields+=(--form-string "model=$MODEL")
ask_ok /classify/files --form "image=@\"$PICTURE\"" "${fields[@]}"
echo "classifier: $(json predictions.0.label <"$scratch/answer") $(json predictions.0.probability <"$scratch/answer")"
