# tests/recurrences.txt as the table of docs/recognition.md.
BEGIN { print "| spelling | recurrence | how | becomes |"; print "|---|---|---|---|" }
/^## / { head = substr($0, 4) }
/^=> / { rule = substr($0, 4); print "| " head " | " (rule == "-" ? "stays" : rule) " |" }
