#!/bin/sh
# run.sh PROGRAM SOURCE [--update] FILE...: commands, and what they print and return. In a case file
#
#     $ linnet ops Relu | head -1     a command for sh, in the source folder; `linnet` is the program, $T an empty folder
#     > a line of standard output
#     ! a line of standard error
#     = 0                             the exit status
#
# other lines are comments. --update writes what happened in place of what was expected.
set -u
program=$(realpath "$1") source=$2
shift 2
update=
[ "$1" = --update ] && update=1 && shift
T=$(mktemp -d)
export T
trap 'rm -rf "$T"' EXIT
mkdir "$T/bin"
ln -s "$program" "$T/bin/linnet"
PATH="$T/bin:$PATH"
unset NO_COLOR
export TERM=xterm
cd "$source" || exit 1

failed=0
for file; do
	: > "$T/found"
	while IFS= read -r line; do
		case $line in
		'$ '*)
			printf '%s\n' "$line" >> "$T/found"
			sh -c "${line#??}" > "$T/out" 2> "$T/err" < /dev/null
			status=$?
			sed "s|$T|\$T|g; s/^/> /; s/ $//" "$T/out" >> "$T/found"
			sed "s|$T|\$T|g; s/^/! /; s/ $//" "$T/err" >> "$T/found"
			printf '= %s\n' "$status" >> "$T/found"
			;;
		'>'* | '!'* | '='*) ;;
		*) printf '%s\n' "$line" >> "$T/found" ;;
		esac
	done < "$file"
	if ! cmp -s "$T/found" "$file"; then
		if [ -n "$update" ]; then
			cp "$T/found" "$file"
		else
			diff -u "$file" "$T/found"
			failed=1
		fi
	fi
done
exit $failed
