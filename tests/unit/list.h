/* Lists of corpus/models: lines `name: what is wanted`, '#' starts a comment. */
#ifndef LINNET_LIST_H
#define LINNET_LIST_H

#include <stdio.h>
#include <string.h>

#include "tests/unit/unit.h"

/* Call f for each line of a list, which has more than `few`. */
static inline void each_model(const char *list, int few, void (*f)(const char *name, const char *want, void *ctx), void *ctx)
{
	FILE *file = fopen(list, "r");
	char line[1000];
	int n = 0;

	assert_non_null(file);
	while (fgets(line, sizeof line, file)) {
		char *want = strchr(line, ':');

		if (*line == '#')
			continue;
		assert_non_null(want);
		*want++ = '\0';
		want += *want == ' ';
		want[strcspn(want, "\n")] = '\0';
		f(line, want, ctx);
		n++;
	}
	fclose(file);
	assert_true(n > few);
}

#endif
