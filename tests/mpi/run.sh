#!/bin/sh
# run.sh PROGRAM SOURCE: two processes end in the bits of one that takes both their batches, whichever of them began the run; a failure of one is a failure of
# all. Exit status 77, after saying why, where MPI is missing.
set -eu
linnet=$(realpath "$1") source=$2
export ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
command -v mpirun > /dev/null || { echo "skipped: there is no mpirun"; exit 77; }
"$linnet" train --mpi "$source/corpus/lm/softmax.onnx" --data "$T" -o "$T/x" 2>&1 | grep -q "built without MPI" && { echo "skipped: built without MPI"; exit 77; }
two() { timeout 120 mpirun -n 2 --oversubscribe "$linnet" train --mpi --threads 1 "$@"; }

cat > "$T/lm.onnxtxt" << 'EOF'
<ir_version: 10, opset_import: ["" : 21]>
lm (int64[B,T] ids) => (float[B,T,8] logits) <float[8,3] weight1 = {1,2,3,2,1,3,3,1,2,1,3,2,1,1,2,2,1,1,3,1,1,1,2,3}, float[3,8] weight2 =
	{1,0,1,2,3,1,0,0,1,2,0,0,1,1,0,2,0,1,0,1,3,0,1,0}>
{ x = Gather (weight1, ids)  y = Tanh (x)  logits = MatMul (y, weight2) }
EOF
i=0
while [ $i -lt 300 ]; do printf "\\$(printf %o $((i * i % 7)))\\000"; i=$((i + 1)); done > "$T/tokens.bin"
run() { "$@" "$T/lm.onnxtxt" --data "$T/tokens.bin" --held-out "$T/tokens.bin" --length 4 --batch 2 --steps "$steps" --keep 3 --evaluate 4 -q; }

steps=20
run "$linnet" train -o "$T/one.onnx" --accumulate 2 --log "$T/one.log"
run two -o "$T/two.onnx" --log "$T/two.log"
cmp "$T/one.onnx" "$T/two.onnx"
losses() { sed 's/"seconds":[^,}]*//; s/"held_out":\([0-9.]\{7\}\)[0-9.]*/\1/' "$1"; }
losses "$T/one.log" > "$T/one.txt"
losses "$T/two.log" > "$T/two.txt"
cmp "$T/one.txt" "$T/two.txt"

# begun by one process, ended by two
steps=7
run "$linnet" train -o "$T/part.onnx" --accumulate 2 --checkpoint "$T/run.npz" --schedule constant
steps=20
run two -o "$T/went.onnx" --checkpoint "$T/run.npz" --schedule constant
run "$linnet" train -o "$T/whole.onnx" --accumulate 2 --schedule constant
cmp "$T/whole.onnx" "$T/went.onnx"

# data that only one of them sees
if timeout 120 mpirun -n 2 --oversubscribe sh -c "exec '$linnet' train --mpi '$T/lm.onnxtxt' --data $T/\$([ \$OMPI_COMM_WORLD_RANK = 0 ] && echo tokens.bin || echo nowhere.bin) \
	--length 4 -o '$T/no.onnx' -q" 2> "$T/err"; then
	echo "a process without data was not missed"
	exit 1
fi
grep -q "nowhere.bin: cannot be opened" "$T/err"
# weights that differ
sed 's/{1,2,3/{1,2,4/' "$T/lm.onnxtxt" > "$T/lm1.onnxtxt"
cp "$T/lm.onnxtxt" "$T/lm0.onnxtxt"
if timeout 120 mpirun -n 2 --oversubscribe sh -c "exec '$linnet' train --mpi $T/lm\$OMPI_COMM_WORLD_RANK.onnxtxt --data '$T/tokens.bin' --length 4 -o '$T/no.onnx' -q" 2> "$T/err"; then
	echo "other weights were not noticed"
	exit 1
fi
grep -q "do all see the same files" "$T/err"
