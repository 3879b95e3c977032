#!/bin/sh
# The programs of docs/streaming.md, on models with states, say what the model of whole sequences says that reads all of it again for each token.
# streaming.sh LINNET PROGRAM MODEL FOLDER PAGE [PYTHON that has onnxruntime, or else is skipped]
set -eu
linnet=$1 program=$2 model=$3 folder=$4 page=$5 python=${6:-}
prompt="5 17 33 2 80 41 7 1200 9 61 8 99 4"

mkdir -p "$folder"
if [ -n "$python" ] && "$python" -c 'import onnxruntime, numpy' 2> "$folder/why"; then
	awk '/^```python$/ { on = 1; next } /^```$/ { on = 0 } on' "$page" > "$folder/stream.py"
else
	python=
fi
try() {
	target=$1
	shift
	"$linnet" convert -q "$model" -o "$folder/whole.onnx" --target portable "$@"
	"$linnet" convert -q "$model" -o "$folder/states.onnx" --target "$target" "$@"
	"$linnet" generate -q "$folder/whole.onnx" --prompt "$prompt" --tokens 6 | tr -s ' ' '\n' | sed '/^$/d' > "$folder/want"
	[ "$(wc -l < "$folder/want")" -eq 6 ]
	# shellcheck disable=SC2086
	"$program" "$folder/states.onnx" 6 $prompt > "$folder/found"
	diff -u "$folder/want" "$folder/found"
	"$linnet" generate -q "$folder/states.onnx" --prompt "$prompt" --tokens 6 | tr -s ' ' '\n' | sed '/^$/d' | diff -u "$folder/want" -
	[ -z "$python" ] || "$python" "$folder/stream.py" "$folder/states.onnx" 6 $prompt | diff -u "$folder/want" -
}
try step --mechanism elu
try chunk --mechanism gated-delta --window 5 --sinks 2
try step --mechanism lolcats-terraced --window 4 --state float16
