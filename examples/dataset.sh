#!/usr/bin/env bash
# A dataset from prompts: ask how long it takes, make it, follow its job by events, download it.
#
#   bash examples/dataset.sh
#
# It may be killed, or the service restarted, at any point: started again, it goes on with the same dataset and the same
# download. Settings: NAME, TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, SEED, OUT, and those of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
NAME=${NAME:-fox-dog-prompts}
TRAIN_PER_CLASS=${TRAIN_PER_CLASS:-25}
TEST_PER_CLASS=${TEST_PER_CLASS:-5}
STEPS=${STEPS:-20}
SEED=${SEED:-7}
OUT=${OUT:-$NAME.zip}

cat >"$scratch/recipe" <<RECIPE
{
  "name": "$NAME",
  "seed": $SEED,
  "classes": [
    {"name": "fox", "prompts": ["a {style} of a red fox"]},
    {"name": "dog", "prompts": ["a {style} of a golden retriever"]}
  ],
  "variables": {"style": ["watercolor painting", "pencil sketch"]},
  "train_per_class": $TRAIN_PER_CLASS,
  "test_per_class": $TEST_PER_CLASS,
  "generation": {"num_inference_steps": $STEPS}
}
RECIPE

# A question only: a dataset of this name that is there already (409) is no reason to stop.
ask '/datasets?dry_run=true' --header 'Content-Type: application/json' --data "@$scratch/recipe"
case $status in
  200)
    echo "$(json num_images <"$scratch/answer") images, about $(json estimated_seconds <"$scratch/answer") s" \
      "if: $(json assumptions <"$scratch/answer")"
    ;;
  409) ;;
  *) refused "the recipe" ;;
esac

make_dataset "$NAME" "$scratch/recipe"
echo "dataset $dataset_id, job $job_id"
follow "$job_id"
require_success
download "/datasets/$dataset_id/archive.zip" "$OUT"
