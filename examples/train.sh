#!/usr/bin/env bash
# A classifier from a dataset, and what it says about a new picture. Makes the dataset of dataset.sh if it is missing.
#
#   DATASET=fox-dog-prompts bash examples/train.sh
#
# Started again, it goes on with the same job or uses the same model. Settings: DATASET and NAME (of dataset and model),
# EPOCHS, OUT (of the weights), and those of dataset.sh and lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
DATASET=${DATASET:-${NAME:-fox-dog-prompts}}
NAME=${NAME:-$DATASET}
EPOCHS=${EPOCHS:-10}
OUT=${OUT:-$NAME.safetensors}

find_dataset "$DATASET"
if [ -z "$dataset_id" ] || { ask_ok "/datasets/$dataset_id" && [ "$(json status <"$scratch/answer")" != ready ]; }; then
  NAME=$DATASET OUT=$DATASET.zip bash "$(dirname "${BASH_SOURCE[0]}")/dataset.sh"
  find_dataset "$DATASET"
fi

printf '{"dataset_id": "%s", "name": "%s", "epochs": %s}' "$dataset_id" "$NAME" "$EPOCHS" >"$scratch/training"
submit /train-jobs "$scratch/training"
if [ "$status" = 409 ]; then
  echo "a model $NAME is there already, or being trained"
else
  job_id=$(json id <"$scratch/answer")
  echo "train job $job_id"
  follow "$job_id"
  require_success
fi

# A picture that the model has never seen, named by its id.
ask_ok /generate --header 'Content-Type: application/json' \
  --data '{"prompt": "a watercolor painting of a red fox", "seed": 1001, "num_inference_steps": 20}'
image_id=$(json images.0.id <"$scratch/answer")
ask_ok /classify --header 'Content-Type: application/json' \
  --data "{\"image_id\": \"$image_id\", \"model\": \"$NAME\", \"top_k\": 2}"
echo "$NAME says $(json predictions.0.label <"$scratch/answer") $(json predictions.0.probability <"$scratch/answer")"
download "/models/$(json model.id <"$scratch/answer")/weights" "$OUT"
