#!/usr/bin/env bash
# A dataset of pictures of your own: PICTURES has a folder for each class, with at least one picture in it.
#
#   PICTURES=photos bash examples/upload.sh
#
# Started again, it uploads what is missing: the service refuses a picture that it has. Settings: PICTURES, NAME, SPLIT
# (train, validation or test), OUT, and those of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PICTURES=${PICTURES:-photos}
NAME=${NAME:-my-pictures}
SPLIT=${SPLIT:-train}
OUT=${OUT:-$NAME.zip}
AT_ONCE=${AT_ONCE:-20} # files of a request, at most 100

[ -d "$PICTURES" ] || die "there is no folder $PICTURES; set PICTURES to one that has a folder for each class"
shopt -s nullglob
folders=("$PICTURES"/*/)
[ "${#folders[@]}" -ge 2 ] || die "$PICTURES has no two folders; each class is one"

# No images are generated, so the prompts are never used.
python3 - "$NAME" "${folders[@]}" >"$scratch/recipe" <<'PYTHON'
import json, os, sys
name, *folders = sys.argv[1:]
labels = [os.path.basename(folder.rstrip("/")) for folder in folders]
classes = [{"name": label, "prompts": [label]} for label in labels]
json.dump({"name": name, "classes": classes, "train_per_class": 0, "test_per_class": 0}, sys.stdout)
PYTHON
make_dataset "$NAME" "$scratch/recipe"
echo "dataset $dataset_id"

sent=0
send() {
  ask_ok "/datasets/$dataset_id/images" --form-string "class_name=$label" --form-string "split=$SPLIT" "${fields[@]}"
  sent=$((sent + ${#fields[@]} / 2))
  echo "   $sent of $total files: $(json num_accepted <"$scratch/answer") taken," \
    "$(json num_refused <"$scratch/answer") refused $(json files.0.refused.code <"$scratch/answer")"
  fields=()
}
files=("$PICTURES"/*/*)
total=${#files[@]}
for folder in "${folders[@]}"; do
  label=$(basename "$folder")
  fields=()
  for file in "$folder"*; do
    fields+=(--form "files=@\"$file\"")
    [ "${#fields[@]}" -lt $((2 * AT_ONCE)) ] || send
  done
  [ "${#fields[@]}" -eq 0 ] || send
done

ask_ok "/datasets/$dataset_id"
echo "the dataset has $(json num_images <"$scratch/answer") images"
download "/datasets/$dataset_id/archive.zip" "$OUT"
