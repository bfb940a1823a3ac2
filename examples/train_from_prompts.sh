#!/usr/bin/env bash
# From prompts to a classifier in one request: the job makes the dataset first.
#
#   bash examples/train_from_prompts.sh
#
# Started again, it goes on with the same job. Settings: NAME (of dataset and model), TRAIN_PER_CLASS, TEST_PER_CLASS,
# STEPS, EPOCHS, and those of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
NAME=${NAME:-fox-dog-one-call}
TRAIN_PER_CLASS=${TRAIN_PER_CLASS:-25}
TEST_PER_CLASS=${TEST_PER_CLASS:-5}
STEPS=${STEPS:-20}
EPOCHS=${EPOCHS:-10}

cat >"$scratch/training" <<TRAINING
{
  "name": "$NAME",
  "epochs": $EPOCHS,
  "dataset": {
    "name": "$NAME",
    "seed": 7,
    "classes": [
      {"name": "fox", "prompts": ["a watercolor painting of a red fox"]},
      {"name": "dog", "prompts": ["a watercolor painting of a golden retriever"]}
    ],
    "train_per_class": $TRAIN_PER_CLASS,
    "test_per_class": $TEST_PER_CLASS,
    "generation": {"num_inference_steps": $STEPS}
  }
}
TRAINING
submit /train-jobs "$scratch/training"
if [ "$status" = 409 ]; then
  echo "a dataset or a model $NAME is there already, made by another request; choose another NAME to train again"
  exit 0
fi
job_id=$(json id <"$scratch/answer")
echo "train job $job_id"
follow "$job_id"
require_success
model_id=$(json result.model_id <"$scratch/job")
ask_ok "/models/$model_id"
echo "model $NAME ($model_id), classes $(json classes <"$scratch/answer")"
